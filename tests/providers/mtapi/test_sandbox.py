"""MetaTrader accounts over recorded history in the sandbox: what arrives is what the files hold, whatever the broker's clock."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from core.candles import check
from core.clock import DAY_US, HOUR_US, SystemClock
from core.errors import CredentialsRefusedError
from core.interval import Interval
from core.secrets import Secret
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from providers.base import ConnectionSpec, Unlimited
from providers.mtapi.clock import rule_of, week_ends
from providers.paging import pages
from providers.registry import open_provider

server = pytest.importorskip("sandbox.server", reason="the sandbox is not built yet")

DATA = Path(server.__file__).parent / "data"
PLATFORMS = ("mtapi:mt5", "mtapi:mt4")
LOGIN = {"user": Secret("50000001"), "password": Secret("practice-only"), "server": Secret("Sandbox-Demo")}
H1 = Timeframe.parse("1h")
SETTLED = Interval.parse("2015-01-01", "2015-01-02").start
YEAR = Interval.parse("2016-02-20", "2016-12-01")  # both changes, by either rule


@pytest.fixture(scope="module")
def sandbox():
    """Run one sandbox for the module."""
    with server.running() as box:
        yield box


@pytest.fixture
def box(sandbox):
    """Return the sandbox as new."""
    sandbox.reset()
    yield sandbox
    sandbox.reset()


def open_at(box, platform, **config):
    """Open an account of the sandbox."""
    spec = ConnectionSpec("practice", platform, f"{box.url}/{platform[-3:]}", LOGIN, config, 30.0, True, SystemClock())
    return open_provider(spec, Unlimited())


async def read(provider, symbol, timeframe, interval):
    """Read an interval page by page, checked."""
    grid, frames, rejected = Grid(timeframe, provider.server_clock), [], 0
    for part in pages(interval, grid, provider.capabilities.page_limit(timeframe)):
        page = await provider.fetch_candles(symbol, timeframe, part)
        checked = check(page.candles, grid, page.asked, page.server_us)
        frames.append(checked.candles)
        rejected += checked.rejected.height
    assert rejected == 0
    return pl.concat(frames)


def recorded() -> pl.DataFrame:
    """Return what the file holds."""
    frame = pl.read_parquet(DATA / "oanda_EURUSD_H1.parquet")
    return frame.select(pl.col("ts").cast(pl.Datetime("us", "UTC")), "open", "high", "low", "close").filter(
        pl.col("ts").is_between(YEAR.start_at, YEAR.end_at, closed="left"))


@pytest.mark.parametrize("switches", [
    {"dst": "us"}, {"dst": "eu", "order": "desc"}, {"dst": "none", "timezone_unit": "minutes"}, {"quoted": True, "success_status": 201},
    {"dst": "eu", "end_inclusive": False}, {"offset_minutes": 0, "dst": "eu"}, {"offset_minutes": -300, "dst": "us", "off_grid_h4": True},
], ids=str)
async def test_a_year_of_hours_is_the_files_year(box, switches):
    """Both platforms give the recorded hours of a year at their own UTC instants, none doubled, none missing, unconfigured."""
    box.set(**switches)
    expected = recorded()
    for platform in PLATFORMS:
        provider = open_at(box, platform)
        await provider.connect()
        assert provider.server_clock == ServerClock.fixed(box.switches.offset_minutes, box.switches.dst)
        found = await read(provider, "EURUSD", H1, YEAR)
        assert found["ts"].to_list() == expected["ts"].to_list()
        for name in ("open", "high", "low", "close"):
            assert (found[name] - expected[name]).abs().max() < 1e-9
        await provider.disconnect()


@pytest.mark.parametrize("dst", ["eu", "us"])
async def test_days_and_weeks_are_the_same_on_both_platforms(box, dst):
    """4h, 1d and 1w candles of MT4 and MT5 are equal, also where the bridge's own would lie off the grid."""
    box.set(dst=dst, off_grid_h4=True)
    frames = {}
    for platform in PLATFORMS:
        provider = open_at(box, platform)
        await provider.connect()
        for name in ("4h", "1d", "1w", "1mo"):
            frames.setdefault(name, []).append((await read(provider, "EURUSD", Timeframe.parse(name), YEAR)).drop("spread"))
        await provider.disconnect()
    hours = recorded()
    for name, (five, four) in frames.items():
        assert five.equals(four), name
    months = frames["1mo"][0]
    inner = months["ts"][1]
    assert months.row(1, named=True)["high"] == hours.filter(
        pl.col("ts").is_between(inner, months["ts"][2], closed="left"))["high"].max()


async def test_a_replayed_history_tells_its_own_present(box):
    """The sandbox's present is the end of its files; ours is today: candles close by the sandbox's clock."""
    provider = open_at(box, "mtapi:mt5", server_clock={"offset_minutes": 120, "dst": "us"})
    await provider.connect()
    now_us = await provider.server_time_us()
    assert abs(now_us - box.clock.now_us()) < 2_000_000
    page = await provider.fetch_candles("EURUSD", H1, Interval(now_us - DAY_US, now_us + DAY_US))
    assert page.server_us <= now_us + HOUR_US
    await provider.disconnect()


async def test_a_wrong_password_is_refused_once(box):
    """The sandbox refuses a wrong password as a broker does, and is asked once."""
    spec = ConnectionSpec("practice", "mtapi:mt5", f"{box.url}/mt5", {**LOGIN, "password": Secret("no")}, {}, 30.0, True)
    provider = open_provider(spec, Unlimited())
    for _ in range(2):
        with pytest.raises(CredentialsRefusedError):
            await provider.connect()
    assert sum("onnect" in asked.path for asked in box.requests) == 1
    await provider.disconnect()


@pytest.mark.parametrize("path", sorted(DATA.glob("mt5_*_H1_brokertime.parquet")), ids=lambda path: path.stem)
def test_real_brokers_week_ends_show_its_rule(path):
    """Ten months of a real broker's wall-clock hours show EU summer time or nothing, since it settled in 2015; never another rule."""
    local = pl.read_parquet(path)["ts"].dt.epoch("us").to_list()
    windows = [local[end - 5000 : end] for end in range(len(local), 5000, -1000)]
    found = [rule_of(week_ends(window, 2 * HOUR_US)) for window in windows if window[0] >= SETTLED]
    assert set(found) <= {"eu", None}
    assert found[0] == "eu"
    assert found.count("eu") > 0.7 * len(found)

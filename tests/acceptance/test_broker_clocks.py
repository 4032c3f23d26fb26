"""History of brokers on UTC+2/+3 is stored at the right UTC instants across both changes of a year, by MT5 and MT4 alike."""

from pathlib import Path

import polars as pl
import pytest

import sandbox.server
from connections.inputs import ConnectionInput
from core.clock import HOUR_US, parse_instant
from core.interval import Interval
from core.secrets import Secret
from core.series import Series
from core.server_clock import ServerClock
from core.settings import Settings
from core.timeframe import Grid, Timeframe
from feed import open_feed
from feed.backfill import backfill
from sandbox.box import Switches
from storage.coverage import coverage

DATA = Path(sandbox.server.__file__).parent / "data"
YEAR = Interval.parse("2016-02-20", "2016-12-01")  # holds both changes, by the EU's rule and by New York's
PRICES = ["ts", "open", "high", "low", "close"]
LOGIN = {"user": Secret("50000001"), "password": Secret("practice-only"), "server": Secret("Sandbox-Demo")}
SUMMERS = {  # when the offset is three hours, told apart from the project's own rules
    "eu": ("2016-03-27T01:00", "2016-10-30T01:00"), "us": ("2016-03-13T07:00", "2016-11-06T06:00"),
}


def recorded() -> pl.DataFrame:
    """Return the year as the file holds it, in UTC."""
    frame = pl.read_parquet(DATA / "oanda_EURUSD_H1.parquet")
    return frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).filter(
        pl.col("ts").is_between(YEAR.start_at, YEAR.end_at, closed="left")).select(PRICES)


@pytest.fixture
def feed(home):
    with open_feed(Settings(request_timeout=30)) as feed:
        yield feed


def add(feed, box, platform: str) -> None:
    """Add a connection of one platform, without a word on the broker's clock."""
    feed.connections.create(ConnectionInput(
        slug=platform, name=platform, provider=f"mtapi:{platform}", base_url=f"{box.url}/{platform}", credentials=LOGIN,
        symbols=("EURUSD",), timeframes=("1h",)))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["eu", "us"])
async def test_a_year_of_hours_is_stored_at_its_own_instants(serve, feed, rule) -> None:
    """MT5 and MT4 on UTC+2/+3: no hour doubled, missing or shifted at either change; both platforms store the same prices."""
    box = serve(data=None, switches=Switches(dst=rule))
    truth, held = recorded(), {}
    for platform in ("mt5", "mt4"):
        add(feed, box, platform)
        result = await backfill(feed, Series.parse(platform, "EURUSD", "1h"), YEAR)
        assert result.status != "failed", result.message
        assert (result.quarantined, result.revised) == (0, 0)
        held[platform] = feed.lake.candles(platform, "EURUSD", "1h")
        assert held[platform]["ts"].to_list() == truth["ts"].to_list()
        for name in PRICES[1:]:
            assert (held[platform][name] - truth[name]).abs().max() < 1e-9
        stored = feed.connections.get(platform).config["server_clock"]
        assert stored == [{"offset_minutes": 120, "dst": rule}]
    assert held["mt5"].select(PRICES).equals(held["mt4"].select(PRICES))
    again = await backfill(feed, Series.parse("mt5", "EURUSD", "1h"), YEAR)
    assert (again.stored, again.revised) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["eu", "us"])
async def test_long_candles_lie_on_the_brokers_grid(serve, feed, rule) -> None:
    """Candles of 4h and 1d open where the broker's wall clock cuts its day, an hour earlier in summer, and are built of those hours."""
    box = serve(data=None, switches=Switches(dst=rule))
    add(feed, box, "mt5")
    truth = recorded()
    start, end = (parse_instant(text) for text in SUMMERS[rule])
    for name, length in (("1d", 24), ("4h", 4)):
        result = await backfill(feed, Series.parse("mt5", "EURUSD", name), YEAR)
        assert result.status != "failed", result.message
        assert result.quarantined == 0
        opens = feed.lake.candles("mt5", "EURUSD", name)["ts"].dt.epoch("us").to_list()
        grid = Grid(Timeframe.parse(name), ServerClock.fixed(120, rule))
        assert len(opens) > 240 * 24 // length * 5 // 7
        for us in opens:
            offset = 3 if start <= us < end else 2
            assert (us + offset * HOUR_US) % (length * HOUR_US) == 0
            assert grid.floor(us) == us
    days = feed.lake.candles("mt5", "EURUSD", "1d")
    ends = pl.Series("until", [*days["ts"][1:], YEAR.end_at], dtype=pl.Datetime("us", "UTC"))
    for day, until in list(zip(days.iter_rows(named=True), ends, strict=True))[1:-1]:
        hours = truth.filter(pl.col("ts").is_between(day["ts"], until, closed="left"))
        assert day["open"] == pytest.approx(hours["open"][0])
        assert day["high"] == pytest.approx(hours["high"].max())
        assert day["low"] == pytest.approx(hours["low"].min())
        assert day["close"] == pytest.approx(hours["close"][-1])


@pytest.mark.parametrize("platform", ["mt5", "mt4"])
@pytest.mark.slow
async def test_hours_of_a_clock_off_by_a_half_hour_are_stored(serve, feed, platform) -> None:
    """A broker on UTC+5:30 opens its hours at half past in UTC: they are stored there, none is refused, and nothing is missing."""
    box = serve(data=None, switches=Switches(offset_minutes=330, dst="none"))
    feed.connections.create(ConnectionInput(
        slug=platform, name=platform, provider=f"mtapi:{platform}", base_url=f"{box.url}/{platform}", credentials=LOGIN,
        symbols=("EURUSD",), timeframes=("1h",), config={"server_clock": {"offset_minutes": 330}}))
    days = Interval.parse("2014-05-05", "2014-05-09")
    result = await backfill(feed, Series.parse(platform, "EURUSD", "1h"), days)
    assert (result.status != "failed", result.quarantined) == (True, 0), result.message
    minutes = pl.read_parquet(DATA / "oanda_EURUSD_M1_201405.parquet").with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    truth = minutes.sort("ts").group_by_dynamic("ts", every="1h", offset="30m").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last()).filter(
        pl.col("ts").is_between(days.start_at, days.end_at, closed="left"))
    held = feed.lake.candles(platform, "EURUSD", "1h")
    assert held["ts"].to_list() == truth["ts"].to_list()
    for name in PRICES[1:]:
        assert (held[name] - truth[name]).abs().max() < 1e-9
    (row,) = coverage(feed.lake, platform)
    assert (row.stored, row.unexplained) == (truth.height, 0)

"""The conformance cases, each over every candidate; a case that a provider's capabilities rule out is skipped by name."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from core.candles import CANDLE_SCHEMA, check
from core.clock import HOUR_US, ManualClock, isoformat
from core.errors import (
    AddressRefusedError,
    BadPayloadError,
    CandlelakeError,
    ProviderUnavailableError,
    RateLimitedError,
    TransientError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.timeframe import NAMES, Grid, Timeframe
from providers.base import MarketDataProvider
from providers.registry import describe
from tests.providers.conformance import CANARY, CANDIDATES, NOW, Candidate

server = pytest.importorskip("sandbox.server", reason="the sandbox is not built yet")

DAY = Interval.parse("2021-06-14", "2021-06-15")
pytestmark = [pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda each: each.id), pytest.mark.usefixtures("_calm")]


@dataclass
class Stage:
    """The sandbox, the clock it shows, and a folder of files for `replay`."""

    box: object
    clock: ManualClock
    folder: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Run the sandbox and write the files of `replay`."""
    folder = tmp_path_factory.mktemp("files")
    start, hours = datetime(2021, 5, 1, tzinfo=UTC), 24 * 60
    pl.DataFrame({
        "ts": [start + timedelta(hours=n) for n in range(hours)],
        **{name: [1.1 + n / 1e5 + extra for n in range(hours)] for name, extra in (("open", 0), ("high", 1), ("low", -1), ("close", 0))},
        "volume": [float(n % 97) for n in range(hours)],
    }).write_parquet(folder / "house_EURUSD_1h.parquet")
    clock = ManualClock(NOW)
    with server.running(mode="replay", clock=clock) as box:
        yield Stage(box, clock, str(folder))


@pytest.fixture
def _calm(stage):
    """Leave no fault and no moved clock behind."""
    yield
    stage.box.faults.clear()
    stage.clock.set(NOW)


@asynccontextmanager
async def connected(candidate: Candidate, stage: Stage, **changes):
    """Connect, and disconnect whatever happens."""
    provider = make(candidate, stage, **changes)
    try:
        await provider.connect()
        yield provider
    finally:
        await provider.disconnect()


def make(candidate: Candidate, stage: Stage, **changes) -> MarketDataProvider:
    """Open a candidate, with its folder where it needs one."""
    if candidate.path is None:
        changes.setdefault("config", {"folder": stage.folder, **candidate.config})
    return candidate.open(stage.box.url, stage.clock, **changes)


async def candles(provider, candidate, interval=DAY):
    """Ask once and check what came."""
    page = await provider.fetch_candles(candidate.symbol, candidate.timeframe, interval)
    return check(page.candles, Grid(candidate.timeframe, provider.server_clock), interval, page.server_us), page


async def test_c01_keeps_the_protocol(candidate, stage):
    """C01: an opened provider keeps MarketDataProvider and is not connected by being opened."""
    provider = make(candidate, stage)
    assert isinstance(provider, MarketDataProvider)
    assert not provider.is_connected
    await provider.disconnect()


async def test_c02_connects_and_disconnects_as_often_as_asked(candidate, stage):
    """C02: connect and disconnect are idempotent, and a closed connection opens again."""
    provider = make(candidate, stage)
    for _ in range(2):
        await provider.connect()
        await provider.connect()
        assert provider.is_connected
        await provider.disconnect()
        await provider.disconnect()
        assert not provider.is_connected


async def test_c03_describes_itself(candidate, stage):
    """C03: capabilities carry the provider's own name and canonical timeframes, before connecting and after."""
    before = describe(candidate.provider)
    async with connected(candidate, stage) as provider:
        for capabilities in (before, provider.capabilities):
            assert capabilities.provider == candidate.provider
            assert candidate.timeframe.name in capabilities.timeframes
            assert list(capabilities.timeframes) == [name for name in NAMES if name in capabilities.timeframes]
            assert capabilities.page_limit(candidate.timeframe) > 0


async def test_c04_tells_the_servers_time_in_utc(candidate, stage):
    """C04: the server's clock is UTC whatever wall clock the server shows."""
    async with connected(candidate, stage) as provider:
        assert abs(await provider.server_time_us() - NOW) <= 2_000_000, isoformat(await provider.server_time_us())


async def test_c05_lists_symbols_sorted(candidate, stage):
    """C05: symbols come sorted, once each, and hold the one that trades."""
    async with connected(candidate, stage) as provider:
        names = [info.symbol for info in await provider.symbols()]
        assert names == sorted(set(names))
        assert candidate.symbol in names


async def test_c06_gives_a_day_of_candles(candidate, stage):
    """C06: a day in the past comes whole, on the grid, with nothing to reject."""
    async with connected(candidate, stage) as provider:
        checked, page = await candles(provider, candidate)
        assert page.candles.schema == CANDLE_SCHEMA
        assert checked.rejected.is_empty()
        assert checked.candles["ts"].dt.epoch("us").to_list() == Grid(candidate.timeframe).slots(DAY)
        assert page.request_id


async def test_c07_gives_the_same_answer_twice(candidate, stage):
    """C07: the same question has the same answer, from this connection and from a new one."""
    async with connected(candidate, stage) as one, connected(candidate, stage) as two:
        first, again, other = [(await candles(each, candidate))[0].candles for each in (one, one, two)]
        assert first.equals(again)
        assert first.equals(other)


async def test_c08_parts_join_to_the_whole(candidate, stage):
    """C08: two adjacent questions give together what one gives: ends are half-open."""
    middle = DAY.start + 11 * HOUR_US
    async with connected(candidate, stage) as provider:
        whole = (await candles(provider, candidate))[0].candles
        parts = [(await candles(provider, candidate, part))[0].candles
                 for part in (Interval(DAY.start, middle), Interval(middle, DAY.end))]
        assert pl.concat(parts).equals(whole)


async def test_c09_open_candles_are_told_by_the_servers_clock(candidate, stage):
    """C09: the candle that is forming is never kept; once it has closed, it is."""
    asked = Interval(NOW - 3 * HOUR_US, NOW + HOUR_US)
    async with connected(candidate, stage) as provider:
        newest = (await candles(provider, candidate, asked))[0].candles["ts"].max()
        assert newest == datetime(2021, 6, 16, 9, tzinfo=UTC)
        stage.clock.advance(timedelta(hours=1))
        newest = (await candles(provider, candidate, asked))[0].candles["ts"].max()
        assert newest == datetime(2021, 6, 16, 10, tzinfo=UTC)


async def test_c10_long_ranges_are_cut_oldest_first(candidate, stage):
    """C10: asked for more than a page, the page says what it holds: it begins at the start, or history does not reach it."""
    async with connected(candidate, stage) as provider:
        limit = provider.capabilities.page_limit(candidate.timeframe)
        start = NOW - NOW % HOUR_US - (limit + 500) * HOUR_US
        page = await provider.fetch_candles(candidate.symbol, candidate.timeframe, Interval(start, NOW))
        assert page.asked.start == start
        assert Grid(candidate.timeframe).count(page.asked) <= limit
        if page.reachable_from is not None:
            assert provider.capabilities.history_candles is not None


async def test_c11_unknown_symbols_are_said(candidate, stage):
    """C11: a symbol that nobody knows is UnknownSymbolError."""
    async with connected(candidate, stage) as provider:
        with pytest.raises(UnknownSymbolError):
            await provider.fetch_candles("NOPE/NIX", candidate.timeframe, DAY)


async def test_c12_unknown_timeframes_are_said(candidate, stage):
    """C12: a timeframe that the provider lacks is UnsupportedError."""
    async with connected(candidate, stage) as provider:
        missing = [name for name in NAMES if name not in provider.capabilities.timeframes]
        if not missing:
            pytest.skip("the provider has every timeframe")
        with pytest.raises(UnsupportedError):
            await provider.fetch_candles(candidate.symbol, Timeframe.parse(missing[0]), DAY)


@pytest.mark.parametrize(("kind", "settings", "error"), [
    ("status", {"status": 503}, ProviderUnavailableError), ("status", {"status": 429, "retry_after": 7}, RateLimitedError),
    ("html", {}, TransientError), ("truncated", {}, TransientError), ("drop", {}, TransientError), ("null", {}, BadPayloadError),
    ("redirect", {}, CandlelakeError),
])
async def test_c13_failures_have_their_names(candidate, stage, kind, settings, error):
    """C13: outages, limits, web pages, cut answers and redirects are errors of core.errors, never an empty page."""
    if candidate.path is None:
        pytest.skip("no network: no failures of it")
    async with connected(candidate, stage) as provider:
        await candles(provider, candidate)
        stage.box.faults.add(kind, candidate.faults, **settings)
        with pytest.raises(error) as caught:
            await candles(provider, candidate)
        assert isinstance(caught.value, CandlelakeError)
        assert "\n" not in str(caught.value)
        if "retry_after" in settings:
            assert caught.value.retry_after == 7
        stage.box.faults.clear()
        assert (await candles(provider, candidate))[0].candles.height == 24


@pytest.mark.parametrize("kind", ["nan", "negative_price", "high_below_low", "off_grid", "duplicate_rows", "unsorted"])
async def test_c14_broken_rows_never_pass_the_check(candidate, stage, kind):
    """C14: spoilt rows are refused with the answer, or rejected with a reason; what is kept is what was true."""
    if candidate.path is None:
        pytest.skip("files are not spoilt by the sandbox")
    async with connected(candidate, stage) as provider:
        true = (await candles(provider, candidate))[0].candles
        stage.box.faults.add(kind, candidate.faults)
        try:
            kept = (await candles(provider, candidate))[0].candles
        except BadPayloadError:
            return
        assert kept.join(true, on=list(CANDLE_SCHEMA), how="anti", nulls_equal=True).is_empty()


async def test_c15_accounts_and_ticks_are_given_or_refused(candidate, stage):
    """C15: what a provider does not have is UnsupportedError; what it has holds no secret."""
    async with connected(candidate, stage) as provider:
        try:
            info = await provider.account_info()
        except UnsupportedError:
            assert not candidate.credentials
        else:
            assert info.login
            assert candidate.credentials["password"] not in repr(info)
        if not provider.capabilities.has_tick_history:
            with pytest.raises(UnsupportedError):
                await provider.fetch_ticks(candidate.symbol, DAY)


async def test_c16_loopback_needs_leave(candidate, stage):
    """C16: without allow_private_hosts no provider talks to the machine it runs on."""
    if candidate.path is None:
        pytest.skip("no network")
    provider = make(candidate, stage, allow_private_hosts=False)
    with pytest.raises(AddressRefusedError):
        await provider.connect()
    assert not provider.is_connected
    await provider.disconnect()


async def test_c17_longer_candles_are_made_of_shorter_ones(candidate, stage):
    """C17: 4h candles hold exactly their four hours."""
    four = Timeframe.parse("4h")
    async with connected(candidate, stage) as provider:
        if four.name not in provider.capabilities.timeframes:
            pytest.skip("the provider has no 4h candles")
        hours = (await candles(provider, candidate, Interval(DAY.start - 4 * HOUR_US, DAY.end)))[0].candles
        grid = Grid(four, provider.server_clock)
        page = await provider.fetch_candles(candidate.symbol, four, DAY)
        longer = check(page.candles, grid, DAY, page.server_us).candles
        assert longer["ts"].dt.epoch("us").to_list() == grid.slots(DAY)
        for row in longer.iter_rows(named=True):
            own = hours.filter(pl.col("ts").is_between(row["ts"], row["ts"] + timedelta(hours=4), closed="left"))
            if own.height == 4:
                assert (row["open"], row["high"], row["low"], row["close"]) == (
                    own["open"][0], own["high"].max(), own["low"].min(), own["close"][-1])
                assert row["volume"] == pytest.approx(own["volume"].sum())


async def test_c18_secrets_stay_inside(candidate, stage):
    """C18: a refused or malformed credential never shows in the error."""
    if not candidate.credentials:
        pytest.skip("public data: no credentials")
    from core.secrets import Secret

    wrong = {name: Secret(value) for name, value in candidate.credentials.items()} | {"password": Secret(CANARY)}
    provider = make(candidate, stage, credentials=wrong)
    with pytest.raises(CandlelakeError) as caught:
        await provider.connect()
    assert CANARY not in f"{caught.value!s} {caught.value!r} {provider!r}"
    await provider.disconnect()

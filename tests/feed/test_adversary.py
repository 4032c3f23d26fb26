"""Attempts to make the ledger lie: cut days, doubled rows, clocks that jump, retention undone, repairs that meet."""

import asyncio

import polars as pl
import pytest

from connections.leases import Leases
from core.clock import DAY_US, HOUR_US, MINUTE_US, to_datetime
from core.interval import Interval
from feed import Feed
from feed.audit import AuditScope, audit
from feed.backfill import backfill
from feed.fetch import fetch
from feed.repair import repair
from storage import open_lake
from storage.coverage import coverage
from storage.lake.revisions import list_revisions
from storage.ledger import list_gaps
from tests.feed.conftest import OneConnection

START = 1_704_067_200_000_000  # 2024-01-01
KEY = ("played", "BTC/USDT", "1m")


def at(minute: int) -> int:
    return START + minute * MINUTE_US


def gaps(feed):
    with feed.lake.metadata.read() as tx:
        return list_gaps(tx)


def held(feed, truth, **options):
    return feed.lake.candles(*KEY, **options).select(truth.columns)


def without_hole(truth: pl.DataFrame, first: int, end: int) -> pl.DataFrame:
    return truth.filter(~pl.col("ts").is_between(to_datetime(at(first)), to_datetime(at(end)), closed="left"))


async def test_pages_cut_at_midnight_lose_nothing(make_feed, series, clock, candles_of) -> None:
    """A provider that never answers past the midnight of its first row: every candle of three days is stored, nothing is booked."""
    truth = candles_of(3 * 1440 + 7)
    feed, provider = make_feed(truth, page=1000)
    whole = provider.fetch_candles

    async def cut(symbol, timeframe, interval):
        page = await whole(symbol, timeframe, interval)
        if timeframe.name == "1m" and page.candles.height:
            day = page.candles["ts"].dt.date()
            page = type(page)(page.candles.filter(day == day[0]), page.asked, page.server_us, page.request_id, page.reachable_from)
        return page

    provider.fetch_candles = cut
    clock.set(at(4 * 1440))
    result = await backfill(feed, series, Interval(START, at(3 * 1440 + 7)))
    assert held(feed, truth).equals(truth)
    assert (result.status, gaps(feed)) == ("complete", [])


async def test_more_rows_than_the_limit_and_all_of_them_twice(make_feed, series, clock, candles_of) -> None:
    """Answers with every row doubled and far more rows than a page holds are stored once each, in order."""
    truth = candles_of(900)
    feed, provider = make_feed(truth)
    whole = provider.fetch_candles

    async def doubled(symbol, timeframe, interval):
        provider.page = 450  # four times what it says that it gives
        page = await whole(symbol, timeframe, Interval(interval.start - 50 * MINUTE_US, interval.end + 200 * MINUTE_US))
        provider.page = 100
        return type(page)(pl.concat([page.candles, page.candles]), interval, page.server_us, page.request_id, page.reachable_from)

    provider.fetch_candles = doubled
    clock.set(at(2000))
    result = await backfill(feed, series, Interval(START, at(900)))
    assert (result.status, result.stored, result.revised, result.quarantined) == ("complete", 900, 0, 0)
    assert held(feed, truth).equals(truth)


async def test_a_provider_whose_clock_jumps_back_never_ends_a_run_silently_short(make_feed, series, clock, candles_of) -> None:
    """When its clock falls back in the middle of a run, what it had been past is booked, not called complete; later it comes."""
    truth = candles_of(600)
    feed, provider = make_feed(truth)
    clock.set(at(700))
    whole = provider.fetch_candles

    async def falls_back(symbol, timeframe, interval):
        page = await whole(symbol, timeframe, interval)
        provider.stands_us = at(150)
        return page

    provider.fetch_candles = falls_back
    result = await backfill(feed, series, Interval(START, at(600)))
    assert held(feed, truth).equals(truth.head(150))
    assert result.status == "complete_with_gaps", result.message
    (row,) = coverage(feed.lake)
    assert (row.expected, row.stored, row.unexplained) == (600, 150, 450)
    provider.stands_us, provider.fetch_candles = None, whole
    clock.set(at(700) + HOUR_US)
    await repair(feed)
    await fetch(feed, due_only=False)
    assert held(feed, truth).equals(truth)
    assert gaps(feed) == []


async def test_a_provider_that_lives_in_the_past_has_a_present_of_its_own(make_feed, series, clock, candles_of) -> None:
    """Of a replay whose clock never was past a slot, that slot is the future: neither stored, nor booked, nor expected."""
    truth = candles_of(600)
    feed, provider = make_feed(truth)
    clock.set(at(700))
    provider.stands_us = at(250)
    result = await backfill(feed, series, Interval(START, at(600)))
    assert (result.status, gaps(feed)) == ("complete", [])
    (row,) = coverage(feed.lake)
    assert (row.expected, row.stored) == (250, 250)
    provider.stands_us = None
    await fetch(feed, due_only=False)
    assert held(feed, truth).equals(truth)


@pytest.mark.parametrize("year_us", [366 * DAY_US, -366 * DAY_US], ids=["ahead", "behind"])
async def test_a_year_by_which_our_clock_was_wrong_stops_nothing(make_feed, series, clock, candles_of, year_us) -> None:
    """Fetched and booked while our own clock was a year off: once it is right, series are due and holes are asked for in time."""
    truth = candles_of(1200)
    feed, provider = make_feed(truth)
    provider.truth = without_hole(truth, 200, 230)
    clock.set(at(400))
    await backfill(feed, series, Interval(START, at(300)))
    clock.set(at(400) + year_us)
    real = provider.clock
    provider.clock = type(clock)(at(401))  # its own clock is right
    await fetch(feed, due_only=False)
    await repair(feed)
    clock.set(at(500))
    provider.clock = real
    provider.truth = truth
    result = await fetch(feed)
    assert result.series, "the series is never due"
    for minute in (520, 700, 1100):
        clock.set(at(minute))
        await repair(feed)
        await fetch(feed)
    assert held(feed, truth).equals(truth.head(1100))
    assert gaps(feed) == []


async def test_a_clock_set_back_keeps_the_past_readable(make_feed, series, clock, candles_of) -> None:
    """A change seen while our clock was set back an hour comes after what it changed: both values are readable, in their order."""
    truth = candles_of(50)
    feed, provider = make_feed(truth)
    clock.set(at(200))
    await backfill(feed, series, Interval(START, at(50)))
    stored_at = clock.now_us()
    clock.set(at(140))
    provider.truth = truth.with_columns(high=pl.col("high") + 5.0)
    result = await audit(feed, AuditScope("played", interval=Interval(START, at(50))))
    assert result.revised == 50
    assert held(feed, truth, as_of=stored_at).equals(truth)
    assert held(feed, truth).equals(provider.truth)
    with feed.lake.metadata.read() as tx:
        assert all(row.known_at_us > row.old_known_at_us for row in list_revisions(tx))


async def test_retention_and_a_second_backfill_agree(make_feed, series, clock, candles_of) -> None:
    """What cleanup removed stays away until a person asks for it; then it is there again, explained, with the past as it was."""
    truth = candles_of(600)
    feed, provider = make_feed(without_hole(truth, 100, 110))
    clock.set(at(700))
    await backfill(feed, series, Interval(START, at(600)))
    before = clock.now_us()
    clock.set(before + HOUR_US)
    feed.lake.apply_retention(feed.lake.plan_retention(at(300)))
    clock.set(before + 2 * HOUR_US)
    await repair(feed)
    await fetch(feed, due_only=False)
    assert feed.lake.candles(*KEY)["ts"][0] == to_datetime(at(300))
    provider.truth = provider.truth.with_columns(volume=pl.col("volume") + 1)
    clock.set(before + 3 * HOUR_US)
    await backfill(feed, series, Interval(START, at(300)))
    clock.set(before + 4 * HOUR_US)
    await repair(feed)
    (row,) = coverage(feed.lake)
    assert (row.stored, row.unexplained) == (590, 0)
    assert [gap.interval for gap in gaps(feed) if gap.cause == "no_trade"] == [Interval(at(100), at(110))]
    assert held(feed, truth, end=at(300)).equals(provider.truth.filter(pl.col("ts") < to_datetime(at(300))))
    assert held(feed, truth, end=at(300), as_of=before).is_empty()
    with feed.lake.metadata.read() as tx:
        assert all(item.ts_us >= at(300) for item in list_revisions(tx))


async def test_two_repairs_of_one_home_meet(make_feed, series, clock, candles_of) -> None:
    """Two processes repair at once: the hole is filled once, the ledger counts one attempt, and the second says who works."""
    truth = candles_of(400)
    feed, provider = make_feed(without_hole(truth, 100, 200))
    clock.set(at(500))
    await backfill(feed, series, Interval(START, at(400)))
    provider.truth = truth
    clock.set(at(500) + HOUR_US)
    lake = open_lake(feed.lake.root.parent, clock=clock)
    other = Feed(lake, OneConnection(feed.connections.lake_id, provider), Leases(lake.metadata, clock), feed.settings, clock)
    try:
        results = await asyncio.gather(repair(feed), repair(other))
    finally:
        other.close()
    assert sorted(result.stored for result in results) == [0, 100]
    assert held(feed, truth).equals(truth)
    assert gaps(feed) == []
    with feed.lake.metadata.read() as tx:
        assert list_revisions(tx) == []


async def test_a_day_that_is_not_over_hides_nothing(make_feed, series, clock, candles_of) -> None:
    """A silent page, candles after it, and a daily candle that is not made yet: what was never asked for is never booked as empty."""
    truth = candles_of(400)
    feed, provider = make_feed(without_hole(truth, 100, 200))
    clock.set(at(500))
    await backfill(feed, series, Interval(START, at(400)))
    assert held(feed, truth).equals(provider.truth)
    assert [gap.interval for gap in gaps(feed)] == [Interval(at(100), at(200))]


async def test_a_past_view_stands_while_the_head_is_flushed(make_feed, series, clock, candles_of) -> None:
    """As-of reads before, during and after a flush give the same rows; a view of the future is the present."""
    truth = candles_of(3000)
    feed, provider = make_feed(truth, page=1000)
    clock.set(at(4000))
    await backfill(feed, series, Interval(START, at(3000)))
    then = clock.now_us()
    clock.set(then + HOUR_US)
    provider.truth = truth.with_columns(low=pl.col("low") - 3.0)
    assert (await audit(feed, AuditScope("played", interval=Interval(START, at(3000))))).revised == 3000

    def read():
        return held(feed, truth, as_of=then)

    flushed = asyncio.create_task(asyncio.to_thread(feed.lake.flush))
    seen = [await asyncio.to_thread(read)]
    while not flushed.done():
        seen.append(await asyncio.to_thread(read))
    await flushed
    assert all(frame.equals(truth) for frame in [*seen, read()])
    assert held(feed, truth, as_of=clock.now_us() + 365 * DAY_US).equals(provider.truth)

"""A calendar is learned from a market's silence, never from ours: what was not asked for or did not come teaches nothing."""

import numpy as np
import polars as pl
import pytest

from core.clock import DAY_US, HOUR_US, to_datetime
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from feed.backfill import backfill
from feed.calendar_learning import from_slots, learn_calendar

MONDAY = 1_704_067_200_000_000  # 2024-01-01
WEEKS = 12
HOURS = Grid(Timeframe.parse("1h"))


def nights(weeks: int) -> list[Interval]:
    """Return 20:00 to 23:00 UTC of every day."""
    return [Interval(MONDAY + day * DAY_US + 20 * HOUR_US, MONDAY + day * DAY_US + 23 * HOUR_US) for day in range(weeks * 7)]


def test_a_break_of_the_market_is_learned_and_one_of_ours_is_not() -> None:
    """Hours that never trade are closed time; the same hours, if they could never be read, are not."""
    inside = np.array([us for us in range(MONDAY, MONDAY + WEEKS * 7 * DAY_US, HOUR_US) if not any(us in part for part in nights(WEEKS))])
    learned, _ = from_slots(inside, HOURS, zone="UTC")
    assert {rule.why for rule in learned.weekly} == {"daily break"}
    assert sum(rule.end - rule.start for rule in learned.weekly) == 7 * 180
    unread, evidence = from_slots(inside, HOURS, nights(WEEKS), zone="UTC")
    assert unread.weekly == ()
    assert evidence["weeks"] >= 8


@pytest.mark.parametrize("kind", ["failed", "never asked"])
async def test_weekly_trouble_of_our_own_does_not_close_a_market(make_feed, series, clock, candles_of, kind) -> None:
    """Every Wednesday evening the provider fails us, or nobody asks: after ten weeks the hours are still expected, not closed."""
    weeks = 10
    count = weeks * 7 * 24
    truth = candles_of(count).with_columns(
        ts=pl.from_epoch(MONDAY + pl.int_range(count) * HOUR_US, time_unit="us").dt.replace_time_zone("UTC"))
    feed, provider = make_feed(truth, page=24, market_type="fx")
    provider._timeframe = lambda timeframe: truth if timeframe.name == "1h" else truth.clear()
    hours = type(series).parse("played", "BTC/USDT", "1h")
    clock.set(MONDAY + (weeks * 7 + 1) * DAY_US)
    whole = provider.fetch_candles
    lost = [Interval(MONDAY + (week * 7 + 2) * DAY_US + 18 * HOUR_US, MONDAY + (week * 7 + 2) * DAY_US + 22 * HOUR_US) for week in range(weeks)]

    async def fails(symbol, timeframe, interval):
        if any(part.intersect(interval) for part in lost):
            page = await whole(symbol, timeframe, interval)
            kept = page.candles.filter(~pl.any_horizontal(
                pl.col("ts").is_between(to_datetime(part.start), to_datetime(part.end), closed="left") for part in lost))
            return type(page)(kept, page.asked, page.server_us, page.request_id, None)
        return await whole(symbol, timeframe, interval)

    if kind == "failed":
        provider.fetch_candles = fails
        await backfill(feed, hours, Interval(MONDAY, MONDAY + weeks * 7 * DAY_US))
        with feed.lake.metadata.write() as tx:  # what an outage of the line leaves in the ledger
            tx.exec_driver_sql("UPDATE gaps SET cause = 'fetch_failed' WHERE cause <> 'market_closed'")
    else:
        await backfill(feed, hours, Interval(MONDAY, lost[0].start))
        for before, after in zip(lost, [*lost[1:], Interval(MONDAY + weeks * 7 * DAY_US, MONDAY + (weeks * 7 + 1) * DAY_US)], strict=True):
            await backfill(feed, hours, Interval(before.end, after.start))
    held = feed.lake.candles("played", "BTC/USDT", "1h")["ts"].dt.epoch("us").to_list()
    assert not any(us in part for us in held for part in lost)
    with feed.lake.metadata.write() as tx:
        tx.exec_driver_sql("UPDATE connections SET type = 'fx'")  # weeks are learned of FX only
    learned = learn_calendar(feed, "played", "BTC/USDT")
    for part in lost:
        assert not [closed for closed in learned.calendar.closed(part) if closed.intersect(part)]

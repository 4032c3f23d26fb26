"""When a candle counts as closed: never a partial one, the wait learned, the last one of a session without another tick."""

from core.calendar import FxWeek
from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, ManualClock, parse_instant, to_datetime
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from feed.backfill import backfill
from feed.fetch import fetch
from feed.settling import next_due_us
from storage import open_lake
from storage.lake.revisions import list_revisions
from storage.ledger import list_gaps
from storage.series import find_series
from storage.settling import (
    FORGIVEN,
    JUDGED_ENOUGH,
    LEAST_US,
    Evidence,
    Sight,
    evidence_of,
    judge,
    note_changes,
    note_sights,
    settle_us,
)

START = 1_704_067_200_000_000  # 2024-01-01
MINUTE = Grid(Timeframe.parse("1m"))


def settle(feed, series):
    with feed.lake.metadata.read() as tx:
        return find_series(tx, series).settle_seconds


async def minutely(feed, clock, first: int, count: int, after_us: int):
    """Fetch once a minute, so long after the full minute."""
    for minute in range(first, first + count):
        clock.set(START + minute * MINUTE_US + after_us)
        result = await fetch(feed)
        assert result.status == "complete", result.message


async def test_a_broker_40_seconds_late_yields_no_partial_candle(make_feed, series, clock, candles_of) -> None:
    """With the safe start each candle is final when it is stored: nothing is ever revised, and the wait is not shortened."""
    feed, provider = make_feed(candles_of(200), settle=60, partial_us=40 * SECOND_US)
    clock.set(START + 30 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 20 * MINUTE_US))
    await minutely(feed, clock, 30, 36, 2 * SECOND_US)
    with feed.lake.metadata.read() as tx:
        assert list_revisions(tx) == []
    held = feed.lake.candles("played", "BTC/USDT", "1m").select(provider.truth.columns)
    assert held.equals(provider.truth.head(held.height))
    assert held.height >= 63
    assert (settle(feed, series) or 60) >= 60


async def test_a_prompt_provider_is_waited_for_less(make_feed, series, clock, candles_of) -> None:
    """Many candles seen early and unchanged shorten the wait; then each candle is stored seconds after its close."""
    feed, provider = make_feed(candles_of(200), settle=60)
    clock.set(START + 30 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 29 * MINUTE_US))
    await minutely(feed, clock, 30, 30, 2 * SECOND_US)
    assert LEAST_US / SECOND_US <= settle(feed, series) < 10
    clock.set(START + 60 * MINUTE_US + 5 * SECOND_US)
    await fetch(feed)
    held = feed.lake.candles("played", "BTC/USDT", "1m")
    assert held["ts"][-1] == to_datetime(START + 59 * MINUTE_US)
    assert held.select(provider.truth.columns).equals(provider.truth.head(60))


async def test_a_wait_too_short_is_lengthened_by_the_first_surprise(make_feed, series, clock, candles_of) -> None:
    """A person's 5 seconds at a broker 40 seconds late: the change is a revision, the wait grows, and it was the last one."""
    feed, provider = make_feed(candles_of(200), settle=5, partial_us=40 * SECOND_US)
    clock.set(START + 30 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 29 * MINUTE_US))
    await minutely(feed, clock, 31, 10, 6 * SECOND_US)
    assert settle(feed, series) > 40
    clock.set(clock.now_us() + 2 * MINUTE_US)
    await fetch(feed)
    with feed.lake.metadata.read() as tx:
        before = len(list_revisions(tx))
    assert before > 0
    await minutely(feed, clock, 45, 20, 6 * SECOND_US)
    with feed.lake.metadata.read() as tx:
        assert len(list_revisions(tx)) == before
    held = feed.lake.candles("played", "BTC/USDT", "1m").select(provider.truth.columns)
    assert held.equals(provider.truth.head(held.height))


def test_the_wait_follows_the_evidence() -> None:
    """Nothing known keeps the start; enough sights shorten it; a late one never lets it fall below the start."""
    start = 60 * SECOND_US
    assert settle_us(Evidence(), start) == start
    assert settle_us(Evidence(19, 0, SECOND_US), start) == start
    assert settle_us(Evidence(20, 0, 2 * SECOND_US), start) == 3_500_000
    assert settle_us(Evidence(500, SECOND_US, SECOND_US), start) == start
    assert settle_us(Evidence(0, 90 * SECOND_US, 0), start) == 113_500_000
    assert settle_us(Evidence(20, 0, 0), start) == LEAST_US


def test_a_series_once_late_comes_down_again_by_evidence(tmp_path) -> None:
    """After a surprise the wait stays up until hundreds of early sights in a row were right; one wrong one starts anew."""
    length, start = MINUTE_US, 60 * SECOND_US
    with open_lake(tmp_path / "home", clock=ManualClock(START)) as lake, lake.metadata.write() as tx:
        def sees(slot: int, *, right: bool) -> int:
            note_sights(tx, 1, [Sight(slot * length, 3 * SECOND_US, "shown")])
            known = judge(tx, 1, {slot * length: "shown" if right else "other"}, length, START)
            assert known is not None
            return settle_us(known, start)

        tx.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        note_changes(tx, 1, [(45 * SECOND_US, 90 * SECOND_US)], length, START)
        high = settle_us(evidence_of(tx, 1), start)
        assert high > 100 * SECOND_US
        waits = [sees(slot, right=True) for slot in range(3 * FORGIVEN + JUDGED_ENOUGH)]
        assert waits == sorted(waits, reverse=True)
        assert waits[FORGIVEN - 2] == high
        assert waits[FORGIVEN] == start
        assert waits[-2] == start
        assert waits[-1] < 10 * SECOND_US
        assert sees(9_000, right=False) == start
        assert [sees(10_000 + slot, right=True) for slot in range(FORGIVEN - 1)] == [start] * (FORGIVEN - 1)
        tx.exec_driver_sql("DELETE FROM settle_evidence")
        tx.exec_driver_sql("DELETE FROM settle_sights")


async def test_the_last_candle_of_a_session_needs_no_tick(make_feed, series, clock, candles_of) -> None:
    """A server whose clock stands at Friday's last quote: the week's last minute is stored right after the close."""
    end = parse_instant("2024-01-05T22:00")
    truth = candles_of(120, end - 120 * MINUTE_US)
    feed, provider = make_feed(truth, market_type="fx", settle=5)
    clock.set(end - 60 * MINUTE_US)
    await backfill(feed, series, Interval(end - 120 * MINUTE_US, end - 60 * MINUTE_US))
    provider.stands_us = end - 3 * SECOND_US
    clock.set(end + 10 * SECOND_US)
    await fetch(feed)
    held = feed.lake.candles("played", "BTC/USDT", "1m")
    assert held.select(truth.columns).equals(truth)
    clock.set(end + 3 * HOUR_US)
    await fetch(feed, due_only=False)
    with feed.lake.metadata.read() as tx:
        assert {gap.cause for gap in list_gaps(tx)} == {"market_closed"}


async def test_a_clock_that_stands_in_an_open_market_closes_nothing(make_feed, series, clock, candles_of) -> None:
    """On a Wednesday a standing server clock is no session end: nothing that it has not reached is stored."""
    feed, provider = make_feed(candles_of(200), market_type="fx", settle=5)
    clock.set(START + 30 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 29 * MINUTE_US))
    provider.stands_us = START + 40 * MINUTE_US
    clock.set(START + 60 * MINUTE_US)
    await fetch(feed)
    assert feed.lake.candles("played", "BTC/USDT", "1m")["ts"].max() < to_datetime(START + 40 * MINUTE_US)


def test_closed_time_is_looked_at_hourly_and_the_open_on_time() -> None:
    """A series is due with each close; on a weekend within the hour; at the open when its first candle has closed."""
    calendar, friday = FxWeek(), parse_instant("2024-01-05T22:00")
    assert next_due_us(MINUTE, friday - 30 * SECOND_US, 5, calendar) == friday + 5 * SECOND_US
    late = next_due_us(MINUTE, friday + 2 * MINUTE_US, 5, calendar)
    assert late <= friday + 4 * MINUTE_US  # a late last candle is still looked for
    weekend = friday + 12 * HOUR_US
    assert weekend < next_due_us(MINUTE, weekend, 5, calendar) <= weekend + HOUR_US
    sunday = friday + 2 * DAY_US
    assert next_due_us(MINUTE, sunday - 20 * MINUTE_US, 5, calendar) == sunday + MINUTE_US + 5 * SECOND_US
    assert next_due_us(MINUTE, START + 30 * SECOND_US, 5) == START + MINUTE_US + 5 * SECOND_US

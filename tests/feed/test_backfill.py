"""feed.backfill: ends with exactly the provider's candles, or with each missing range booked."""

import random
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connections.rows import read_logs
from core.clock import DAY_US, HOUR_US, MINUTE_US, to_datetime
from core.errors import CredentialsRefusedError, ProviderUnavailableError
from core.interval import Interval
from core.series import Series
from feed.backfill import backfill
from storage.ledger import list_gaps

START = 1_704_067_200_000_000  # 2024-01-01


def stored(feed, series):
    return feed.lake.candles(series.connection, series.symbol, series.timeframe.name).select(
        "ts", "open", "high", "low", "close", "volume", "spread")


def gaps(feed):
    with feed.lake.metadata.read() as tx:
        return list_gaps(tx)


async def test_history_is_stored_whole_and_asked_for_once(make_feed, series, clock, candles_of) -> None:
    """Every candle of the range is stored, page by page, with one request for each page, and progress counts up."""
    feed, provider = make_feed(candles_of(1000))
    clock.set(START + DAY_US)
    shown = []
    result = await backfill(feed, series, Interval(START, START + 1000 * MINUTE_US), progress=lambda *p: shown.append(p))
    assert (result.status, result.stored, result.gaps) == ("complete", 1000, 0)
    assert stored(feed, series).equals(provider.truth)
    assert len(provider.asked) == 10
    assert shown[0][:2] == (0, 1000)
    assert shown[-1][:2] == (1000, 1000)
    assert [p[0] for p in shown] == sorted(p[0] for p in shown)


async def test_twice_changes_nothing_and_asks_nothing(make_feed, series, clock, candles_of) -> None:
    """A second backfill of the same range makes no request and writes nothing."""
    feed, provider = make_feed(candles_of(300))
    clock.set(START + DAY_US)
    span = Interval(START, START + 300 * MINUTE_US)
    await backfill(feed, series, span)
    before = len(provider.asked)
    result = await backfill(feed, series, span)
    assert (result.status, result.stored, result.revised) == ("complete", 0, 0)
    assert len(provider.asked) == before


async def test_it_goes_on_where_it_stopped(make_feed, series, clock, candles_of) -> None:
    """When the provider goes away, what was stored stays, the run says failed, and the next one asks only for the rest."""
    feed, provider = make_feed(candles_of(1000))
    clock.set(START + DAY_US)
    span = Interval(START, START + 1000 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 500 * MINUTE_US))
    provider.error = ProviderUnavailableError("down")
    failed = await backfill(feed, series, span)
    assert failed.status == "failed"
    assert failed.exit_code == 1
    assert "down" in failed.message
    provider.error = None
    provider.asked.clear()
    result = await backfill(feed, series, span)
    assert result.status == "complete"
    assert min(i.start for i in provider.asked) >= START + 499 * MINUTE_US  # one stored candle, for proof
    assert stored(feed, series).equals(provider.truth)
    assert gaps(feed) == []


async def test_the_connections_log_tells_how_it_ended(make_feed, series, clock, candles_of) -> None:
    """A backfill that stored something, and one that failed, is a line in its connection's log; one that found all stored is none."""
    feed, provider = make_feed(candles_of(1000))
    clock.set(START + DAY_US)
    stored_half = await backfill(feed, series, Interval(START, START + 500 * MINUTE_US))
    await backfill(feed, series, Interval(START, START + 500 * MINUTE_US))
    provider.error = ProviderUnavailableError("down")
    failed = await backfill(feed, series, Interval(START, START + 1000 * MINUTE_US))
    with feed.lake.metadata.read() as tx:
        lines = [row for row in read_logs(tx, series.connection, 50) if row.action == "backfill"]
    assert [(row.status, row.message, row.metadata["lake_run"]) for row in lines] == [
        ("error", failed.message, failed.run_id), ("success", stored_half.message, stored_half.run_id)]


async def test_a_refused_login_stops_at_once(make_feed, series, clock, candles_of) -> None:
    """A permanent error is not tried again and nothing is booked as missing."""
    feed, provider = make_feed(candles_of(100), error=CredentialsRefusedError("login refused"))
    clock.set(START + DAY_US)
    result = await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    assert result.status == "failed"
    assert len(provider.asked) == 1
    assert gaps(feed) == []


async def test_holes_in_the_middle_are_booked_with_proof(make_feed, series, clock, candles_of) -> None:
    """Minutes that the provider does not have, within a page and across pages, are booked, and the rest is stored."""
    truth = candles_of(1000)
    holes = [(20, 25), (95, 105), (300, 520)]
    for first, end in holes:
        truth = truth.filter(~pl.col("ts").is_between(
            to_datetime(START + first * MINUTE_US), to_datetime(START + end * MINUTE_US), closed="left"))
    feed, provider = make_feed(truth)
    clock.set(START + DAY_US)
    result = await backfill(feed, series, Interval(START, START + 1000 * MINUTE_US))
    assert result.status == "complete_with_gaps"
    assert result.exit_code == 3
    assert stored(feed, series).equals(provider.truth)
    booked = sorted(slot for gap in gaps(feed) for slot in range(gap.interval.start, gap.interval.end, MINUTE_US))
    assert booked == [START + m * MINUTE_US for first, end in holes for m in range(first, end)]
    assert {gap.cause for gap in gaps(feed)} == {"provider_empty"}


async def test_no_trade_needs_two_sights_apart_in_time(make_feed, series, clock, candles_of) -> None:
    """A silent minute between two candles of one answer is provider_empty first and no_trade when seen again later."""
    truth = candles_of(100).filter(pl.col("ts") != to_datetime(START + 50 * MINUTE_US))
    feed, _ = make_feed(truth)
    clock.set(START + DAY_US)
    span = Interval(START, START + 100 * MINUTE_US)
    await backfill(feed, series, span)
    assert [gap.cause for gap in gaps(feed)] == ["provider_empty"]
    clock.set(START + DAY_US + HOUR_US)
    result = await backfill(feed, series, span)
    assert [(gap.cause, gap.next_try_us) for gap in gaps(feed)] == [("no_trade", None)]
    assert result.status == "complete"


async def test_a_providers_clock_that_stands_proves_silence_after_more_than_a_weekend(make_feed, series, clock, candles_of) -> None:
    """Two sights while its clock stands may be one stale answer: two days apart prove nothing, four do, as of an archive."""
    feed, provider = make_feed(candles_of(100).filter(pl.col("ts") != to_datetime(START + 50 * MINUTE_US)))
    provider.stands_us = START + HOUR_US * 2
    span = Interval(START, START + 100 * MINUTE_US)
    found = []
    for day in (1, 3, 5):
        clock.set(START + day * DAY_US)
        await backfill(feed, series, span)
        found += [gap.cause for gap in gaps(feed)]
    assert found == ["provider_empty", "provider_empty", "no_trade"]


async def test_years_before_a_listing_cost_a_few_requests(make_feed, series, clock, candles_of) -> None:
    """Before the first candle the range is before_listing, proved by the daily candles, when they show the same twice."""
    feed, provider = make_feed(candles_of(200))
    clock.set(START + DAY_US)
    span = Interval(START - 700 * DAY_US, START + 200 * MINUTE_US)
    result = await backfill(feed, series, span)
    assert result.stored == 200
    assert {gap.cause for gap in gaps(feed)} == {"provider_empty"}
    clock.set(START + DAY_US + HOUR_US)
    again = await backfill(feed, series, span)
    assert {gap.cause for gap in gaps(feed)} == {"before_listing"}
    assert len(provider.asked) < 80
    assert (result.status, again.status) == ("complete_with_gaps", "complete")


async def test_history_that_comes_back_was_no_listing(make_feed, series, clock, candles_of) -> None:
    """A provider that hides its old years for one run, days and minutes alike: nothing is final, all is stored when they are back."""
    truth = candles_of(300)
    feed, provider = make_feed(truth.filter(pl.col("ts") >= to_datetime(START + 200 * MINUTE_US)))
    clock.set(START + DAY_US)
    span = Interval(START - DAY_US, START + 300 * MINUTE_US)
    await backfill(feed, series, span)
    provider.truth = truth
    clock.set(START + DAY_US + HOUR_US)
    result = await backfill(feed, series, span)
    assert result.stored == 200
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 300


async def test_days_that_begin_later_than_minutes_hide_nothing(make_feed, series, clock, candles_of) -> None:
    """An exchange whose daily candles begin after its minutes: the minutes before are found and stored all the same."""
    feed, provider = make_feed(candles_of(3 * 1440))
    fetch = provider.fetch_candles

    async def late_days(symbol, timeframe, interval):
        answer = await fetch(symbol, timeframe, interval)
        if timeframe.name == "1m":
            return answer
        return replace(answer, candles=answer.candles.filter(pl.col("ts") >= to_datetime(START + 2 * DAY_US)))

    provider.fetch_candles = late_days
    clock.set(START + 4 * DAY_US)
    result = await backfill(feed, series, Interval(START - DAY_US, START + 3 * DAY_US))
    assert result.stored == 3 * 1440


async def test_what_the_provider_no_longer_keeps_is_out_of_reach(make_feed, series, clock, candles_of) -> None:
    """A provider that keeps only its newest candles books the rest as out_of_reach, not to be tried again; the run says how much and why."""
    feed, provider = make_feed(candles_of(1000), keeps=300)
    clock.set(START + 1000 * MINUTE_US)
    span = Interval(START, START + 1000 * MINUTE_US)
    result = await backfill(feed, series, span)
    reach = [gap for gap in gaps(feed) if gap.cause == "out_of_reach"]
    assert sum((g.interval.end - g.interval.start) // MINUTE_US for g in reach) + result.stored == 1000
    assert all(gap.next_try_us is None for gap in reach)
    assert result.series[0].absent == {"out_of_reach": 1000 - result.stored}
    assert f"; absent: {1000 - result.stored} out_of_reach" in result.message
    provider.asked.clear()
    await backfill(feed, series, span)
    assert provider.asked == []


async def test_the_open_candle_is_never_stored(make_feed, series, clock, candles_of) -> None:
    """Nothing that has not closed by the provider's clock is stored or booked."""
    feed, _ = make_feed(candles_of(100))
    clock.set(START + 10 * MINUTE_US + 30_000_000)
    result = await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    assert result.stored == 10
    assert gaps(feed) == []


async def test_a_bad_row_is_quarantined_and_booked(make_feed, series, clock, candles_of) -> None:
    """A row with high below low is set aside with its reason; its slot is in the ledger; the rest is stored."""
    truth = candles_of(50).with_columns(
        high=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit(1.0)).otherwise(pl.col("high")))
    feed, _ = make_feed(truth)
    clock.set(START + DAY_US)
    result = await backfill(feed, series, Interval(START, START + 50 * MINUTE_US))
    assert (result.stored, result.quarantined) == (49, 1)
    assert [(g.cause, g.proof["quarantined"]) for g in gaps(feed)] == [("unknown", True)]


async def test_rows_of_the_future_are_quarantined_and_hide_nothing(make_feed, series, clock, candles_of) -> None:
    """A provider that answers with candles of next week: those are set aside, all others are stored, no slot is held for proved."""
    truth = candles_of(30)
    ahead = truth.tail(3).with_columns(pl.col("ts") + pl.duration(days=7))
    feed, provider = make_feed(truth)
    provider.ahead = ahead
    clock.set(START + 40 * MINUTE_US)
    result = await backfill(feed, series, Interval(START, START + 40 * MINUTE_US))
    assert stored(feed, series).equals(truth)
    assert result.quarantined == 3
    assert [(gap.interval, gap.cause) for gap in gaps(feed)] == [
        (Interval(START + 30 * MINUTE_US, START + 40 * MINUTE_US), "provider_empty")]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), faults=st.sampled_from([0.1, 0.3, 0.5]))
async def test_whatever_the_provider_does_nothing_is_lost_or_invented(
    make_feed, series, clock, candles_of, *, seed, faults,
) -> None:
    """With empty, short, double, unsorted, garbage and failed answers: what is stored is true, the rest heals."""
    feed, provider = make_feed(candles_of(600), dice=random.Random(seed), faults=faults)
    clock.set(START + 2 * DAY_US)
    span = Interval(START, START + 600 * MINUTE_US)
    first = await backfill(feed, series, span)
    held = stored(feed, series)
    assert held.join(provider.truth, on=held.columns, how="anti", nulls_equal=True).is_empty()
    booked = {slot for gap in gaps(feed) for slot in range(gap.interval.start, gap.interval.end, MINUTE_US)}
    have = set(held["ts"].dt.epoch("us").to_list())
    assert not have & booked
    if first.status != "failed":  # a run that ends without failing has stored or booked every slot
        assert have | booked == {START + m * MINUTE_US for m in range(600)}
    provider.faults = 0.0
    clock.set(START + 30 * DAY_US)
    result = await backfill(feed, series, span)
    assert result.status == "complete"
    assert stored(feed, series).equals(provider.truth)
    assert gaps(feed) == []


async def test_an_unknown_symbol_fails_in_one_line(make_feed, clock, candles_of) -> None:
    """The message names the series; nothing is stored."""
    feed, _ = make_feed(candles_of(10))
    clock.set(START + DAY_US)
    result = await backfill(feed, Series.parse("played", "NOPE", "1m"), Interval(START, START + HOUR_US))
    assert result.status == "failed"
    assert "NOPE" in result.message
    assert "\n" not in result.message


@pytest.mark.parametrize("count", [1, 99, 100, 101])
async def test_page_edges(make_feed, series, clock, candles_of, count) -> None:
    """Ranges of one candle, one page, one more and one less are exact."""
    feed, _ = make_feed(candles_of(200))
    clock.set(START + DAY_US)
    result = await backfill(feed, series, Interval(START, START + count * MINUTE_US))
    assert (result.status, result.stored) == ("complete", count)

"""No page that is short, empty, stale, double, unsorted or cut is ever taken for the end of a provider's history."""

import random

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.candles import empty_candles
from core.clock import DAY_US, HOUR_US, MINUTE_US
from core.interval import Interval
from feed.backfill import backfill
from feed.fetch import fetch
from feed.repair import repair
from providers.base import CandlePage
from storage.coverage import coverage
from storage.ledger import list_gaps

START = 1_704_067_200_000_000  # 2024-01-01
COUNT = 420
SPAN = Interval(START, START + COUNT * MINUTE_US)
KINDS = ("short", "empty", "stale", "double", "unsorted", "middle", "beyond")


def spoil(kind: str, page: CandlePage, truth: pl.DataFrame, dice: random.Random) -> CandlePage:
    """Return an answer as bad providers give it; its request and its clock stay what they were."""
    rows = page.candles
    spoilt = {
        "short": lambda: rows.head(dice.randint(0, max(0, len(rows) - 1))),
        "empty": empty_candles,
        "stale": lambda: truth.head(dice.randint(1, 40)),
        "double": lambda: pl.concat([rows, rows.tail(7)]),
        "unsorted": lambda: rows.sample(fraction=1.0, shuffle=True, seed=dice.randint(0, 99)),
        "middle": lambda: rows.slice(len(rows) // 4, len(rows) // 2),
        "beyond": lambda: truth.slice(dice.randint(0, len(truth) - 1), 90),
    }[kind]()
    return CandlePage(spoilt, page.asked, page.server_us, page.request_id, page.reachable_from)


def script(provider, plan: list[str | None], seed: int) -> None:
    """Spoil the provider's next answers as planned; after the plan, or `mend`, it is honest."""
    dice, honest, left = random.Random(seed), provider.fetch_candles, list(plan)

    async def answer(symbol, timeframe, interval):
        page = await honest(symbol, timeframe, interval)
        kind = left.pop(0) if left else None
        return page if kind is None else spoil(kind, page, provider.truth, dice)

    provider.fetch_candles = answer


def mend(provider) -> None:
    """Make the provider honest at once."""
    del provider.fetch_candles  # the class's own answers again


def ledger(feed) -> dict[int, str]:
    with feed.lake.metadata.read() as tx:
        return {slot: gap.cause for gap in list_gaps(tx) for slot in range(gap.interval.start, gap.interval.end, MINUTE_US)}


def held(feed) -> pl.DataFrame:
    return feed.lake.candles("played", "BTC/USDT", "1m").select("ts", "open", "high", "low", "close", "volume", "spread")


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(st.sampled_from([*KINDS, None]), max_size=14), seed=st.integers(0, 999))
async def test_a_backfill_never_ends_silently_short(make_feed, series, clock, candles_of, *, plan, seed) -> None:
    """Whatever the order of bad pages: what is stored is true, every other slot is booked and due, no cause is final."""
    feed, provider = make_feed(candles_of(COUNT))
    clock.set(START + 2 * DAY_US)
    script(provider, plan, seed)
    result = await backfill(feed, series, SPAN)
    stored, booked = held(feed) if result.stored else empty_candles(), ledger(feed)
    assert stored.join(provider.truth, on=stored.columns, how="anti", nulls_equal=True).is_empty()
    missing = set(range(SPAN.start, SPAN.end, MINUTE_US)) - set(stored["ts"].dt.epoch("us").to_list())
    assert set(booked) == missing
    assert set(booked.values()) <= {"provider_empty", "fetch_failed", "unknown"}
    assert result.status == ("complete_with_gaps" if missing else "complete")
    mend(provider)
    clock.set(START + 30 * DAY_US)
    assert (await repair(feed)).status == "complete"
    await backfill(feed, series, SPAN)
    assert held(feed).equals(provider.truth)
    assert ledger(feed) == {}
    assert coverage(feed.lake)[0].unexplained == 0


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=st.lists(st.sampled_from([*KINDS, None]), max_size=14), seed=st.integers(0, 999))
async def test_live_fetches_never_skip_what_a_bad_page_hid(make_feed, series, clock, candles_of, *, plan, seed) -> None:
    """Live fetches over bad pages lose nothing: once the provider is honest, fetches and one repair have every candle."""
    feed, provider = make_feed(candles_of(COUNT))
    clock.set(START + 50 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 50 * MINUTE_US))
    script(provider, plan, seed)
    for minute in (90, 91, 200, 331, 332, 400):
        clock.set(START + minute * MINUTE_US)
        await fetch(feed, due_only=False)
        rows = held(feed)
        assert rows.join(provider.truth, on=rows.columns, how="anti", nulls_equal=True).is_empty()
    mend(provider)
    clock.set(START + COUNT * MINUTE_US)
    await fetch(feed, due_only=False)
    clock.set(START + 30 * DAY_US)
    await repair(feed)
    assert held(feed).head(COUNT).equals(provider.truth)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_alone_at_the_very_end(make_feed, series, clock, candles_of, kind) -> None:
    """The last page of a range spoilt twice in a row: the run says complete, or complete with gaps, and the rest is due."""
    feed, provider = make_feed(candles_of(COUNT))
    clock.set(START + DAY_US)
    script(provider, [None] * 4 + [kind, kind], 5)
    result = await backfill(feed, series, SPAN)
    missing = COUNT - held(feed).height
    assert (result.status, missing == 0) in {("complete", True), ("complete_with_gaps", False)}
    assert len(ledger(feed)) == missing
    assert result.exit_code == (0 if missing == 0 else 3)
    mend(provider)
    clock.set(START + DAY_US + 2 * HOUR_US)
    await repair(feed)
    await backfill(feed, series, SPAN)
    assert held(feed).equals(provider.truth)

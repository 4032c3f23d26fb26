"""Exchanges as they were recorded, with thousands of silent minutes: each slot is a candle or a proved silence, none a guess."""

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from core.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant
from core.interval import Interval
from feed.backfill import backfill
from feed.repair import repair
from storage.coverage import coverage
from storage.ledger import list_gaps

DATA = Path(__file__).parent / "data"


def recorded(name: str, first: str, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every minute of a recording's first days up to its last candle, and which of them hold one."""
    has = np.unpackbits(np.frombuffer(gzip.decompress((DATA / f"{name}_minutes.bits.gz").read_bytes()), dtype=np.uint8)).astype(bool)
    has = has[:np.flatnonzero(has[:days * 1440])[-1] + 1]  # what comes after the last candle nobody can prove yet
    return parse_instant(first) + np.arange(len(has)) * MINUTE_US, has


def candles_at(slots: np.ndarray) -> pl.DataFrame:
    """Return made-up candles at the recorded times."""
    price = 100.0 + pl.col("i") % 17
    return pl.DataFrame({"i": np.arange(len(slots)), "us": slots}).select(
        ts=pl.from_epoch("us", time_unit="us").dt.replace_time_zone("UTC"), open=price, high=price + 2.0, low=price - 1.0,
        close=price + 1.0, volume=1.0 + pl.col("i") % 31, spread=pl.lit(None, pl.Float64))


def holes_of(slots: np.ndarray, has: np.ndarray) -> list[tuple[int, int]]:
    """Return the runs of minutes without a candle, as a person would count them: no code of the project."""
    edges = np.flatnonzero(np.diff(np.concatenate(([True], has, [True])).astype(np.int8)))
    return [(int(slots[a]), int(slots[b - 1]) + MINUTE_US) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize(("name", "first", "days", "candles", "holes"), [
    pytest.param("bitfinex_NEOUSD", "2018-10-01", 14, 12_017, 3_765, id="neo-two-weeks"),
    pytest.param("bitfinex_NEOUSD", "2018-10-01", 92, 77_020, 23_912, id="neo", marks=pytest.mark.slow),
    pytest.param("bitfinex_BTCUSD", "2018-01-01", 455, 644_293, 8_294, id="bitcoin", marks=pytest.mark.slow),
])
async def test_every_silent_minute_is_proved_and_nothing_else(  # noqa: PLR0917  fixtures and the case
    make_feed, series, clock, name, first, days, candles, holes,
) -> None:
    """All recorded candles stored, exactly the silent minutes booked: seen once they wait, seen twice they are `no_trade`."""
    slots, has = recorded(name, first, days)
    truth, silent = candles_at(slots[has]), holes_of(slots, has)
    assert (truth.height, len(silent)) == (candles, holes)
    feed, provider = make_feed(truth, page=10_000)
    span = Interval(int(slots[0]), int(slots[-1]) + MINUTE_US)
    clock.set(span.end + DAY_US)
    result = await backfill(feed, series, span)
    assert (result.status, result.stored, result.revised, result.quarantined) == ("complete_with_gaps", candles, 0, 0)
    with feed.lake.metadata.read() as tx:
        assert [(gap.interval.start, gap.interval.end, gap.cause) for gap in list_gaps(tx)] == [
            (*hole, "provider_empty") for hole in silent]
    clock.set(clock.now_us() + HOUR_US)
    result = await repair(feed)
    assert (result.status, result.stored, result.revised) == ("complete", 0, 0)
    with feed.lake.metadata.read() as tx:
        booked = list_gaps(tx)
    assert [(gap.interval.start, gap.interval.end, gap.cause) for gap in booked] == [(*hole, "no_trade") for hole in silent]
    assert all(gap.proof["again_us"] - gap.proof["sighted_us"] >= HOUR_US for gap in booked)
    (row,) = coverage(feed.lake)
    assert (row.expected, row.stored, row.explained, row.unexplained) == (len(slots), candles, int((~has).sum()), 0)
    assert feed.lake.stored_slots(series_id(feed, series), span).tolist() == slots[has].tolist()
    clock.set(clock.now_us() + 400 * DAY_US)
    provider.asked.clear()
    await repair(feed)
    assert provider.asked == []  # a proved silence is asked for no more


def series_id(feed, series) -> int:
    """Return the number under which the store keeps a series."""
    from storage.series import find_series

    with feed.lake.metadata.read() as tx:
        return find_series(tx, series).id

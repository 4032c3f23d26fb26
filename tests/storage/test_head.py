"""Writing: idempotence, revisions, watermarks, quarantine, ledger, all in one transaction."""

from __future__ import annotations

import math

import polars as pl
import pytest

from core.candles import VALUES
from core.clock import MINUTE_US
from core.errors import InputError, NotFoundError
from core.interval import Interval
from storage import Batch, Gap, Written
from storage.lake.revisions import list_revisions
from storage.ledger import list_gaps
from storage.series import get_series
from storage.statements import fetch
from tests.storage.conftest import BOTH_STORES, START_US, candles

pytestmark = BOTH_STORES


def _write(lake, series_id, frame, run_id="run", **more):
    return lake.write([Batch(series_id, frame, "rest", **more)], run_id=run_id)[0]


def _read(lake):
    return lake.candles("kraken", "BTC/USDT", "1m")


def test_identical_value_writes_nothing(lake, add_series, clock):
    """Writing the same candles again leaves every row, its known_at and the revisions as they were."""
    series = add_series()
    assert _write(lake, series, candles(START_US, 50)) == Written(50, 0, 0, 0)
    before = _read(lake)
    clock.set(clock.now_us() + 1)
    assert _write(lake, series, candles(START_US, 50), "other") == Written(0, 0, 50, 0)
    assert _read(lake).equals(before)


@pytest.mark.parametrize("flushed", [False, True])
def test_changed_value_is_a_revision_wherever_the_old_one_lies(lake, add_series, clock, flushed):
    """A different value for a candle in the head or in the lake is kept as a revision with both values, and read from then on."""
    series = add_series()
    _write(lake, series, candles(START_US, 50))
    if flushed:
        lake.flush()
    old_known = clock.now_us()
    clock.set(old_known + 10)
    assert _write(lake, series, candles(START_US + 49 * MINUTE_US, 1, price=7.0), "fix") == Written(0, 1, 0, 0)
    assert _read(lake)["close"][-1] == 7.0
    with lake.metadata.read() as tx:
        (row,) = list_revisions(tx, "kraken", "BTC/USDT", "1m", 10)
    assert (row.ts_us, row.known_at_us, row.old_known_at_us) == (START_US + 49 * MINUTE_US, old_known + 10, old_known)
    assert row.old["close"] == 149.0
    assert row.new["close"] == 7.0
    assert row.new["run_id"] == "fix"
    lake.flush()
    assert _read(lake)["close"][-1] == 7.0
    assert _read(lake).height == 50


def test_two_changes_in_one_microsecond_are_known_one_after_the_other(lake, add_series):
    """Even when the clock stands still, each revision of a candle has a later known_at."""
    series = add_series()
    for price in (1.0, 2.0, 3.0):
        _write(lake, series, candles(START_US, 1, price=price))
    with lake.metadata.read() as tx:
        rows = list_revisions(tx)
    assert [row.new["close"] for row in rows] == [3.0, 2.0]
    assert rows[0].known_at_us > rows[1].known_at_us > rows[1].old_known_at_us


def test_zero_signs_and_missing_spreads_are_not_changes(lake, add_series):
    """-0.0 is 0.0, and a null spread is the same as a null spread, but not as a spread."""
    series = add_series()
    frame = candles(START_US, 1)
    _write(lake, series, frame.with_columns(volume=pl.lit(0.0)))
    assert _write(lake, series, frame.with_columns(volume=pl.lit(-0.0))).unchanged == 1
    assert math.copysign(1, _read(lake)["volume"][0]) == 1
    assert _write(lake, series, frame.with_columns(volume=pl.lit(0.0), spread=pl.lit(0.5))).revised == 1


def test_values_that_are_not_finite_go_to_the_quarantine_once(lake, add_series):
    """NaN, infinity and missing times never reach the candles; the same bad row twice is one entry; the rest is stored."""
    series = add_series()
    frame = candles(START_US, 4).with_columns(
        high=pl.Series([101.0, math.nan, 103.0, math.inf]), ts=pl.when(pl.col("close") == 102).then(None).otherwise(pl.col("ts")))
    rejected = candles(START_US, 1).with_columns(reason=pl.lit("high below low"))
    for _ in range(2):
        written = _write(lake, series, frame, rejected=rejected)
        assert written.quarantined == 4
    assert _read(lake).height == 1
    with lake.metadata.read() as tx:
        reasons = [row[0] for row in fetch(tx, "SELECT reason FROM quarantine ORDER BY reason")]
    assert reasons == ["high below low", "not finite", "not finite", "time missing"]


def test_watermarks_follow_first_and_last_candle(lake, add_series):
    """first_us and last_us are the ends of what is stored, in whatever order it came."""
    series = add_series()
    _write(lake, series, candles(START_US, 10))
    _write(lake, series, candles(START_US - 5 * MINUTE_US, 2))
    with lake.metadata.read() as tx:
        row = get_series(tx, series)
    assert (row.first_us, row.last_us) == (START_US - 5 * MINUTE_US, START_US + 9 * MINUTE_US)


def test_gaps_are_booked_and_cleared_with_the_candles(lake, add_series):
    """A batch books its gaps in its own transaction; slots stored later leave the ledger, the rest of the gap stays."""
    series = add_series()
    whole = Interval(START_US, START_US + 30 * MINUTE_US)
    _write(lake, series, candles(START_US + 30 * MINUTE_US, 1), gaps=[Gap(series, whole, "fetch_failed", next_try_us=5)])
    _write(lake, series, candles(START_US + 10 * MINUTE_US, 5))
    with lake.metadata.read() as tx:
        rows = list_gaps(tx, "kraken", due_before_us=5)
    assert [row.interval for row in rows] == [
        Interval(START_US, START_US + 10 * MINUTE_US), Interval(START_US + 15 * MINUTE_US, whole.end)]


def test_nothing_is_stored_when_one_batch_is_refused(lake, add_series):
    """An unknown series or source refuses the whole write: other batches of the call are not stored either."""
    series = add_series()
    good = Batch(series, candles(START_US, 3), "rest")
    with pytest.raises(NotFoundError, match="id 999"):
        lake.write([good, Batch(999, candles(START_US, 3), "rest")], run_id="r")
    with pytest.raises(InputError, match="source"):
        lake.write([good, Batch(series, candles(START_US, 3), "guess")], run_id="r")
    assert _read(lake).is_empty()


def test_many_series_and_unsorted_mixed_frames_in_one_write(lake, add_series):
    """Batches may differ in column order, and two batches may speak of the same series."""
    first, second = add_series(), add_series("ETH/USDT")
    frame = candles(START_US, 5)
    written = lake.write([
        Batch(first, frame.reverse(), "rest"), Batch(second, frame.select(*reversed(frame.columns)), "stream"),
        Batch(first, candles(START_US, 6), "backfill")], run_id="r")
    assert [item.stored for item in written] == [5, 5, 1]
    assert lake.write([], run_id="r") == []
    assert _read(lake).select(VALUES).equals(candles(START_US, 6).select(VALUES))

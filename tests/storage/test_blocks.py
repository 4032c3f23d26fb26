"""The head's blocks: packed candles come out as they went in, wherever their blocks lie."""

from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.clock import MINUTE_US, to_datetime
from core.interval import Interval
from storage import Batch
from storage.lake.blocks import BLOCK_ROWS, Block, blocks_in, candles_of, cut_blocks, pack, times_of
from tests.storage.conftest import BOTH_STORES, START_US, candles

KEY = ("kraken", "BTC/USDT", "1m")


def block_of(slots, known_at_us, run_id):
    """Return one block of candles at `slots`; every third has a spread."""
    frame = pl.concat([candles(START_US + slot * MINUTE_US, 1, price=float(slot), spread=None if slot % 3 else 0.5) for slot in slots])
    return cut_blocks(pack(frame)[:, 0].tolist(), pack(frame).tobytes(), known_at_us, "rest", run_id)[0]


@hypothesis_settings(max_examples=60, deadline=None)
@given(owners=st.lists(st.integers(0, 4), min_size=1, max_size=40), first=st.integers(0, 40), length=st.integers(0, 40))
def test_interleaved_blocks_read_as_one_series(owners, first, length):
    """However times are dealt to blocks, a range of them reads as one ascending frame, each candle with its block's own facts."""
    blocks = [block_of([slot for slot, owner in enumerate(owners) if owner == number], 1_000 + number, f"run-{number}")
              for number in sorted(set(owners))]
    span = Interval(START_US + first * MINUTE_US, START_US + (first + length) * MINUTE_US)
    wanted = [slot for slot in range(len(owners)) if first <= slot < first + length]
    found = candles_of(sorted(blocks, key=lambda block: block.last_us), span)
    assert found["ts"].to_list() == [to_datetime(START_US + slot * MINUTE_US) for slot in wanted]
    assert found["close"].to_list() == [float(slot) for slot in wanted]
    assert found["spread"].to_list() == [None if slot % 3 else 0.5 for slot in wanted]
    assert found["run_id"].to_list() == [f"run-{owners[slot]}" for slot in wanted]
    assert found["known_at"].dt.epoch("us").to_list() == [1_000 + owners[slot] for slot in wanted]
    assert times_of(blocks, span).tolist() == [START_US + slot * MINUTE_US for slot in wanted]


def test_a_block_loses_the_candles_that_are_named():
    """What is left of a block keeps its candles' bytes and what it knows of them; of an empty rest no block is left."""
    block = block_of(range(5), 7, "r")
    (left,) = block.without([START_US, START_US + 2 * MINUTE_US])
    assert [time for time, _ in left.between(Interval(0, 2 * START_US))] == [START_US + slot * MINUTE_US for slot in (1, 3, 4)]
    assert dict(left.between(Interval(0, 2 * START_US))).items() <= dict(block.between(Interval(0, 2 * START_US))).items()
    assert left[:6] == Block(START_US + MINUTE_US, START_US + 4 * MINUTE_US, 3, 7, "rest", "r", b"")[:6]
    assert block.without(block.times.tolist()) == []


@BOTH_STORES
def test_the_newest_candles_are_found_across_blocks(lake, add_series, clock):
    """`latest` is exact over a page of several blocks, single candles after it, and corrections that lie between its candles."""
    series, end = add_series(), BLOCK_ROWS + 500
    lake.write([Batch(series, candles(START_US, end), "backfill")], run_id="page")
    for number in range(end, end + 300, 3):
        lake.write([Batch(series, candles(START_US + number * MINUTE_US, 3, price=100.0 + number), "rest")], run_id="live")
    clock.set(clock.now_us() + 5)
    lake.write([Batch(series, candles(START_US + (end - 40) * MINUTE_US, 1, price=1.0), "rest")], run_id="fix")
    lake.write([Batch(series, candles(START_US + 10 * MINUTE_US, end, price=110.0), "rest")], run_id="again")  # mends the fix
    whole = lake.candles(*KEY)
    assert whole.height == end + 300
    assert whole["close"].to_list() == [100.0 + n for n in range(end + 300)]
    for count in (1, 5, 100, BLOCK_ROWS, BLOCK_ROWS + 700, 99_999):
        assert lake.latest(*KEY, count).equals(whole.tail(count)), count
    with lake.metadata.read() as tx:
        assert all(block.rows <= BLOCK_ROWS for block in blocks_in(tx, series))
    assert lake.flush([series]).rows == whole.height
    assert lake.candles(*KEY).equals(whole)


@BOTH_STORES
def test_retention_cuts_a_block_at_the_boundary(lake, add_series):
    """Of a block that the boundary crosses exactly the candles before it go."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 10), "rest")], run_id="r")
    whole = lake.candles(*KEY)
    assert lake.apply_retention(lake.plan_retention(START_US + 4 * MINUTE_US)).rows == 4
    assert lake.candles(*KEY).equals(whole.tail(6))


@BOTH_STORES
def test_all_candles_tells_the_series_of_each_packed_candle(lake, add_series):
    """`all_candles` unpacks the head of every series under its own name."""
    for number, symbol in enumerate(("A/B", "C/D", "E/F"), 1):
        lake.write([Batch(add_series(symbol), candles(START_US, number, price=10.0 * number), "rest")], run_id="r")
    found = lake.sql("SELECT symbol, count(*) AS n, min(close) AS low FROM all_candles GROUP BY ALL ORDER BY ALL")
    assert found.rows() == [("A/B", 1, 10.0), ("C/D", 2, 20.0), ("E/F", 3, 30.0)]

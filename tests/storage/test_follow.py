"""Following a series: whatever other processes store comes out once, in order, flushed meanwhile or not."""

from __future__ import annotations

import asyncio

import pytest

from core.clock import MINUTE_US, SECOND_US, to_datetime
from core.errors import NotFoundError
from core.series import Series
from storage import Batch
from tests.storage.conftest import BOTH_STORES, START_US, candles

pytestmark = BOTH_STORES
SERIES = Series.parse("kraken", "BTC/USDT", "1m")


def _write(lake, series_id, clock, frame):
    clock.set(clock.now_us() + 1)
    lake.write([Batch(series_id, frame, "rest")], run_id="run")


async def _next(following):
    async with asyncio.timeout(30):
        frame = await anext(following)
    return list(zip(frame["ts"].dt.epoch("us").to_list(), frame["close"].to_list(), strict=True))


@pytest.mark.parametrize("is_flushed", [False, True])
async def test_each_candle_and_each_revision_comes_out_once(lake, add_series, clock, is_flushed):
    """Stored ones first, then what comes, a new value of an old candle too; a flush between two looks hides and repeats nothing."""
    series_id = add_series()
    _write(lake, series_id, clock, candles(START_US, 3))
    following = lake.follow(SERIES, to_datetime(START_US - 1))
    assert await _next(following) == [(START_US + n * MINUTE_US, 100.0 + n) for n in range(3)]
    for step in range(3, 9, 2):
        _write(lake, series_id, clock, candles(START_US + step * MINUTE_US, 2, price=100.0 + step))
        if is_flushed:
            lake.flush()
        assert await _next(following) == [(START_US + n * MINUTE_US, 100.0 + n) for n in (step, step + 1)]
    _write(lake, series_id, clock, candles(START_US + 4 * MINUTE_US, 1, price=7.0))
    assert await _next(following) == [(START_US + 4 * MINUTE_US, 7.0)]
    _write(lake, series_id, clock, candles(START_US + 4 * MINUTE_US, 1, price=7.0))
    _write(lake, series_id, clock, candles(START_US, 3))
    _write(lake, series_id, clock, candles(START_US + 9 * MINUTE_US, 1, price=109.0))
    assert await _next(following) == [(START_US + 9 * MINUTE_US, 109.0)], "what is known already came again"
    await following.aclose()


async def test_what_was_flushed_before_anybody_looked_comes_out_all_the_same(lake, add_series, clock):
    """A revision, a hole that is filled and a new candle, each stored and flushed between two looks, come out once each, and nothing else does."""
    series_id = add_series()
    _write(lake, series_id, clock, candles(START_US, 50))  # two months: two partitions
    _write(lake, series_id, clock, candles(START_US + 52 * MINUTE_US, 3, price=152.0))
    lake.flush()
    clock.set(clock.now_us() + 1)
    following = lake.follow(SERIES, to_datetime(START_US + 53 * MINUTE_US))
    assert await _next(following) == [(START_US + 54 * MINUTE_US, 154.0)], "what opens before the beginning came too"
    for slot, price in ((4, 7.0), (51, 151.0), (55, 155.0), (4, 8.0)):
        _write(lake, series_id, clock, candles(START_US + slot * MINUTE_US, 1, price=price))
        lake.flush()
        assert await _next(following) == [(START_US + slot * MINUTE_US, price)]
    _write(lake, series_id, clock, candles(START_US + 5 * MINUTE_US, 1, price=9.0))
    lake.flush()
    _write(lake, series_id, clock, candles(START_US + 6 * MINUTE_US, 1, price=10.0))
    assert await _next(following) == [(START_US + 5 * MINUTE_US, 9.0)]
    assert await _next(following) == [(START_US + 6 * MINUTE_US, 10.0)]
    await following.aclose()


async def test_a_revision_by_a_machine_whose_clock_is_behind_comes_out(lake, add_series, clock):
    """Clocks of machines differ a little: what is stored later may say that it was known earlier."""
    series_id = add_series()
    _write(lake, series_id, clock, candles(START_US, 3))
    clock.set(clock.now_us() + 1)
    following = lake.follow(SERIES, to_datetime(START_US + MINUTE_US))
    assert await _next(following) == [(START_US + 2 * MINUTE_US, 102.0)]
    clock.set(clock.now_us() + 5 * SECOND_US)
    _write(lake, series_id, clock, candles(START_US + 3 * MINUTE_US, 1, price=103.0))
    assert await _next(following) == [(START_US + 3 * MINUTE_US, 103.0)]
    clock.set(clock.now_us() - SECOND_US)
    _write(lake, series_id, clock, candles(START_US + MINUTE_US, 1, price=7.0))
    assert await _next(following) == [(START_US + MINUTE_US, 7.0)]
    await following.aclose()


async def test_without_a_beginning_only_what_comes_counts(lake, add_series, clock):
    """A follower that names no instant gets none of the stored candles; a series that is not there is an error at once."""
    series_id = add_series()
    _write(lake, series_id, clock, candles(START_US, 3))
    clock.set(clock.now_us() + 1)
    following = lake.follow(SERIES)
    coming = asyncio.ensure_future(_next(following))
    await asyncio.sleep(0.1)
    _write(lake, series_id, clock, candles(START_US + 3 * MINUTE_US, 1, price=103.0))
    assert await coming == [(START_US + 3 * MINUTE_US, 103.0)]
    await following.aclose()
    with pytest.raises(NotFoundError):
        await _next(lake.follow(Series.parse("kraken", "NO/NE", "1m")))

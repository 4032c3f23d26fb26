"""Cuts a long interval into requests of whole candles."""

from __future__ import annotations

from collections.abc import Iterator

from core.interval import Interval
from core.timeframe import Grid


def pages(interval: Interval, grid: Grid, limit: int) -> Iterator[Interval]:
    """Yield intervals of at most `limit` whole candles that together hold every candle opening in `interval`.

    Oldest first, adjacent, without overlap. The first begins at the first open time in `interval`, the last ends with
    the close of the last candle that opens in it.

    Args:
        interval: what is wanted; need not lie on the grid.
        grid: the open times of the series.
        limit: candles at most in one request; at least 1.
    """
    if limit < 1:
        raise ValueError(f"limit: received {limit}; allowed: 1 or more")
    whole = grid.align(interval)
    start = whole.start
    while start < whole.end:
        end = min(_advance(grid, start, limit), whole.end)
        yield Interval(start, end)
        start = end


def _advance(grid: Grid, start: int, candles: int) -> int:
    if grid.is_even:
        return start + candles * grid.timeframe.length_us
    for _ in range(candles):
        start = grid.next(start)
    return start

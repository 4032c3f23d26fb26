"""Reads what a pipeline's windows need: candles from a chapter's start on, and `lookback` candles before it."""

from __future__ import annotations

import polars as pl

from core.clock import to_datetime
from storage import Lake
from storage.series import SeriesRow


def read_windows(
    lake: Lake, row: SeriesRow, start_us: int, end_us: int, *, lookback: int, as_of_us: int | None = None,
) -> pl.DataFrame:
    """Return the stored candles in [start_us, end_us) and the `lookback` ones before them, ascending, with `known_at`.

    Args:
        lake: the open lake.
        row: the series.
        start_us: where the first chapter begins.
        end_us: past the last candle to judge.
        lookback: how many candles are wanted before the start; there may be fewer.
        as_of_us: give the values that were known at this instant.
    """
    reach = lookback * row.series.timeframe.length_us
    while True:
        first = max(0, start_us - reach)
        frame = lake.candles(
            row.series.connection, row.series.symbol, row.series.timeframe, start=first, end=end_us, as_of=as_of_us)
        before = int(frame["ts"].search_sorted(to_datetime(start_us)))
        if before >= lookback or row.first_us is None or first <= row.first_us:
            return frame
        reach *= 4  # weekends and gaps: look further back

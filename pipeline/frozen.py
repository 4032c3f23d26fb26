"""The frozen input of a run: the candles of its window, with a digest; and how windows are cut.

A window begins `lookback` stored candles before its *chapter*: slots are counted off into chapters of a fixed length from
the epoch on, and all candles of a chapter share the start of their window. An indicator with a memory (an EMA, an RSI)
therefore runs through the same values in the same order whether it is asked candle by candle in a live run, or once for
the whole chapter in a replay, and gives the same bits.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.candles import CANDLE_SCHEMA, VALUES
from core.clock import to_datetime
from core.timeframe import Grid

_COLUMNS: Final = list(CANDLE_SCHEMA)
_MISSING: Final = np.float64("nan")  # a spread that is not there


@dataclass(frozen=True, slots=True)
class Window:
    """A chapter: its first slot, and where it ends (exclusive), in microseconds."""

    start_us: int
    end_us: int


def chapter_of(grid: Grid, ts_us: int, chapter: int) -> Window:
    """Return the chapter that an open time lies in; `chapter` slots of the timeframe's nominal length."""
    length = grid.timeframe.length_us * chapter
    start = ts_us - ts_us % length
    return Window(start, start + length)


def cut(candles: pl.DataFrame, window: Window, lookback: int) -> pl.DataFrame:
    """Return the rows of `candles` that belong to a chapter's window: its own and the `lookback` ones before it."""
    first, end = np.searchsorted(times_us(candles), [window.start_us, window.end_us])
    start = max(0, int(first) - lookback)
    return candles_only(candles.slice(start, int(end) - start))


def times_us(frame: pl.DataFrame) -> NDArray[np.int64]:
    """Return the open times of a frame in microseconds, without a copy."""
    return frame["ts"].to_numpy().view(np.int64)


def candles_only(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the columns of CANDLE_SCHEMA alone."""
    return frame if frame.columns == _COLUMNS else frame.select(_COLUMNS)


@dataclass(frozen=True, slots=True)
class FrozenInput:
    """Candles that no stage can change: each one gets a copy of the frame, and numbers are handed out read-only."""

    candles: pl.DataFrame  # columns of CANDLE_SCHEMA, ascending

    @property
    def digest(self) -> str:
        """BLAKE2b over all rows: time and values, row by row."""
        return RowDigests(self.candles).at(len(self.candles) - 1)

    def until(self, ts_us: int) -> FrozenInput:
        """Return the input up to the candle that opens at `ts_us`, itself included."""
        return FrozenInput(self.candles.filter(pl.col("ts") <= to_datetime(ts_us)))


class RowDigests:
    """Digests of every prefix of a frame that are asked for, in one walk over its rows."""

    def __init__(self, candles: pl.DataFrame) -> None:
        self._rows = _packed(candles).data.cast("B")
        self._width = 8 * (1 + len(VALUES))
        self._hash = hashlib.blake2b(digest_size=32)
        self._done = 0

    def at(self, row: int) -> str:
        """Return the digest of the rows up to `row`, itself included; ask in ascending order."""
        end = row + 1
        if end < self._done:
            raise ValueError(f"row {row} lies before one that was asked for; ask in ascending order")
        self._hash.update(self._rows[self._done * self._width:end * self._width])
        self._done = end
        return self._hash.copy().hexdigest()


def _packed(candles: pl.DataFrame) -> NDArray[np.int64]:
    out = np.empty((len(candles), 1 + len(VALUES)), dtype=np.int64)
    out[:, 0] = times_us(candles)
    for place, name in enumerate(VALUES, 1):
        values = candles[name].to_numpy()  # a null becomes NaN
        values = np.where(np.isnan(values), _MISSING, values) if candles[name].null_count() else values
        out[:, place] = values.view(np.int64)
    return out


def output_digest(frame: pl.DataFrame) -> str:
    """Return the BLAKE2b digest of what a stage gave: names, types, values and where they are null, column by column."""
    out = hashlib.blake2b(digest_size=32)
    for column in frame.get_columns():
        out.update(f"{column.name}:{column.dtype}:{len(column)};".encode())
        if column.null_count():
            out.update(np.packbits(column.is_null().to_numpy()).tobytes())
        out.update(_bytes_of(column))
    return out.hexdigest()


def _bytes_of(column: pl.Series) -> bytes:
    if column.dtype == pl.String:
        return "\x00".join(column.fill_null("").to_list()).encode()
    if column.dtype == pl.Boolean:
        return np.packbits(column.fill_null(value=False).to_numpy()).tobytes()
    physical = column.to_physical()
    filled = physical.fill_null(0) if physical.null_count() else physical
    return np.ascontiguousarray(filled.to_numpy()).tobytes()

"""Packs the frames of one write: every frame at once, and rows that may not be stored set apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.candles import CANDLE_SCHEMA, VALUES
from storage.lake.blocks import CANDLE_BYTES, pack
from storage.statements import Row


class Packed(NamedTuple):
    """A frame's candles: their open times, ascending, and the candles, packed.

    Attributes:
        times: microseconds since 1970 UTC.
        candles: see `storage.lake.blocks`.
        is_unique: whether no time comes twice.
        broken: rows (ts_us, open, high, low, close, volume, spread) that may not be stored, with the reason.
    """

    times: list[int]
    candles: bytes
    is_unique: bool
    broken: list[tuple[Row, str]]


def pack_all(frames: Sequence[pl.DataFrame]) -> list[Packed]:
    """Pack frames of CANDLE_SCHEMA in one go: some operations for each of 500 small frames would cost more than storing them."""
    whole = frames[0] if len(frames) == 1 else _joined(frames)
    if whole.schema != CANDLE_SCHEMA:
        whole = _shaped(whole)
    numbers, broken = pack(whole), _broken(whole)
    ends = np.cumsum([frame.height for frame in frames])
    rises = numbers[1:, 0] > numbers[:-1, 0]
    rises[ends[(ends > 0) & (ends < whole.height)] - 1] = True  # from one frame to the next
    starts = [0, *ends.tolist()]
    if broken.any() or not rises.all():
        return [_sorted_apart(whole.slice(start, end - start), numbers[start:end], broken[start:end])
                for start, end in pairwise(starts)]
    times, candles = numbers[:, 0].tolist(), numbers.tobytes()
    return [Packed(times[start:end], candles[start * CANDLE_BYTES:end * CANDLE_BYTES], True, [])
            for start, end in pairwise(starts)]


def plain_rows(frame: pl.DataFrame) -> list[Row]:
    """Return rows (ts_us, open, high, low, close, volume, spread), as the quarantine takes them."""
    return frame.select(pl.col("ts").dt.epoch("us"), *VALUES).rows()


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    try:
        return pl.concat(frames, rechunk=False).rechunk()
    except pl.exceptions.PolarsError:  # their columns differ in order or type
        return pl.concat([_shaped(frame) for frame in frames])


def _shaped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items())


def _sorted_apart(frame: pl.DataFrame, numbers: NDArray[np.int64], broken: NDArray[np.bool_]) -> Packed:
    """Pack a frame that holds broken rows, or rows out of order; of rows with one time the later one stays the later."""
    good = numbers[~broken]
    good = good[np.argsort(good[:, 0], kind="stable")]
    refused = plain_rows(frame.filter(pl.Series(broken)).with_columns(pl.col(name) + 0.0 for name in VALUES))
    return Packed(good[:, 0].tolist(), good.tobytes(), bool((good[1:, 0] > good[:-1, 0]).all()),
                  [(row, "time missing" if row[0] is None else "not finite") for row in refused])


def _broken(whole: pl.DataFrame) -> NDArray[np.bool_]:
    """Return which rows may not be stored: without time, or with a value that is not finite (only a spread may be missing)."""
    ts, spread = whole.get_column("ts"), whole.get_column("spread")
    out = np.zeros(whole.height, np.bool_)
    for name in VALUES[:-1]:
        out |= ~np.isfinite(whole.get_column(name).to_numpy())  # null comes as NaN
    if spread.null_count() < whole.height:
        out |= ~np.isfinite(spread.to_numpy()) & spread.is_not_null().to_numpy()
    if ts.null_count():
        out |= ts.is_null().to_numpy()
    return out

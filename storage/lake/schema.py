"""The columns of the lake's files, and frames of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from core.candles import STORED_SCHEMA, TS
from core.errors import InputError

ROW_GROUP_ROWS: Final = 8_192  # the last candles cost one row group
COMPRESSION_LEVEL: Final = 1  # of zstd: three sizes in a hundred larger than 3, and a fifth faster
# What a reader must be told about the folders' names: Polars and pyarrow read `symbol=0700` as the number 700 otherwise.
HIVE_SCHEMA: Final = pl.Schema(
    {"connection": pl.String(), "symbol": pl.String(), "timeframe": pl.String(), "period": pl.Date()})
ALL_COLUMNS: Final = tuple(STORED_SCHEMA)
FILLED_COLUMNS: Final = (*ALL_COLUMNS, "is_filled")
_EMPTY: Final = pl.DataFrame(schema=STORED_SCHEMA)  # to make one takes longer than to read the head
HIVE_TYPES: Final = "{'connection': VARCHAR, 'symbol': VARCHAR, 'timeframe': VARCHAR, 'period': DATE}"


def empty_stored(columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return a frame of stored candles without rows."""
    return _EMPTY.clone() if columns is ALL_COLUMNS else _EMPTY[list(columns)]


def check_columns(columns: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns that a caller wants, None for all; InputError when one is unknown or named twice."""
    if columns is None:
        return None
    wanted = (columns,) if isinstance(columns, str) else tuple(columns)
    if not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(known):
        raise InputError("columns", ", ".join(map(str, wanted)), f"some of {', '.join(known)}, each once", "leave it out for all of them")
    return wanted


def with_ts(columns: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the columns to read for those that are wanted: their rows are told apart by ts."""
    if columns is None:
        return ALL_COLUMNS
    return columns if "ts" in columns else ("ts", *columns)


def picked(frame: pl.DataFrame, columns: tuple[str, ...] | None) -> pl.DataFrame:
    """Return the frame's `columns` in that order; None is all of them."""
    return frame if columns is None or tuple(frame.columns) == columns else frame[list(columns)]


def frame_of(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return rows, times in microseconds, as a frame of STORED_SCHEMA, in the order given."""
    if not rows:
        return empty_stored()
    # Column by column: Polars' own way from rows, and a cast of the frame, take several times as long for a few rows.
    return pl.DataFrame([
        pl.Series(name, values, dtype=pl.Int64).cast(kind) if kind == TS else pl.Series(name, values, dtype=kind)
        for (name, kind), values in zip(STORED_SCHEMA.items(), zip(*rows, strict=True), strict=True)])


def overlay(below: pl.DataFrame, above: pl.DataFrame) -> pl.DataFrame:
    """Return both frames of the same columns as one, sorted by ts; where both hold a time, `above` wins."""
    if above.is_empty():
        return below
    if below.is_empty():
        return above
    if below["ts"][-1] < above["ts"][0]:
        return pl.concat([below, above])
    return pl.concat([below.join(above, on="ts", how="anti"), above]).sort("ts")

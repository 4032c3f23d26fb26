"""The columns of the lake's files, and frames of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from core.candles import STORED_SCHEMA, TS

ROW_GROUP_ROWS: Final = 8_192  # the last candles cost one row group
COMPRESSION_LEVEL: Final = 1  # of zstd: three sizes in a hundred larger than 3, and a fifth faster
# What a reader must be told about the folders' names: Polars and pyarrow read `symbol=0700` as the number 700 otherwise.
HIVE_SCHEMA: Final = pl.Schema(
    {"connection": pl.String(), "symbol": pl.String(), "timeframe": pl.String(), "period": pl.Date()})
_EMPTY: Final = pl.DataFrame(schema=STORED_SCHEMA)  # to make one takes longer than to read the head
HIVE_TYPES: Final = "{'connection': VARCHAR, 'symbol': VARCHAR, 'timeframe': VARCHAR, 'period': DATE}"


def empty_stored() -> pl.DataFrame:
    """Return a frame of stored candles without rows."""
    return _EMPTY.clone()


def frame_of(rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
    """Return rows, times in microseconds, as a frame of STORED_SCHEMA, in the order given."""
    if not rows:
        return empty_stored()
    # Column by column: Polars' own way from rows, and a cast of the frame, take several times as long for a few rows.
    return pl.DataFrame([
        pl.Series(name, values, dtype=pl.Int64).cast(kind) if kind == TS else pl.Series(name, values, dtype=kind)
        for (name, kind), values in zip(STORED_SCHEMA.items(), zip(*rows, strict=True), strict=True)])


def overlay(below: pl.DataFrame, above: pl.DataFrame) -> pl.DataFrame:
    """Return both frames of STORED_SCHEMA as one, sorted by ts; where both hold a time, `above` wins."""
    if above.is_empty():
        return below
    if below.is_empty():
        return above
    if below["ts"][-1] < above["ts"][0]:
        return pl.concat([below, above])
    return pl.concat([below.join(above, on="ts", how="anti"), above]).sort("ts")

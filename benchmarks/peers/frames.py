"""Candles as Polars frames, for the peers that take them."""

from __future__ import annotations

import polars as pl

from benchmarks.market import NAMES, Columns


def frame_of(columns: Columns) -> pl.DataFrame:
    """Return a frame with ts (UTC) and the values."""
    return pl.DataFrame({"ts": columns.ts, **columns.values}).with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))


def columns_of(frame: pl.DataFrame) -> Columns:
    """Return a frame's candles as arrays."""
    return Columns(frame["ts"].dt.epoch("us").to_numpy(), {name: frame[name].to_numpy() for name in NAMES})

"""A DuckDB table with a primary key: a commit syncs its write-ahead log."""

from __future__ import annotations

from pathlib import Path

import duckdb
import polars as pl

from benchmarks.market import Columns
from benchmarks.peers.frames import columns_of, frame_of


class DuckPeer:
    """One table of all series."""

    def __init__(self, folder: Path) -> None:
        self._base = duckdb.connect(str(folder / "candles.duckdb"))
        self._base.execute("SET TimeZone = 'UTC'")
        self._base.execute("CREATE TABLE candles (series VARCHAR, ts TIMESTAMPTZ, open DOUBLE, high DOUBLE, low DOUBLE,"
                           " close DOUBLE, volume DOUBLE, PRIMARY KEY (series, ts))")

    def declare(self, names: list[str]) -> None:
        del names

    def native(self, columns: Columns) -> pl.DataFrame:
        return frame_of(columns)

    def bulk(self, name: str, table: pl.DataFrame) -> None:
        self.round({name: table})

    def upsert(self, name: str, table: pl.DataFrame) -> None:
        self.round({name: table})

    def round(self, tables: dict[str, pl.DataFrame]) -> None:
        batch = pl.concat([table.select(pl.lit(name).alias("series"), pl.all()) for name, table in tables.items()])
        self._base.register("batch", batch)
        self._base.execute("INSERT OR REPLACE INTO candles SELECT * FROM batch")

    def latest(self, name: str, count: int) -> pl.DataFrame:
        return self._base.sql("SELECT * EXCLUDE series FROM candles WHERE series = ? ORDER BY ts DESC LIMIT ?",
                              params=[name, count]).pl().reverse()

    def between(self, name: str, start_us: int, end_us: int) -> pl.DataFrame:
        return self._base.sql("SELECT * EXCLUDE series FROM candles WHERE series = ? AND ts >= make_timestamptz(?)"
                              " AND ts < make_timestamptz(?) ORDER BY ts", params=[name, start_us, end_us]).pl()

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        return self._base.execute(
            "SELECT count(*), min(low), max(high) FROM candles WHERE series = ? AND ts >= make_timestamptz(?)"
            " AND ts < make_timestamptz(?)", [name, start_us, end_us]).fetchone()

    def columns(self, table: pl.DataFrame) -> Columns:
        return columns_of(table)

"""Bare Parquet: a file for each month, rewritten whole by each change; written aside, synced, renamed."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from benchmarks.market import Columns
from benchmarks.peers.frames import columns_of, frame_of


class ParquetPeer:
    """`FOLDER/SERIES/2016-01.parquet`; no manifest, no digest, and a reader may meet a swap."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def declare(self, names: list[str]) -> None:
        for name in names:
            (self._folder / name).mkdir()

    def native(self, columns: Columns) -> pl.DataFrame:
        return frame_of(columns)

    def bulk(self, name: str, table: pl.DataFrame) -> None:
        self.upsert(name, table)

    def upsert(self, name: str, table: pl.DataFrame) -> None:
        months = table["ts"].dt.strftime("%Y-%m") if table.height < 2 else None
        parts = {months[0]: table} if months is not None else self._months(table)
        for month, part in parts.items():
            self._merge(self._folder / name / f"{month}.parquet", part)

    @staticmethod
    def _months(table: pl.DataFrame) -> dict[str, pl.DataFrame]:
        cut = table.with_columns(month=pl.col("ts").dt.truncate("1mo"))
        return {f"{key[0]:%Y-%m}": part for key, part in
                cut.partition_by("month", as_dict=True, include_key=False, maintain_order=True).items()}

    @staticmethod
    def _merge(path: Path, part: pl.DataFrame) -> None:
        if path.exists():
            part = pl.concat([pl.read_parquet(path), part]).unique("ts", keep="last").sort("ts")
        aside = path.with_suffix(".new")
        with aside.open("wb") as file:
            part.write_parquet(file, compression="zstd", compression_level=1)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def round(self, tables: dict[str, pl.DataFrame]) -> None:
        for name, table in tables.items():
            self.upsert(name, table)

    def _files(self, name: str) -> list[Path]:
        return sorted((self._folder / name).glob("*.parquet"))

    def latest(self, name: str, count: int) -> pl.DataFrame:
        tail = pl.DataFrame()
        for path in reversed(self._files(name)):
            tail = pl.concat([pl.read_parquet(path), tail]) if tail.height else pl.read_parquet(path)
            if tail.height >= count:
                break
        return tail.tail(count)

    def between(self, name: str, start_us: int, end_us: int) -> pl.DataFrame:
        return self._scan(name, start_us, end_us).collect()

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        row = self._scan(name, start_us, end_us).select(pl.len(), pl.col("low").min(), pl.col("high").max()).collect().row(0)
        return row[0], row[1], row[2]

    def _scan(self, name: str, start_us: int, end_us: int) -> pl.LazyFrame:
        bounds = [pl.lit(moment).cast(pl.Datetime("us", "UTC")) for moment in (start_us, end_us)]
        return pl.scan_parquet(self._files(name)).filter(pl.col("ts").is_between(*bounds, closed="left"))

    def columns(self, table: pl.DataFrame) -> Columns:
        return columns_of(table)

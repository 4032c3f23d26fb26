"""Candlelake through its public interface: head and lake, revisions, digests and ledger included."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from sqlalchemy import insert

from benchmarks.market import NAMES, Columns
from benchmarks.peers.frames import columns_of, frame_of
from storage import open_lake
from storage.head import Batch
from storage.metadata.tables import connections
from storage.series import ensure_series

_AS_PEERS = ("ts", *NAMES)  # what the others store


class CandlelakePeer:
    """One connection; a symbol is a series of 1m."""

    def __init__(self, folder: Path) -> None:
        self._lake = open_lake(folder)
        with self._lake.metadata.write() as tx:
            tx.execute(insert(connections).values(
                slug="bench", name="bench", type="crypto", provider="ccxt:binance", config={}, settings={}, status="active",
                is_active=True, is_admin_owned=False, created_at_us=0, updated_at_us=0))
        self._ids: dict[str, int] = {}

    def declare(self, names: list[str]) -> None:
        with self._lake.metadata.write() as tx:
            for name in names:
                self._ids[name] = ensure_series(tx, 1, name, "1m").id

    def native(self, columns: Columns) -> pl.DataFrame:
        return frame_of(columns).with_columns(spread=pl.lit(None, pl.Float64))

    def bulk(self, name: str, table: pl.DataFrame) -> None:
        self._lake.import_candles(self._ids[name], table, run_id="bench")

    def upsert(self, name: str, table: pl.DataFrame) -> None:
        self._lake.write([Batch(self._ids[name], table, "rest")], run_id="bench")

    def round(self, tables: dict[str, pl.DataFrame]) -> None:
        self._lake.write([Batch(self._ids[name], table, "rest") for name, table in tables.items()], run_id="bench")

    def latest(self, name: str, count: int) -> pl.DataFrame:
        return self._lake.latest("bench", name, "1m", count, columns=_AS_PEERS)

    def between(self, name: str, start_us: int, end_us: int) -> pl.DataFrame:
        return self._lake.candles("bench", name, "1m", start_us, end_us, columns=_AS_PEERS)

    def whole(self, name: str, start_us: int, end_us: int) -> pl.DataFrame:
        return self._lake.candles("bench", name, "1m", start_us, end_us)

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        row = self._lake.sql(
            "SELECT count(*), min(low), max(high) FROM candles('bench', $name, '1m')"
            " WHERE ts >= make_timestamptz($start) AND ts < make_timestamptz($end)",
            {"name": name, "start": start_us, "end": end_us}).row(0)
        return row[0], row[1], row[2]

    def columns(self, table: pl.DataFrame) -> Columns:
        return columns_of(table)

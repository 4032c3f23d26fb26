"""A SQLite table: WAL and synchronous=FULL, so that a commit is on disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np

from benchmarks.market import NAMES, Columns

Rows = list[tuple[float, ...]]
_UPSERT = ("INSERT INTO candles VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series, ts) DO UPDATE SET"
           " open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close, volume = excluded.volume")
_TABLE = ("CREATE TABLE candles (series TEXT, ts INTEGER, open REAL, high REAL, low REAL, close REAL, volume REAL,"
          " PRIMARY KEY (series, ts)) WITHOUT ROWID")
_SELECT = "SELECT ts, open, high, low, close, volume FROM candles WHERE series = ?"


class SqlitePeer:
    """One table, clustered by series and time. It takes and gives tuples; making them is not timed."""

    def __init__(self, folder: Path) -> None:
        self._base = sqlite3.connect(folder / "candles.db")
        for line in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "PRAGMA cache_size=-65536", _TABLE):
            self._base.execute(line)

    def declare(self, names: list[str]) -> None:
        del names

    def native(self, columns: Columns) -> Rows:
        return list(zip(columns.ts.tolist(), *(columns.values[name].tolist() for name in NAMES), strict=True))

    def bulk(self, name: str, table: Rows) -> None:
        self.round({name: table})

    def upsert(self, name: str, table: Rows) -> None:
        self.round({name: table})

    def round(self, tables: dict[str, Rows]) -> None:
        with self._base:
            self._base.executemany(_UPSERT, ((name, *row) for name, table in tables.items() for row in table))

    def latest(self, name: str, count: int) -> Rows:
        return self._base.execute(f"{_SELECT} ORDER BY ts DESC LIMIT ?", (name, count)).fetchall()[::-1]

    def between(self, name: str, start_us: int, end_us: int) -> Rows:
        return self._base.execute(f"{_SELECT} AND ts >= ? AND ts < ? ORDER BY ts", (name, start_us, end_us)).fetchall()

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        return self._base.execute("SELECT count(*), min(low), max(high) FROM candles WHERE series = ? AND ts >= ? AND ts < ?",
                                  (name, start_us, end_us)).fetchone()

    def columns(self, table: Rows) -> Columns:
        ts, *values = zip(*table, strict=True)
        return Columns(np.array(ts, np.int64), {name: np.array(column) for name, column in zip(NAMES, values, strict=True)})

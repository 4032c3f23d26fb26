"""ArcticDB on LMDB, as it ships. It runs in an environment of its own, because of its pins."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from arcticdb import Arctic, WritePayload

from benchmarks.market import NAMES, Columns


class ArcticPeer:
    """One library; a symbol is a series; candles in a pandas frame with a UTC index."""

    def __init__(self, folder: Path) -> None:
        self._library = Arctic(f"lmdb://{folder}?map_size=16GB").get_library("candles", create_if_missing=True)

    def declare(self, names: list[str]) -> None:
        del names

    def native(self, columns: Columns) -> pd.DataFrame:
        index = pd.DatetimeIndex(columns.ts.astype("datetime64[us]").astype("datetime64[ns]"), name="ts")
        return pd.DataFrame(columns.values, index=index)

    def bulk(self, name: str, table: pd.DataFrame) -> None:
        self._library.write(name, table)

    def upsert(self, name: str, table: pd.DataFrame) -> None:
        self._library.update(name, table, upsert=True)

    def round(self, tables: dict[str, pd.DataFrame]) -> None:
        # The fastest call it has for that: all series at once, over its own threads.
        answers = self._library.append_batch([WritePayload(name, table) for name, table in tables.items()])
        wrong = [answer for answer in answers if type(answer).__name__ == "DataError"]
        if wrong:
            raise RuntimeError(f"{len(wrong)} of {len(answers)} appends failed: {wrong[0]}")

    def latest(self, name: str, count: int) -> pd.DataFrame:
        return self._library.tail(name, n=count).data

    def between(self, name: str, start_us: int, end_us: int) -> pd.DataFrame:
        span = (pd.Timestamp(start_us, unit="us"), pd.Timestamp(end_us - 1, unit="us"))
        return self._library.read(name, date_range=span).data

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        frame = self._library.read(
            name, columns=["low", "high"],
            date_range=(pd.Timestamp(start_us, unit="us"), pd.Timestamp(end_us - 1, unit="us"))).data
        return len(frame), float(frame["low"].min()), float(frame["high"].max())

    def columns(self, table: pd.DataFrame) -> Columns:
        ts = table.index.to_numpy().astype("datetime64[us]").astype(np.int64)
        return Columns(ts, {name: table[name].to_numpy() for name in NAMES})

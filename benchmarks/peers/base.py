"""What every peer can do. Timed calls take and give the peer's own kind of table; turning it is not timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from benchmarks.market import Columns


class Peer(Protocol):
    """A store of candles below one folder. `native` and `columns` are never timed."""

    def __init__(self, folder: Path) -> None: ...

    def declare(self, names: list[str]) -> None:
        """Make series known, where that is separate from writing (not timed)."""

    def native(self, columns: Columns) -> Any:
        """Return candles as the table that this peer takes."""

    def bulk(self, name: str, table: Any) -> None:
        """Store a new series, durably."""

    def upsert(self, name: str, table: Any) -> None:
        """Store candles over what is there, durably."""

    def round(self, tables: dict[str, Any]) -> None:
        """Store one new candle in each of many series, durably."""

    def latest(self, name: str, count: int) -> Any:
        """Return the newest candles of a series."""

    def between(self, name: str, start_us: int, end_us: int) -> Any:
        """Return the candles that open in [start, end)."""

    def total(self, name: str, start_us: int, end_us: int) -> tuple[int, float, float]:
        """Return count, lowest low and highest high of [start, end)."""

    def columns(self, table: Any) -> Columns:
        """Return an answer as arrays."""

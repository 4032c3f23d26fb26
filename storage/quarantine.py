"""Rows that a provider sent and that may not be stored as candles: kept aside as they came, with the reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from sqlalchemy import Connection

from core.candles import VALUES
from core.clock import isoformat
from storage.statements import Row, execute_many

_QUARANTINE = ('INSERT INTO quarantine (series_id, ts_us, reason, digest, "row", run_id, seen_at_us)'
               " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series_id, digest) DO NOTHING")


def set_aside(tx: Connection, series_id: int, rejected: Iterable[tuple[Row, str]], run_id: str, now_us: int) -> None:
    """Keep rows (ts_us, open, high, low, close, volume, spread) with the reason for each; the same row twice is one entry."""
    rows = []
    for row, reason in rejected:
        shown = {"ts": None if row[0] is None else isoformat(row[0]),
                 **{name: _jsonable(value) for name, value in zip(VALUES, row[1:], strict=True)}}
        text = json.dumps(shown)
        digest = hashlib.sha256(f"{reason}|{text}".encode()).hexdigest()
        rows.append((series_id, row[0], reason, digest, text, run_id, now_us))
    execute_many(tx, _QUARANTINE, rows)


def _jsonable(value: float | None) -> float | str | None:
    finite = value is None or value - value == 0  # JSON has no NaN and no infinity
    return value if finite else str(value)

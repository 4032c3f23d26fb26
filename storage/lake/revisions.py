"""Revisions: every change of a stored candle by its provider, and what was known at an earlier time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from sqlalchemy import Connection, select

from core.candles import VALUES
from core.clock import to_datetime
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.lake.schema import frame_of, overlay
from storage.metadata.tables import connections, revisions, series
from storage.statements import Row, fetch


@dataclass(frozen=True, slots=True)
class RevisionRow:
    """One change. `old` and `new` hold the candle's values, its source and its run_id."""

    series: Series
    ts_us: int
    known_at_us: int
    old_known_at_us: int
    old: Mapping[str, Any]
    new: Mapping[str, Any]


def list_revisions(tx: Connection, connection: str | None = None, symbol: str | None = None,
                   timeframe: str | Timeframe | None = None, limit: int | None = None) -> list[RevisionRow]:
    """Return revisions, the newest first."""
    query = select(revisions, connections.c.slug, series.c.symbol, series.c.timeframe)
    query = query.join_from(revisions, series).join(connections)
    if connection is not None:
        query = query.where(connections.c.slug == connection)
    if symbol is not None:
        query = query.where(series.c.symbol == symbol)
    if timeframe is not None:
        query = query.where(series.c.timeframe == Timeframe.parse(str(timeframe)).name)
    query = query.order_by(revisions.c.known_at_us.desc(), revisions.c.id.desc()).limit(limit)
    return [RevisionRow(
        series=Series(row["slug"], row["symbol"], Timeframe.parse(row["timeframe"])), ts_us=row["ts_us"],
        known_at_us=row["known_at_us"], old_known_at_us=row["old_known_at_us"], old=row["old"], new=row["new"],
    ) for row in tx.execute(query).mappings()]


def changed_after(tx: Connection, series_id: int, interval: Interval, as_of_us: int) -> list[Row]:
    """Return (ts_us, old_known_at_us, old) of the first change of each candle after `as_of_us`, ascending by ts."""
    rows = fetch(tx, "SELECT ts_us, old_known_at_us, old FROM revisions WHERE series_id = ? AND ts_us >= ? AND ts_us < ?"
                     " AND known_at_us > ? ORDER BY ts_us, known_at_us DESC",
                 (series_id, interval.start, interval.end, as_of_us))
    return sorted({row[0]: row for row in rows}.values())  # the earliest change of a time comes last and wins


def as_known(now: pl.DataFrame, later: list[Row], as_of_us: int) -> pl.DataFrame:
    """Return the candles as they were known at `as_of_us`.

    Args:
        now: what is stored now (STORED_SCHEMA, ascending).
        later: what `changed_after` gave for the same snapshot and the same instant.
        as_of_us: the instant.
    """
    kept = now.filter(pl.col("known_at") <= to_datetime(as_of_us))
    before = [_row(ts_us, known_at_us, old) for ts_us, known_at_us, old in later if known_at_us <= as_of_us]
    return overlay(kept, frame_of(before))


def _row(ts_us: int, known_at_us: int, old: str | Mapping[str, Any]) -> Row:
    values = json.loads(old) if isinstance(old, str) else old
    return (ts_us, *(values[name] for name in VALUES), known_at_us, values["source"], values["run_id"])

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

# Retention keeps revisions, as a record. But a past view must not show, below a boundary, the changed candles alone.
STILL_READABLE = ("NOT EXISTS (SELECT 1 FROM retentions t WHERE t.series_id = r.series_id AND t.before_us > r.ts_us"
                  " AND t.applied_at_us >= r.known_at_us)")


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
                   timeframe: str | Timeframe | None = None, limit: int | None = None, *,
                   since_us: int | None = None, before_us: int | None = None, skip: int = 0) -> list[RevisionRow]:
    """Return revisions, the newest first; with `since_us` and `before_us` those that were seen in [since, before); `skip` leaves out the first."""
    query = select(revisions, connections.c.slug, series.c.symbol, series.c.timeframe)
    query = query.join_from(revisions, series).join(connections)
    if connection is not None:
        query = query.where(connections.c.slug == connection)
    if symbol is not None:
        query = query.where(series.c.symbol == symbol)
    if timeframe is not None:
        query = query.where(series.c.timeframe == Timeframe.parse(str(timeframe)).name)
    if since_us is not None:
        query = query.where(revisions.c.known_at_us >= since_us)
    if before_us is not None:
        query = query.where(revisions.c.known_at_us < before_us)
    query = query.order_by(revisions.c.known_at_us.desc(), revisions.c.id.desc()).limit(limit).offset(skip)
    return [RevisionRow(
        series=Series(row["slug"], row["symbol"], Timeframe.parse(row["timeframe"])), ts_us=row["ts_us"],
        known_at_us=row["known_at_us"], old_known_at_us=row["old_known_at_us"], old=row["old"], new=row["new"],
    ) for row in tx.execute(query).mappings()]


def revisions_of_run(tx: Connection, run_id: str) -> list[RevisionRow]:
    """Return the revisions that a run made, the oldest first."""
    span = fetch(tx, "SELECT first_at_us FROM runs WHERE run_id = ?", (run_id,))
    if not span:
        return []
    found = list_revisions(tx, since_us=span[0][0])
    return [row for row in reversed(found) if row.new["run_id"] == run_id]


def changed_after(tx: Connection, series_id: int, interval: Interval, as_of_us: int) -> list[Row]:
    """Return (ts_us, old_known_at_us, old) of the first change of each candle after `as_of_us`, ascending by ts."""
    rows = fetch(tx, "SELECT ts_us, old_known_at_us, old FROM revisions r WHERE series_id = ? AND ts_us >= ? AND ts_us < ?"  # noqa: S608  a constant
                     f" AND known_at_us > ? AND {STILL_READABLE} ORDER BY ts_us, known_at_us DESC",
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

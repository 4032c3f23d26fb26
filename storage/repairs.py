"""Repairs: booked ranges that were filled in the end, kept when the ledger forgets them; they give the time to repair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from core.interval import Interval, intersect, meeting
from core.series import Series
from core.timeframe import Grid, Timeframe
from storage.ledger import booked_in, candle_runs
from storage.statements import execute_many, fetch


@dataclass(frozen=True, slots=True)
class RepairRow:
    """A booked range that is stored now: its cause, when it was first seen, and when it was filled."""

    series: Series
    interval: Interval
    cause: str
    attempts: int
    first_seen_us: int
    repaired_at_us: int


def note_repairs(tx: Connection, series_id: int, slots: Sequence[int], grid: Grid, now_us: int) -> None:
    """Note what of the ledger the slots (ascending) fill; call it before they are taken out of the ledger."""
    if not slots:
        return
    booked = booked_in(tx, series_id, Interval(slots[0], slots[-1] + 1))
    if not booked:
        return
    filled = candle_runs(slots, grid)
    execute_many(
        tx, "INSERT INTO repairs (series_id, start_us, end_us, cause, attempts, first_seen_us, repaired_at_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        [(series_id, part.start, part.end, gap.cause, gap.attempts, gap.first_seen_us, now_us)
         for gap in booked for part in intersect([gap.interval], meeting(filled, gap.interval))])


def list_repairs(tx: Connection, connection: str | None = None, start_us: int = 0, end_us: int | None = None) -> list[RepairRow]:
    """Return the repairs made in [start_us, end_us), oldest first; of one connection or of all."""
    conditions: list[str] = ["t.repaired_at_us >= ?"]
    parameters: list[object] = [start_us]
    if end_us is not None:
        conditions.append("t.repaired_at_us < ?")
        parameters.append(end_us)
    if connection is not None:
        conditions.append("c.slug = ?")
        parameters.append(connection)
    rows = fetch(tx, "SELECT c.slug, s.symbol, s.timeframe, t.start_us, t.end_us, t.cause, t.attempts, t.first_seen_us,"  # noqa: S608  constants
                     " t.repaired_at_us FROM repairs t JOIN series s ON s.id = t.series_id"
                     f" JOIN connections c ON c.id = s.connection_id WHERE {' AND '.join(conditions)} ORDER BY t.id", parameters)
    return [RepairRow(Series(row[0], row[1], Timeframe.parse(row[2])), Interval(row[3], row[4]), *row[5:]) for row in rows]

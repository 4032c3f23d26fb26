"""Provenance: which run and which request brought a row, and what a run changed.

A row carries its `run_id`; the run's requests lie in `requests`, one row for each write, so that a fetch of 500 series a
minute costs one row and not 500. A write that changes nothing leaves nothing here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from core.errors import NotFoundError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.statements import Row, execute_many, fetch

_UPSERT = ("INSERT INTO runs (run_id, kind, first_at_us, last_at_us, stored, revised, quarantined) VALUES (?, ?, ?, ?, ?, ?, ?)"
           " ON CONFLICT (run_id) DO UPDATE SET last_at_us = excluded.last_at_us, stored = runs.stored + excluded.stored,"
           " revised = runs.revised + excluded.revised, quarantined = runs.quarantined + excluded.quarantined")
_RUN = "run_id, kind, first_at_us, last_at_us, stored, revised, quarantined, status, message, ended_at_us"


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a provider: its name in the provider's logs and ours, what it asked for, and when it was answered.

    `at_us` is the provider's own clock.
    """

    request_id: str
    asked: Interval
    at_us: int


@dataclass(frozen=True, slots=True)
class Brought:
    """What one request brought for one series, counted in candles."""

    series_id: int
    request: Request
    stored: int
    revised: int


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run that changed the store. `status` is None for one that was killed, or is still at work."""

    run_id: str
    kind: str
    first_at_us: int
    last_at_us: int
    stored: int
    revised: int
    quarantined: int
    status: str | None
    message: str | None
    ended_at_us: int | None


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request that brought something new or changed. `written_at_us` is when that was stored; counts are in candles."""

    run_id: str
    written_at_us: int
    series: Series | None  # None: the series is gone
    request_id: str
    asked: Interval
    at_us: int
    stored: int
    revised: int


def note_write(tx: Connection, run_id: str, now_us: int, counts: tuple[int, int, int], brought: Sequence[Brought] = ()) -> None:
    """Note what one transaction changed: (stored, revised, quarantined) candles, and the requests that brought them.

    Nothing is noted when nothing was stored or revised.
    """
    stored, revised, quarantined = counts
    if not (stored or revised):
        return
    kind = run_id.split("-", 1)[0][:20]
    execute_many(tx, _UPSERT, [(run_id, kind, now_us, now_us, stored, revised, quarantined)])
    if brought:
        execute_many(tx, "INSERT INTO requests (run_id, at_us, count, entries) VALUES (?, ?, ?, ?)",
                     [(run_id, now_us, len(brought), _packed(brought))])


def end_run(tx: Connection, run_id: str, status: str, message: str, now_us: int) -> None:
    """Note how a run ended, if it changed anything."""
    execute_many(tx, "UPDATE runs SET status = ?, message = ?, ended_at_us = ? WHERE run_id = ?",
                 [(status, message, now_us, run_id)])


def list_runs(tx: Connection, limit: int = 100) -> list[RunRow]:
    """Return the runs that changed something, the newest first."""
    return [RunRow(*row) for row in fetch(tx, f"SELECT {_RUN} FROM runs ORDER BY first_at_us DESC, id DESC LIMIT ?", (limit,))]  # noqa: S608  names


def find_run(tx: Connection, run_id: str) -> RunRow:
    """Return a run by its id.

    Raises:
        NotFoundError: no run of that id changed anything.
    """
    found = fetch(tx, f"SELECT {_RUN} FROM runs WHERE run_id = ?", (run_id,))  # noqa: S608  column names
    if not found:
        raise NotFoundError(f"no run {run_id!r} changed anything; `candlelake runs list` shows those that did")
    return RunRow(*found[0])


def requests_of(tx: Connection, run_id: str) -> list[RequestRow]:
    """Return a run's requests that brought something, in the order of writing."""
    rows = fetch(tx, "SELECT run_id, at_us, entries FROM requests WHERE run_id = ? ORDER BY at_us, id", (run_id,))
    names = _names(tx)
    return [item for row in rows for item in _unpacked(row, names)]


def request_of(tx: Connection, series: Series, ts_us: int, run_id: str, known_at_us: int) -> RequestRow | None:
    """Return the request that brought the value of a candle; None for imports, and rows older than this record.

    Args:
        tx: an open transaction.
        series: the candle's series.
        ts_us: its open time.
        run_id: its `run_id`.
        known_at_us: its `known_at`.
    """
    rows = fetch(tx, "SELECT run_id, at_us, entries FROM requests WHERE run_id = ? AND at_us <= ?"
                     " ORDER BY at_us DESC, id DESC", (run_id, known_at_us))
    names = _names(tx)
    return next((item for row in rows for item in _unpacked(row, names) if item.series == series and ts_us in item.asked), None)


def _packed(brought: Iterable[Brought]) -> bytes:
    columns = list(zip(*((item.series_id, item.request.request_id, item.request.asked.start, item.request.asked.end,
                          item.request.at_us, item.stored, item.revised) for item in brought), strict=True))
    return zlib.compress(json.dumps(columns, separators=(",", ":")).encode(), 3)


def _unpacked(row: Row, names: dict[int, Series]) -> list[RequestRow]:
    columns = json.loads(zlib.decompress(bytes(row[2])))
    return [RequestRow(row[0], row[1], names.get(series_id), request_id, Interval(start, end), at_us, stored, revised)
            for series_id, request_id, start, end, at_us, stored, revised in zip(*columns, strict=True)]


def _names(tx: Connection) -> dict[int, Series]:
    rows = fetch(tx, "SELECT s.id, c.slug, s.symbol, s.timeframe FROM series s JOIN connections c ON c.id = s.connection_id")
    return {row[0]: Series(row[1], row[2], Timeframe.parse(row[3])) for row in rows}

"""How connections fare: back-off, states and notifications after each use, and a check of all of them as data."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, func, select

from connections.rows import ConnectionRow, notify, read_connection, read_connections, write_log
from core.calendar import open_parts
from core.clock import LATEST_US, SECOND_US, has_come, isoformat
from core.errors import (
    AddressRefusedError,
    CandlelakeError,
    CredentialsRefusedError,
    DecryptionError,
    KeyMissingError,
    LeaseHeldError,
    NotPermittedError,
    StoreBusyError,
    TransientError,
)
from core.interval import Interval
from core.secrets import redact
from storage.calendars import Calendars, all_calendars
from storage.listings import delisted
from storage.metadata.tables import connections, gaps, notifications, series
from storage.series import SeriesRow, list_series
from storage.ticks.states import StreamState, read_states

if TYPE_CHECKING:
    from connections.service import ConnectionService
    from storage import Lake

BACKOFF_FIRST: Final = 5.0  # seconds; doubles with each failure
BACKOFF_MAX: Final = 3600.0
STALE_CANDLES: Final = 5  # so many candles of open-market time without a new one: stale
STALE_LEAST_SECONDS: Final = 600
NEVER_AGAIN: Final = LATEST_US  # `retry_at_us` of a refused login: only a person's change clears it
_OWN: Final = (DecryptionError, KeyMissingError, AddressRefusedError, NotPermittedError)


@dataclass(frozen=True, slots=True)
class HealthRow:
    """One connection's health. `status`: ok | stale | failing | error | inactive.

    `lag_seconds` is by how much open-market time the most belated candle is overdue; `gaps` are the booked ranges that are
    still asked for again.

    A stream only makes data early, so its state is told beside the status and does not decide it.
    """

    slug: str
    status: str
    reason: str
    last_candle_us: int | None
    lag_seconds: float | None
    gaps: int
    stream: StreamState | None = None  # of the connection's last stream, if it ever had one
    stream_line: str = ""  # the same in a few words, as of the check


def counts_as_failure(error: CandlelakeError) -> bool:
    """Whether an error says something about the connection; a held lease, a bad symbol or a full disk does not."""
    if isinstance(error, (LeaseHeldError, StoreBusyError)):
        return False
    return isinstance(error, (TransientError, CredentialsRefusedError, *_OWN))


def backoff_seconds(failures: int, error: CandlelakeError | None = None) -> float:
    """Return the wait after so many failures in a row: doubling, with jitter, an hour at most, as asked at least."""
    wait = min(BACKOFF_MAX, BACKOFF_FIRST * 2.0 ** min(failures - 1, 20))
    wait *= random.uniform(0.5, 1.0)  # noqa: S311  spreads load, protects nothing
    asked = error.retry_after if isinstance(error, TransientError) and error.retry_after is not None else 0.0
    return min(BACKOFF_MAX, max(wait, asked))


def is_ready(row: ConnectionRow, now_us: int) -> bool:
    """Whether a connection is switched on and does not back off."""
    if row.retry_at_us is None or not row.is_active:
        return row.is_active
    return row.retry_at_us != NEVER_AGAIN and has_come(row.retry_at_us, now_us, round(BACKOFF_MAX * SECOND_US))


def record_success(tx: Connection, connection_id: int, now_us: int) -> None:
    """Note that the connection works; after an error state this is logged and told once."""
    row = tx.execute(select(connections).where(connections.c.id == connection_id).with_for_update()).mappings().first()
    if row is None:
        return
    tx.execute(connections.update().where(connections.c.id == connection_id).values(
        status="active" if row["is_active"] else "inactive", status_reason=None, consecutive_failures=0,
        retry_at_us=None, last_error=None, last_connected_at_us=now_us))
    if row["status"] == "error":
        write_log(tx, (connection_id, row["slug"]), "recover", "success", "works again", now_us,
                  failures=row["consecutive_failures"])
        notify(tx, "connection_recovered", "info", connection_id, f"{row['slug']} works again",
               f"{row['slug']} works again after {row['consecutive_failures']} failures", now_us)


def record_failure(service: ConnectionService, slug: str, error: CandlelakeError) -> None:
    """Note a failure: a refused login stops the connection at once, others back off; told once when it becomes an error.

    Errors that say nothing about the connection are not counted.
    """
    if not counts_as_failure(error):
        return
    with service.lake.metadata.write() as tx:
        now_us = service.clock.now_us()
        row = read_connection(tx, slug, for_update=True)
        failures = row.consecutive_failures + 1
        message = redact(str(error))
        is_final = not isinstance(error, TransientError)
        is_error = is_final or failures >= service.settings.max_consecutive_failures
        if isinstance(error, CredentialsRefusedError):
            retry_at_us, what = NEVER_AGAIN, f"login refused, not tried again: enter the credentials again ({message})"
        else:
            retry_at_us = now_us + round(backoff_seconds(failures, error) * SECOND_US)
            what = f"failed {failures} times in a row, next try {isoformat(retry_at_us - retry_at_us % SECOND_US)}: {message}"
        becomes_error = is_error and row.status != "error"
        tx.execute(connections.update().where(connections.c.id == row.id).values(
            consecutive_failures=failures, last_error=message, retry_at_us=retry_at_us,
            status="error" if is_error else row.status, status_reason=what if is_error else row.status_reason))
        write_log(tx, (row.id, slug), "connect", "error", message, now_us, error=type(error).__name__, failures=failures)
        if becomes_error:
            notify(tx, "credentials_refused" if isinstance(error, CredentialsRefusedError) else "connection_failing",
                   "error", row.id, f"{slug} does not work", what, now_us)


def check_health(lake: Lake, now_us: int) -> list[HealthRow]:
    """Judge every connection; a stale one is told once until it has caught up.

    Stale: an active series without a new candle for `STALE_CANDLES` of its timeframe (10 minutes at least) of open time.
    """
    with lake.metadata.write() as tx:
        judged = judge(tx, now_us)
        for row, health in judged:
            _tell_stale(tx, row, health, now_us)
    return [health for _, health in judged]


def read_health(lake: Lake, now_us: int, only: Collection[str] | None = None) -> list[HealthRow]:
    """Judge every connection (or those of some slugs) as `check_health` does, by slug.

    Writes nothing: readers wait for no writer, and no writer for them.
    """
    with lake.metadata.read() as tx:
        return [health for _, health in judge(tx, now_us, only)]


def judge(tx: Connection, now_us: int, only: Collection[str] | None = None) -> list[tuple[ConnectionRow, HealthRow]]:
    """Return each connection (or those of some slugs) with its health, by slug."""
    by_connection: dict[str, list[SeriesRow]] = {}
    for item in list_series(tx, only_active=True, among=only):
        by_connection.setdefault(item.series.connection, []).append(item)
    booked = dict(tx.execute(
        select(series.c.connection_id, func.count()).join_from(gaps, series).where(gaps.c.next_try_us.is_not(None))
        .group_by(series.c.connection_id)
    ).tuples().all())
    streams = {state.connection: state for state in read_states(tx)}
    calendars, gone, out = all_calendars(tx), delisted(tx), []
    for row in read_connections(tx, only=only):
        kept = [item for item in by_connection.get(row.slug, []) if (row.id, item.series.symbol) not in gone]
        judged = _health_of(row, kept, calendars.get(row.id, Calendars({})), booked.get(row.id, 0), now_us)
        stream = streams.get(row.slug)
        out.append((row, replace(judged, stream=stream, stream_line="" if stream is None else stream.line(now_us))))
    return out


def _health_of(row: ConnectionRow, kept: list[SeriesRow], calendars: Calendars, booked: int, now_us: int) -> HealthRow:
    last_us = max((item.last_us for item in kept if item.last_us is not None), default=None)
    stale, lag = _stale(row, kept, calendars, now_us)
    if not row.is_active:
        status, reason = "inactive", "switched off"
    elif row.status == "error":
        status, reason = "error", row.status_reason or row.last_error or "failing"
    elif stale:
        status, reason = "stale", f"no new candle of {', '.join(stale[:5])}" + (" and more" if len(stale) > 5 else "")
    elif row.consecutive_failures:
        status, reason = "failing", f"{row.consecutive_failures} failures in a row: {row.last_error}"
    else:
        status, reason = "ok", "all series are fresh" if kept else "no series yet: add symbols and timeframes"
    return HealthRow(row.slug, status, reason, last_us, lag, booked)


def _stale(row: ConnectionRow, kept: list[SeriesRow], calendars: Calendars, now_us: int) -> tuple[list[str], float | None]:
    """Return the stale series, and by how many seconds of open-market time the most belated candle is overdue."""
    names, lags = [], []
    for item in kept:
        # A candle is known when it closes; a series without any is as old as its connection.
        since = row.created_at_us if item.last_us is None else item.last_us + item.series.timeframe.length_us
        if now_us - since <= item.series.timeframe.length_us:  # the next candle is not closed yet
            lags.append(0.0)
            continue
        calendar = calendars.get(item.series.symbol, row.type)
        waited = sum(part.end - part.start for part in open_parts(calendar, Interval(since, now_us))) / SECOND_US
        length = item.series.timeframe.length_us / SECOND_US
        lags.append(round(max(0.0, waited - length), 1))
        if waited > max(STALE_LEAST_SECONDS, STALE_CANDLES * length):
            names.append(f"{item.series.symbol} {item.series.timeframe}")
    return names, max(lags, default=None)


def _tell_stale(tx: Connection, row: ConnectionRow, health: HealthRow, now_us: int) -> None:
    """One notification for each time of staleness: told when the newest word on it is not yet that it is stale."""
    last = tx.execute(
        select(notifications.c.kind).where(
            notifications.c.connection_id == row.id, notifications.c.kind.in_(("stale", "fresh")))
        .order_by(notifications.c.created_at_us.desc(), notifications.c.id.desc()).limit(1)).scalar()
    if health.status == "stale" and last != "stale":
        notify(tx, "stale", "warning", row.id, f"{row.slug} is stale", health.reason, now_us)
        write_log(tx, (row.id, row.slug), "health", "error", f"stale: {health.reason}", now_us)
    elif health.status == "ok" and last == "stale":
        notify(tx, "fresh", "info", row.id, f"{row.slug} is fresh again", health.reason, now_us)
        write_log(tx, (row.id, row.slug), "health", "success", "fresh again", now_us)

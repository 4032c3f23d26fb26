"""Connections, their log and their notifications as rows of the metadata store."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from core.errors import NotFoundError
from core.secrets import redact
from core.timeframe import Timeframe
from storage.metadata.tables import connection_logs, connections, credentials, notifications, series

Outcome = Literal["success", "error"]
MESSAGE_MAX = 2000


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """A connection as stored; of its credentials only the names of the fields."""

    id: int
    slug: str
    name: str
    type: str
    provider: str
    base_url: str | None
    config: Mapping[str, Any]
    settings: Mapping[str, Any]
    status: str  # inactive | active | error
    status_reason: str | None
    is_active: bool
    owner: str | None
    is_admin_owned: bool
    consecutive_failures: int
    retry_at_us: int | None
    last_connected_at_us: int | None
    last_error: str | None
    created_at_us: int
    updated_at_us: int
    symbols: tuple[str, ...] = ()  # of its active series
    timeframes: tuple[str, ...] = ()
    credential_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionName:
    """What tells whose a connection is, and whether it is looked for: lists of hundreds are sifted by it."""

    slug: str
    name: str
    provider: str
    owner: str | None
    is_admin_owned: bool


@dataclass(frozen=True, slots=True)
class LogRow:
    """One action on a connection and how it went."""

    id: int
    slug: str
    action: str
    status: Outcome
    message: str
    metadata: Mapping[str, Any]
    created_at_us: int


def read_connection(tx: Connection, slug: str, *, for_update: bool = False) -> ConnectionRow:
    """Return the connection; NotFoundError when there is none of that slug."""
    query = select(connections).where(connections.c.slug == slug)
    found = tx.execute(query.with_for_update() if for_update else query).mappings().first()
    if found is None:
        raise NotFoundError(f"no connection {slug[:80]!r}; `candlelake connections list` shows those there are")
    return _complete(tx, [found])[0]


def read_connections(tx: Connection, owner: str | None = None, only: Collection[str] | None = None) -> list[ConnectionRow]:
    """Return all connections by slug; only one owner's when `owner` is given, only those of the slugs in `only`."""
    query = select(connections).order_by(connections.c.slug)
    query = query if owner is None else query.where(connections.c.owner == owner)
    return _complete(tx, tx.execute(query if only is None else query.where(connections.c.slug.in_(only))).mappings().all())


def read_names(tx: Connection) -> list[ConnectionName]:
    """Return the names of all connections by slug, without what takes longer to read."""
    kept = connections.c
    return [ConnectionName(*row) for row in tx.execute(
        select(kept.slug, kept.name, kept.provider, kept.owner, kept.is_admin_owned).order_by(kept.slug))]


def write_log(  # noqa: PLR0917  one word for each column
    tx: Connection, connection: tuple[int | None, str], action: str, outcome: Outcome, message: str,
    now_us: int, **metadata: object,
) -> None:
    """Log an action on the connection (id, slug) in the transaction of the action itself; the message becomes one line."""
    connection_id, slug = connection
    tx.execute(connection_logs.insert().values(
        connection_id=connection_id, slug=slug, action=action, status=outcome, message=" ".join(redact(message).split())[:MESSAGE_MAX],
        metadata=metadata, created_at_us=now_us))


def read_logs(tx: Connection, slug: str, limit: int) -> list[LogRow]:
    """Return the newest `limit` log rows of a slug, newest first; they outlive the connection."""
    columns = [column for column in connection_logs.c if column.name != "connection_id"]
    query = select(*columns).where(connection_logs.c.slug == slug).order_by(
        connection_logs.c.created_at_us.desc(), connection_logs.c.id.desc()).limit(limit)
    return [LogRow(**row) for row in tx.execute(query).mappings()]


def notify(  # noqa: PLR0917  one word for each column
    tx: Connection, kind: str, severity: Literal["info", "warning", "error"], connection_id: int, title: str,
    message: str, now_us: int,
) -> None:
    """Tell the people behind a connection."""
    tx.execute(notifications.insert().values(
        kind=kind, severity=severity, connection_id=connection_id, title=redact(title)[:200],
        message=redact(message)[:MESSAGE_MAX], created_at_us=now_us))


def _complete(tx: Connection, found: Iterable[Mapping[Any, Any]]) -> list[ConnectionRow]:
    rows = list(found)
    ids = [row["id"] for row in rows]
    kept: dict[int, list[tuple[str, str]]] = {}
    for connection_id, symbol, timeframe in tx.execute(
            select(series.c.connection_id, series.c.symbol, series.c.timeframe)
            .where(series.c.is_active, series.c.connection_id.in_(ids))):
        kept.setdefault(connection_id, []).append((symbol, timeframe))
    fields: dict[int, list[str]] = {}
    for connection_id, field in tx.execute(select(credentials.c.connection_id, credentials.c.field)
                                           .where(credentials.c.connection_id.in_(ids))):
        fields.setdefault(connection_id, []).append(field)
    return [ConnectionRow(
        **row, symbols=tuple(sorted({symbol for symbol, _ in kept.get(row["id"], [])})),
        timeframes=tuple(sorted({name for _, name in kept.get(row["id"], [])}, key=Timeframe.parse)),
        credential_fields=tuple(sorted(fields.get(row["id"], [])))) for row in rows]

"""What a change of a connection means: for its stored credentials, its state and its series."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from connections.health import NEVER_AGAIN
from connections.inputs import ConnectionInput
from connections.rows import ConnectionRow
from core.secrets import Secret
from core.timeframe import Timeframe
from providers.addresses import check_url
from storage.metadata.tables import series
from storage.series import ensure_series


def entered(credentials: Mapping[str, Secret]) -> dict[str, Secret]:
    """Return the credentials that were given: a blank one keeps what is stored."""
    return {name: secret for name, secret in credentials.items() if secret}


def merged(row: ConnectionRow, changes: Mapping[str, Any]) -> ConnectionInput:
    """Return the connection as it would be with `changes`, checked."""
    stored: dict[str, Any] = {name: getattr(row, name) for name in ConnectionInput.model_fields if name != "credentials"}
    return ConnectionInput(**{**stored, **changes})


def moves(old: str | None, new: str | None) -> bool:
    """Whether another host would be asked, or the same one without TLS. A port may change: it is the same machine."""
    if old is None or new is None:
        return old != new
    before, after = check_url(old), check_url(new)
    return before.host != after.host or (before.scheme in {"https", "wss"} and after.scheme not in {"https", "wss"})


def state_after(row: ConnectionRow, given: ConnectionInput, changes: Mapping[str, Any]) -> dict[str, object]:
    """A change of what could be wrong gives the connection a fresh start; a change of its name does not."""
    may_help = {"credentials", "base_url", "config", "is_active"} & set(changes)
    refused = row.retry_at_us == NEVER_AGAIN
    if (may_help and not refused) or (refused and entered(given.credentials)) or not given.is_active:
        return {"status": "active" if given.is_active else "inactive", "status_reason": None, "consecutive_failures": 0,
                "retry_at_us": None if not refused or entered(given.credentials) else NEVER_AGAIN}
    return {}


def keep_series(tx: Connection, connection_id: int, symbols: Iterable[str], timeframes: Iterable[str], now_us: int) -> None:
    """Have exactly these series active; others of the connection keep their candles and are fetched no more."""
    names = [Timeframe.parse(name).name for name in timeframes]
    wanted = [ensure_series(tx, connection_id, symbol, name, now_us).id for symbol in symbols for name in names]
    mine = series.c.connection_id == connection_id
    tx.execute(series.update().where(mine).values(is_active=False))
    for first in range(0, len(wanted), 500):  # a statement takes only so many parameters
        tx.execute(series.update().where(mine, series.c.id.in_(wanted[first: first + 500])).values(is_active=True))

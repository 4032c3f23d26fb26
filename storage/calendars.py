"""The calendars of connections and of single symbols: which one holds, and how it came to be."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from sqlalchemy import Connection, select

from core.calendar import Calendar, MarketCalendar, default_calendar
from storage.metadata.tables import connections
from storage.metadata.tables_market import calendars
from storage.statements import fetch

Origin = Literal["learned", "set"]
WHOLE_CONNECTION = ""  # the symbol of the calendar for all symbols without one of their own


@dataclass(frozen=True, slots=True)
class CalendarRow:
    """A stored calendar: learned from the data, or set by a person; `evidence` says from what it was learned."""

    connection: str
    symbol: str
    spec: Mapping[str, Any]
    origin: Origin
    evidence: Mapping[str, Any]
    updated_at_us: int


def calendar_for(tx: Connection, connection_id: int, symbol: str, market_type: str) -> Calendar:
    """Return the calendar of a symbol: its own, its connection's, or what holds for the type of market."""
    return calendars_of(tx, connection_id).get(symbol, market_type)


class Calendars:
    """All calendars of one connection."""

    def __init__(self, own: Mapping[str, Calendar]) -> None:
        self._own = own

    def get(self, symbol: str, market_type: str) -> Calendar:
        """Return the calendar of a symbol: its own, its connection's, or what holds for the type of market."""
        own = self._own.get(symbol) or self._own.get(WHOLE_CONNECTION)
        return default_calendar(market_type) if own is None else own


def calendars_of(tx: Connection, connection_id: int) -> Calendars:
    """Return the calendars of a connection."""
    rows = fetch(tx, "SELECT symbol, spec FROM calendars WHERE connection_id = ?", (connection_id,))
    return Calendars({symbol: _read(spec) for symbol, spec in rows})


def all_calendars(tx: Connection) -> dict[int, Calendars]:
    """Return the calendars of every connection that has some of its own, by its id."""
    found: dict[int, dict[str, Calendar]] = defaultdict(dict)
    for connection_id, symbol, spec in fetch(tx, "SELECT connection_id, symbol, spec FROM calendars"):
        found[connection_id][symbol] = _read(spec)
    return {connection_id: Calendars(own) for connection_id, own in found.items()}


def put_calendar(
    tx: Connection, connection_id: int, symbol: str, calendar: MarketCalendar, *, origin: Origin, now_us: int,
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """Store a calendar in place of what there was."""
    mine = (calendars.c.connection_id == connection_id, calendars.c.symbol == symbol)
    tx.execute(calendars.delete().where(*mine))
    tx.execute(calendars.insert().values(
        connection_id=connection_id, symbol=symbol, spec=calendar.as_spec(), origin=origin, evidence=dict(evidence or {}),
        updated_at_us=now_us))


def drop_calendar(tx: Connection, connection_id: int, symbol: str) -> bool:
    """Forget a calendar; whether there was one."""
    mine = (calendars.c.connection_id == connection_id, calendars.c.symbol == symbol)
    return tx.execute(calendars.delete().where(*mine)).rowcount > 0


def list_calendars(tx: Connection, connection: str | None = None) -> list[CalendarRow]:
    """Return the stored calendars by connection and symbol."""
    query = select(calendars, connections.c.slug).join_from(calendars, connections).order_by(
        connections.c.slug, calendars.c.symbol)
    if connection is not None:
        query = query.where(connections.c.slug == connection)
    return [CalendarRow(row["slug"], row["symbol"], row["spec"], row["origin"], row["evidence"], row["updated_at_us"])
            for row in tx.execute(query).mappings()]


def _read(spec: object) -> MarketCalendar:
    return _parsed(spec if isinstance(spec, str) else json.dumps(spec))


@lru_cache(maxsize=512)
def _parsed(spec: str) -> MarketCalendar:
    return MarketCalendar.from_spec(json.loads(spec))

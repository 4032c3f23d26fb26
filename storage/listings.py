"""The life of symbols at their providers: listed, gone, renamed, or used again for another asset.

A series keeps its symbol for ever; what the provider is asked for is `asked_as`. A ticker that is used again gets a series
of its own (`LUNA/USDT#2`), so that two assets are never joined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from core.clock import isoformat
from core.errors import NotFoundError, TickerReusedError
from storage.metadata.tables_market import listings
from storage.statements import Row, fetch

ListingStatus = Literal["listed", "missing", "delisted", "conflict"]
_COLUMNS = ("id", "connection_id", "symbol", "asked_as", "generation", "status", "market_id", "listed_us", "missing_since_us",
            "delisted_us", "claim", "first_seen_us", "last_seen_us")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM listings"  # noqa: S608  column names


@dataclass(frozen=True, slots=True)
class Listing:
    """One symbol of a connection. `claim` is what the provider shows under its name now, while nobody has decided."""

    id: int
    connection_id: int
    symbol: str
    asked_as: str
    generation: int
    status: ListingStatus
    market_id: str | None
    listed_us: int | None
    missing_since_us: int | None
    delisted_us: int | None
    claim: Mapping[str, Any] | None
    first_seen_us: int
    last_seen_us: int

    def check(self, slug: str) -> None:
        """Refuse to go on where the ticker may name another asset by now.

        Raises:
            TickerReusedError: says what was seen and which two commands decide.
        """
        if self.status == "conflict":
            shown = "; ".join(f"{key} {value}" for key, value in sorted((self.claim or {}).items()) if key != "why")
            why = (self.claim or {}).get("why", "it is not what it was")
            raise TickerReusedError(
                f"{slug} {self.symbol}: received a ticker that may name another asset: {why} (now {shown}); allowed: the asset of "
                f"its stored candles; run: candlelake listings same {slug} {self.symbol!r}, or: candlelake listings anew "
                f"{slug} {self.symbol!r}")


def find_listing(tx: Connection, connection_id: int, symbol: str) -> Listing | None:
    """Return what is known of a symbol's life, None when it was never looked at."""
    rows = fetch(tx, f"{_SELECT} WHERE connection_id = ? AND symbol = ?", (connection_id, symbol))
    return _listing(rows[0]) if rows else None


def listings_of(tx: Connection, connection_id: int) -> dict[str, Listing]:
    """Return what is known of a connection's symbols, by our symbol."""
    rows = fetch(tx, f"{_SELECT} WHERE connection_id = ? ORDER BY symbol", (connection_id,))
    return {item.symbol: item for item in map(_listing, rows)}


def delisted(tx: Connection) -> set[tuple[int, str]]:
    """Return connection and symbol of all that is delisted."""
    return {(connection_id, symbol) for connection_id, symbol in
            fetch(tx, "SELECT connection_id, symbol FROM listings WHERE status = 'delisted'")}


def get_listing(tx: Connection, connection_id: int, symbol: str) -> Listing:
    """Return what is known of a symbol's life; NotFoundError when it was never looked at."""
    found = find_listing(tx, connection_id, symbol)
    if found is None:
        raise NotFoundError(f"nothing is known of the listing of {symbol!r}; see: candlelake listings show")
    return found


def put_listing(tx: Connection, connection_id: int, symbol: str, **values: Any) -> None:
    """Change what is known of a symbol, or add it; columns that are not named keep their values."""
    mine = (listings.c.connection_id == connection_id, listings.c.symbol == symbol)
    if tx.execute(select(listings.c.id).where(*mine)).first() is None:
        full = {"asked_as": symbol, "generation": 1, "status": "listed", **values}
        tx.execute(listings.insert().values(connection_id=connection_id, symbol=symbol, **full))
    else:
        tx.execute(listings.update().where(*mine).values(**values))


def list_listings(tx: Connection, connection: str | None = None) -> list[tuple[str, Listing]]:
    """Return slug and listing of every symbol that was looked at."""
    columns = ", ".join(f"l.{name}" for name in _COLUMNS)
    sql = f"SELECT c.slug, {columns} FROM listings l JOIN connections c ON c.id = l.connection_id"  # noqa: S608  names
    rows = fetch(tx, f"{sql} ORDER BY c.slug, l.symbol")
    return [(row[0], _listing(row[1:])) for row in rows if connection in {None, row[0]}]


def describe(listing: Listing) -> dict[str, object]:
    """Return a listing as JSON-ready values with ISO instants."""
    out: dict[str, object] = {name: getattr(listing, name) for name in _COLUMNS if name not in {"id", "connection_id"}}
    for name in _COLUMNS:
        if name.endswith("_us"):
            value = getattr(listing, name)
            out[name.removesuffix("_us")] = None if value is None else isoformat(value)
            out.pop(name, None)
    return out


def _listing(row: Row) -> Listing:
    values = dict(zip(_COLUMNS, row, strict=True))
    claim = values["claim"]
    values["claim"] = json.loads(claim) if isinstance(claim, str) else claim
    return Listing(**values)


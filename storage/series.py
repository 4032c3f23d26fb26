"""The series of the store: one row for each connection, symbol and timeframe that is kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, exists, select

from core.clock import MINUTE_US, SystemClock
from core.errors import NotFoundError
from core.series import Series, check_symbol
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage.lake.layout import encode_symbol
from storage.metadata.tables import connections, gaps, head_candles, lake_files, quarantine, series
from storage.statements import fetch, insert_into

_QUARTER_US = 15 * MINUTE_US
_FIND = ("SELECT s.id, s.connection_id, s.is_active, s.first_us, s.last_us, s.settle_seconds, s.fetched_at_us, s.next_due_us"
         " FROM series s JOIN connections c ON c.id = s.connection_id WHERE c.slug = ? AND s.symbol = ? AND s.timeframe = ?")


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series as stored. `first_us` and `last_us` are its first and last stored candle, None when it has none."""

    id: int
    connection_id: int
    series: Series
    is_active: bool
    first_us: int | None
    last_us: int | None
    settle_seconds: float | None
    fetched_at_us: int | None
    next_due_us: int


def ensure_series(tx: Connection, connection_id: int, symbol: str, timeframe: str | Timeframe,
                  now_us: int | None = None) -> SeriesRow:
    """Return the series, added when it is not there yet.

    Raises:
        InputError: the symbol or the timeframe cannot name a series.
        NotFoundError: no connection has that id.
    """
    length = timeframe if isinstance(timeframe, Timeframe) else Timeframe.parse(timeframe)
    encode_symbol(check_symbol(symbol))
    wanted = (series.c.connection_id == connection_id, series.c.symbol == symbol, series.c.timeframe == length.name)
    found = tx.execute(_joined().where(*wanted)).first()
    if found is not None:
        return _row(*found)
    if tx.execute(select(connections.c.id).where(connections.c.id == connection_id)).first() is None:
        raise NotFoundError(f"no connection has the id {connection_id}; add the connection before its series")
    values = {"connection_id": connection_id, "symbol": symbol, "timeframe": length.name, "is_active": True,
              "created_at_us": SystemClock().now_us() if now_us is None else now_us}
    tx.execute(insert_into(tx, series).values(values).on_conflict_do_nothing())
    return _row(*tx.execute(_joined().where(*wanted)).one())


def drop_untouched(tx: Connection, series_id: int) -> None:
    """Remove a series that has never had a candle, a gap or a rejected row; any other stays."""
    held = (exists().where(table.c.series_id == series_id) for table in (gaps, head_candles, lake_files, quarantine))
    tx.execute(series.delete().where(series.c.id == series_id, series.c.first_us.is_(None), *(~one for one in held)))


def find_series(tx: Connection, key: Series) -> SeriesRow:
    """Return the row of a series; NotFoundError when it is not in the store."""
    found = fetch(tx, _FIND, (key.connection, key.symbol, key.timeframe.name))  # plain SQL: each read begins with it
    if not found:
        raise NotFoundError(f"no series {key} in the store; `candlelake coverage` lists what there is")
    series_id, connection_id, is_active, *rest = found[0]
    return SeriesRow(series_id, connection_id, key, bool(is_active), *rest)


def get_series(tx: Connection, series_id: int) -> SeriesRow:
    """Return the row of a series by its id; NotFoundError when there is none."""
    found = tx.execute(_joined().where(series.c.id == series_id)).first()
    if found is None:
        raise NotFoundError(f"no series has the id {series_id}; `candlelake coverage` lists what there is")
    return _row(*found)


def list_series(tx: Connection, connection: str | None = None, symbol: str | None = None,
                timeframe: str | Timeframe | None = None, only_active: bool = False, *,
                only: Collection[int] | None = None, among: Collection[str] | None = None) -> list[SeriesRow]:
    """Return the series that match all that is given, by connection, symbol and timeframe.

    `only_active` leaves out series that are switched off, and those of inactive connections; `only` holds some hundred ids at most,
    `among` some hundred slugs of connections.
    """
    query = _joined()
    if connection is not None:
        query = query.where(connections.c.slug == connection)
    if symbol is not None:
        query = query.where(series.c.symbol == symbol)
    if timeframe is not None:
        query = query.where(series.c.timeframe == Timeframe.parse(str(timeframe)).name)
    if only is not None:
        query = query.where(series.c.id.in_(only))
    if among is not None:
        query = query.where(connections.c.slug.in_(among))
    if only_active:
        query = query.where(series.c.is_active, connections.c.is_active)
    return sorted((_row(*item) for item in tx.execute(query)), key=lambda row: row.series)


def grid_of(tx: Connection, row: SeriesRow) -> Grid:
    """Return the open times of a series; a broker's clock in its connection's config cuts them.

    Raises:
        InputError: the config's `server_clock` cannot be read.
    """
    return grids_of(tx, [row])[row.id]


def grids_of(tx: Connection, rows: Sequence[SeriesRow]) -> dict[int, Grid]:
    """Do `grid_of` for many series at once, by their id."""
    by_connection: dict[int, ServerClock | None] = {}
    if any(_QUARTER_US % row.series.timeframe.length_us for row in rows):  # what parts a quarter hour every clock cuts alike
        by_connection = {key: ServerClock.from_config(config) for key, config in tx.execute(
            select(connections.c.id, connections.c.config))}
    return {row.id: Grid(row.series.timeframe, by_connection.get(row.connection_id)) for row in rows}


def mark_fetched(tx: Connection, series_id: int, fetched_at_us: int, next_due_us: int) -> None:
    """Note that a fetch of the series ended well, and when the next one is due."""
    tx.execute(series.update().where(series.c.id == series_id).values(
        fetched_at_us=fetched_at_us, next_due_us=next_due_us))


def _joined() -> Select[Any]:
    kept = series.c
    return select(kept.id, kept.connection_id, connections.c.slug, kept.symbol, kept.timeframe, kept.is_active, kept.first_us, kept.last_us,
                  kept.settle_seconds, kept.fetched_at_us, kept.next_due_us).join_from(series, connections)


def _row(series_id: int, connection_id: int, slug: str, symbol: str, timeframe: str, is_active: bool, *times: Any) -> SeriesRow:  # noqa: PLR0917  as selected
    return SeriesRow(series_id, connection_id, Series(slug, symbol, Timeframe.parse(timeframe)), is_active, *times)

"""Which series others are made of: retention must not take the only source of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection

from core.clock import EARLIEST_US, isoformat
from core.derive import Derivation, derivation
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.lake.place import Place
from storage.lake.reader import stored_slots
from storage.series import SeriesRow, find_series, grids_of, list_series
from storage.statements import execute_many, fetch


@dataclass(frozen=True, slots=True)
class DerivationRow:
    """A derived timeframe that somebody declared to need: retention keeps what it is made of."""

    connection: str
    symbol: str
    timeframe: str
    derive_from: str
    anchor: str


def declare_derivation(tx: Connection, key: Series, timeframe: str, anchor: str, now_us: int) -> DerivationRow:
    """Declare that `timeframe` is read derived from the series `key`; the same again changes nothing.

    Raises:
        InputError: it cannot be derived. NotFoundError: no such series.
    """
    find_series(tx, key)  # what is not stored keeps nothing: a typo would leave the true source to retention
    derivation(key.timeframe.name, timeframe, "utc" if anchor == "server" else anchor)
    found = fetch(tx, "SELECT id FROM connections WHERE slug = ?", (key.connection,))
    execute_many(tx, "INSERT INTO derivations (connection_id, symbol, timeframe, derive_from, anchor, created_at_us)"
                     " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (connection_id, symbol, timeframe, anchor)"
                     " DO UPDATE SET derive_from = excluded.derive_from",
                 [(found[0][0], key.symbol, timeframe, key.timeframe.name, anchor, now_us)])
    return DerivationRow(key.connection, key.symbol, timeframe, key.timeframe.name, anchor)


def shortest_base(tx: Connection, connection: str, symbol: str) -> Series:
    """Return the symbol's series of the shortest timeframe.

    Raises:
        NotFoundError: it has none.
    """
    rows = list_series(tx, connection, symbol)
    if not rows:
        raise NotFoundError(f"no series of {connection} {symbol}; see candlelake coverage {connection}")
    return min((row.series for row in rows), key=lambda key: key.timeframe.length_us)


def drop_derivation(tx: Connection, connection: str, symbol: str, timeframe: str, *, anchor: str) -> None:
    """Take a declaration back; InputError when there is none."""
    if not any((row.connection, row.symbol, row.timeframe, row.anchor) == (connection, symbol, timeframe, anchor)
               for row in list_derivations(tx)):
        raise InputError("derivation", f"{connection} {symbol} {timeframe} at {anchor}", "one of `candlelake derivations list`", "name one of them")
    execute_many(tx, "DELETE FROM derivations WHERE symbol = ? AND timeframe = ? AND anchor = ?"
                     " AND connection_id = (SELECT id FROM connections WHERE slug = ?)", [(symbol, timeframe, anchor, connection)])


def list_derivations(tx: Connection, connection: str | None = None) -> list[DerivationRow]:
    """Return what is declared, by connection, symbol and timeframe."""
    rows = fetch(tx, "SELECT c.slug, d.symbol, d.timeframe, d.derive_from, d.anchor FROM derivations d"
                     " JOIN connections c ON c.id = d.connection_id ORDER BY 1, 2, 3, 5")
    return [DerivationRow(*row) for row in rows if connection in {None, row[0]}]


def reason_to_keep(place: Place, row: SeriesRow, before_us: int) -> str | None:
    """Return why retention must not take this series' candles below `before_us`; None when nothing else needs them."""
    key = row.series
    with place.metadata.read() as tx:
        declared = [item for item in list_derivations(tx, key.connection)
                    if (item.symbol, item.derive_from) == (key.symbol, key.timeframe.name)]
        longer = [item for item in list_series(tx, key.connection, key.symbol) if item.is_active and _is_made_of(item, key.timeframe)]
        grids = grids_of(tx, longer)
        cuts: dict[int, int] = {
            row[0]: row[1] for row in fetch(tx, "SELECT series_id, max(before_us) FROM retentions GROUP BY series_id")}
    if declared:
        names = ", ".join(f"{item.timeframe} ({item.anchor})" for item in declared)
        return f"{key} is the only source of {names}, declared as derived; take that back (`candlelake derivations remove`) or force it"
    if not longer:
        return None
    below = stored_slots(place, row.id, Interval(EARLIEST_US, before_us)).to_numpy()
    if len(below) == 0:
        return None
    for item in longer:
        how = Derivation(key.timeframe, item.series.timeframe, "server", grids[item.id].server)
        opens = np.unique(how.open_times(below))
        opens = opens[(opens >= max(int(below[0]), cuts.get(item.id, 0))) & (how.close_of(opens) <= before_us)]
        have = stored_slots(place, item.id, Interval(EARLIEST_US, before_us)).to_numpy()
        missing = opens[~np.isin(opens, have)]
        if len(missing):
            return (f"{key} is the only source of {len(missing)} candles of {item.series.timeframe}, {isoformat(int(missing[0]))} to"
                    f" {isoformat(int(missing[-1]))}: backfill those first, or force it")
    return None


def _is_made_of(row: SeriesRow, base: Timeframe) -> bool:
    length = row.series.timeframe.length_us
    return length > base.length_us and length % base.length_us == 0

"""Derived timeframes as a read option: planned in one snapshot, aggregated when read, never stored."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
from sqlalchemy import Connection, select

from core.clock import LATEST_US
from core.derive import Derivation, derivation, derive
from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from storage.lake.place import Place
from storage.lake.reader import Pin, pin, read_pin
from storage.lake.revisions import as_known, changed_after
from storage.ledger import booked_in
from storage.metadata.tables import connections
from storage.series import find_series
from storage.statements import Row

EXPLAINING = frozenset({"no_trade", "market_closed"})  # with these a derived candle lacks nothing


@dataclass(frozen=True, slots=True)
class DerivedPlan:
    """What one snapshot holds of the parts, and how to put them together."""

    how: Derivation
    span: Interval
    pinned: Pin
    explained: list[Interval]
    as_of_us: int | None
    later: list[Row]


def plan_derived(tx: Connection, key: Series, timeframe: str, interval: Interval, anchor: str = "utc", *,
                 as_of_us: int | None = None) -> DerivedPlan:
    """Plan `timeframe` from the stored series `key`; `interval` is of the derived candles' open times.

    Raises:
        NotFoundError: no such series. InputError: a timeframe or an anchor that cannot be derived from it.
    """
    row = find_series(tx, key)
    how = derivation(key.timeframe.name, timeframe, anchor, server_clock_of(tx, row.connection_id))
    stored = Interval(row.first_us or 0, max(row.first_us or 0, (row.last_us or 0) + 1))
    clipped = interval.intersect(Interval(max(0, stored.start - 2 * how.target.length_us), min(LATEST_US, stored.end + 2 * how.target.length_us)))
    span = how.whole(clipped) if clipped is not None else Interval(interval.start, interval.start)
    explained = [gap.interval for gap in booked_in(tx, row.id, span) if gap.cause in EXPLAINING]
    later = [] if as_of_us is None else changed_after(tx, row.id, span, as_of_us)
    return DerivedPlan(how, span, pin(tx, row.id, span), explained, as_of_us, later)


def read_derived(place: Place, plan: DerivedPlan) -> pl.DataFrame:
    """Return the derived candles of a plan: `core.derive.DERIVED_SCHEMA`, ascending."""
    parts = read_pin(place, plan.pinned, plan.span)
    if plan.as_of_us is not None:
        parts = as_known(parts, plan.later, plan.as_of_us)
    return derive(parts, plan.how, plan.explained)


def server_clock_of(tx: Connection, connection_id: int) -> ServerClock | None:
    """Return the broker's clock in a connection's config, None when it has none."""
    config = tx.execute(select(connections.c.config).where(connections.c.id == connection_id)).scalar_one()
    return ServerClock.from_config(config)

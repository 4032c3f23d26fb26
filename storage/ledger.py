"""The gap ledger: every slot that is expected and not stored, with its cause, its proof and its next try."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlalchemy import Connection, select

from core.errors import InputError
from core.interval import Interval, intersect, merge, runs, subtract
from core.series import Series
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage.metadata.store import MetadataStore
from storage.metadata.tables import connections, gaps, series
from storage.series import SeriesRow, grids_of, list_series
from storage.statements import Row, execute_many, fetch, marks

CAUSES = ("no_trade", "market_closed", "provider_empty", "fetch_failed", "out_of_reach", "before_listing",
          "after_delisting", "unknown")
_COLUMNS = "series_id, start_us, end_us, cause, attempts, first_seen_us, last_seen_us, next_try_us, proof"
_INSERT = f"INSERT INTO gaps ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  column names


@dataclass(frozen=True, slots=True)
class Gap:
    """A range of slots that are not stored. `next_try_us` None means final; `first_seen_us` 0 means now."""

    series_id: int
    interval: Interval
    cause: str
    attempts: int = 1
    first_seen_us: int = 0
    last_seen_us: int = 0
    next_try_us: int | None = None
    proof: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.cause not in CAUSES:
            raise InputError("cause", self.cause, CAUSES, "a gap needs one of them")


@dataclass(frozen=True, slots=True)
class GapRow(Gap):
    """A booked gap with the series that it belongs to."""

    series: Series = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """What a series holds of the slots from its first stored or booked one to its last, counted in slots.

    `expected = stored + explained + unexplained`; every cause but `unknown` explains. `first_us` and `last_us` are the
    first and last stored candle.
    """

    series: Series
    first_us: int | None
    last_us: int | None
    expected: int
    stored: int
    explained: int
    unexplained: int


class StoredSlots(Protocol):
    """What `coverage` needs of a lake."""

    @property
    def metadata(self) -> MetadataStore:
        """The metadata store."""

    def stored_slots(self, series_id: int, interval: Interval) -> Iterable[int]:
        """Return the open times stored in `interval`, ascending."""


def book_gaps(tx: Connection, new: Iterable[Gap], now_us: int) -> None:
    """Book gaps, merged with what is booked, slot by slot.

    Where one of the same cause is booked already, its attempts add up and it keeps when it was first seen; a gap of
    another cause loses the part that the new one covers. Neighbours that say the same are one row.
    """
    by_series: dict[int, list[Gap]] = defaultdict(list)
    for gap in new:
        if not gap.interval.is_empty:
            by_series[gap.series_id].append(gap)
    for series_id, items in sorted(by_series.items()):
        span = Interval(min(gap.interval.start for gap in items), max(gap.interval.end for gap in items))
        before = booked_in(tx, series_id, span)
        after = before
        for gap in sorted(items, key=lambda item: item.interval):
            after = _booked(after, gap, now_us)
        _store(tx, series_id, before, _joined(after))


def clear_stored(tx: Connection, series_id: int, slots: Sequence[int], grid: Grid) -> None:
    """Take slots (ascending) that are stored now out of the ledger."""
    if not slots:
        return
    before = booked_in(tx, series_id, Interval(slots[0], slots[-1] + 1))
    if not before:
        return
    filled = _candles(slots, grid)
    if filled:
        _store(tx, series_id, before, _without(before, filled))


def clear_range(tx: Connection, series_id: int, interval: Interval) -> None:
    """Take a whole range out of the ledger: what lies there is no longer expected."""
    before = booked_in(tx, series_id, interval)
    _store(tx, series_id, before, _without(before, [interval]))


def booked_in(tx: Connection, series_id: int, interval: Interval) -> list[Gap]:
    """Return one series' booked gaps that overlap or touch `interval`, ascending."""
    sql = (f"SELECT {_COLUMNS} FROM gaps WHERE series_id = ? AND start_us <= ? AND end_us >= ?"  # noqa: S608  column names
           # Gaps are disjoint: of those that begin before the interval only the last one can reach it.
           " AND start_us >= COALESCE((SELECT MAX(start_us) FROM gaps WHERE series_id = ? AND start_us < ?), 0)"
           " ORDER BY start_us")
    rows = fetch(tx, sql, (series_id, interval.end, interval.start, series_id, interval.start))
    return [_gap(row) for row in rows]


def list_gaps(tx: Connection, connection: str | None = None, symbol: str | None = None,
              timeframe: str | Timeframe | None = None, due_before_us: int | None = None) -> list[GapRow]:
    """Return booked gaps, by series and time; with `due_before_us` only those to be tried again before it."""
    query = select(gaps, connections.c.slug, series.c.symbol, series.c.timeframe).join_from(gaps, series).join(connections)
    if connection is not None:
        query = query.where(connections.c.slug == connection)
    if symbol is not None:
        query = query.where(series.c.symbol == symbol)
    if timeframe is not None:
        query = query.where(series.c.timeframe == Timeframe.parse(str(timeframe)).name)
    if due_before_us is not None:
        query = query.where(gaps.c.next_try_us <= due_before_us)
    rows = [GapRow(
        series_id=row["series_id"], interval=Interval(row["start_us"], row["end_us"]), cause=row["cause"],
        attempts=row["attempts"], first_seen_us=row["first_seen_us"], last_seen_us=row["last_seen_us"],
        next_try_us=row["next_try_us"], proof=row["proof"],
        series=Series(row["slug"], row["symbol"], Timeframe.parse(row["timeframe"])),
    ) for row in tx.execute(query).mappings()]
    return sorted(rows, key=lambda row: (row.series, row.interval))


def coverage(lake: StoredSlots, connection: str | None = None, symbol: str | None = None,
             timeframe: str | Timeframe | None = None,
             servers: Mapping[str, ServerClock] | None = None) -> list[CoverageRow]:
    """Count, for each series, what is expected, stored and explained, from the contents of the store.

    Args:
        lake: the lake.
        connection: only this connection's series; likewise `symbol` and `timeframe`.
        symbol: see there.
        timeframe: see there.
        servers: brokers' clocks by connection, in place of those that the connections' configs hold.
    """
    with lake.metadata.read() as tx:
        rows = list_series(tx, connection, symbol, timeframe)
        booked = booked_of(tx, [row.id for row in rows])
        grids = grids_of(tx, rows)
    for row in rows:
        if servers and row.series.connection in servers:
            grids[row.id] = Grid(row.series.timeframe, servers[row.series.connection])
    return [_covered(lake, row, booked.get(row.id, []), grids[row.id]) for row in rows]


def booked_of(tx: Connection, series_ids: Sequence[int]) -> dict[int, list[Gap]]:
    """Return the booked gaps of many series, by series id, ascending; series without gaps are left out."""
    out: dict[int, list[Gap]] = defaultdict(list)
    for start in range(0, len(series_ids), 500):
        part = series_ids[start:start + 500]
        sql = f"SELECT {_COLUMNS} FROM gaps WHERE series_id IN ({marks(part)}) ORDER BY series_id, start_us"  # noqa: S608  marks only
        for row in fetch(tx, sql, part):
            out[row[0]].append(_gap(row))
    return dict(out)


def _gap(row: Row) -> Gap:
    series_id, first, end, cause, attempts, first_seen, last_seen, next_try, proof = row
    known = json.loads(proof) if isinstance(proof, str) else proof
    return Gap(series_id, Interval(first, end), cause, attempts, first_seen, last_seen, next_try, known)


def _covered(lake: StoredSlots, row: SeriesRow, booked: list[Gap], grid: Grid) -> CoverageRow:
    marks_us = [us for us in (row.first_us, row.last_us) if us is not None]
    marks_us += [us for gap in booked for us in (gap.interval.start, gap.interval.end - 1)]
    if not marks_us:
        return CoverageRow(row.series, row.first_us, row.last_us, 0, 0, 0, 0)
    whole = Interval(grid.floor(min(marks_us)), grid.next(max(marks_us)))
    stored = [int(slot) for slot in lake.stored_slots(row.id, whole)]
    explaining = merge(gap.interval for gap in booked if gap.cause != "unknown")
    explained = sum(grid.count(part) - (bisect_left(stored, part.end) - bisect_left(stored, part.start))
                    for part in intersect(explaining, [whole]))
    expected = grid.count(whole)
    return CoverageRow(row.series, row.first_us, row.last_us, expected, len(stored), explained,
                       expected - len(stored) - explained)


def _candles(slots: Sequence[int], grid: Grid) -> list[Interval]:
    length = grid.timeframe.length_us
    if grid.is_even:
        return list(runs(slots, length))
    # A broker's days need not lie on the grid that we were given: then the name of the timeframe says the length.
    return merge(Interval(slot, grid.next(slot) if grid.is_on(slot) else slot + length) for slot in slots)


def _booked(booked: list[Gap], new: Gap, now_us: int) -> list[Gap]:
    """Return `booked` with `new` in it; the slots that were booked before keep their history."""
    fresh = replace(new, first_seen_us=new.first_seen_us or now_us, last_seen_us=now_us, proof=dict(new.proof))
    out, rest = _without(booked, [new.interval]), [new.interval]
    for gap in booked:
        both = gap.interval.intersect(new.interval)
        if both is not None and gap.cause == new.cause:
            out.append(replace(
                fresh, interval=both, attempts=gap.attempts + new.attempts, first_seen_us=gap.first_seen_us))
            rest = subtract(rest, [both])
    out += [replace(fresh, interval=part) for part in rest]
    return sorted(out, key=lambda gap: gap.interval)


def _joined(booked: list[Gap]) -> list[Gap]:
    out: list[Gap] = []
    for gap in booked:
        last = out[-1] if out else None
        if last is not None and last.interval.end == gap.interval.start and _says_the_same(last, gap):
            out[-1] = replace(last, interval=Interval(last.interval.start, gap.interval.end),
                              last_seen_us=max(last.last_seen_us, gap.last_seen_us))
        else:
            out.append(gap)
    return out


def _says_the_same(left: Gap, right: Gap) -> bool:
    if left.cause == right.cause == "market_closed":  # a weekend is one row, however often it was looked at
        return left.proof == right.proof
    return replace(left, interval=right.interval) == right


def _without(booked: list[Gap], holes: list[Interval]) -> list[Gap]:
    return [replace(gap, interval=part) for gap in booked for part in subtract([gap.interval], holes)]


def _store(tx: Connection, series_id: int, before: list[Gap], after: list[Gap]) -> None:
    known = {gap.interval: gap for gap in after}
    kept = {gap.interval: gap for gap in before if known.get(gap.interval) == gap}
    execute_many(tx, "DELETE FROM gaps WHERE series_id = ? AND start_us = ?",
                 [(series_id, gap.interval.start) for gap in before if gap.interval not in kept])
    execute_many(tx, _INSERT, [
        (series_id, gap.interval.start, gap.interval.end, gap.cause, gap.attempts, gap.first_seen_us,
         gap.last_seen_us, gap.next_try_us, json.dumps(dict(gap.proof), sort_keys=True))
        for gap in after if gap.interval not in kept])

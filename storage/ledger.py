"""The gap ledger: every slot that is expected and not stored, with its cause, its proof and its next try."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection

from core.errors import InputError
from core.interval import Interval, meeting, merge, runs, subtract
from core.series import Series
from core.timeframe import Grid, Timeframe
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
        for layer in _layers(items):
            after = _booked(after, layer, now_us)
        _store(tx, series_id, before, _joined(after))


def clear_stored(tx: Connection, series_id: int, slots: Sequence[int], grid: Grid) -> None:
    """Take slots (ascending) that are stored now out of the ledger."""
    if not slots:
        return
    before = booked_in(tx, series_id, Interval(slots[0], slots[-1] + 1))
    if not before:
        return
    filled = candle_runs(slots, grid)
    if filled:
        _store(tx, series_id, before, _without(before, filled))


def clear_range(tx: Connection, series_id: int, interval: Interval) -> None:
    """Take a whole range out of the ledger: what lies there is no longer expected."""
    before = booked_in(tx, series_id, interval)
    _store(tx, series_id, before, _without(before, [interval]))


def clear_cause(tx: Connection, series_ids: Sequence[int], cause: str) -> None:
    """Take every gap of one cause out of the ledger of these series: it was no reason after all."""
    execute_many(tx, "DELETE FROM gaps WHERE series_id = ? AND cause = ?", [(key, cause) for key in series_ids])


def booked_in(tx: Connection, series_id: int, interval: Interval) -> list[Gap]:
    """Return one series' booked gaps that overlap or touch `interval`, ascending."""
    sql = (f"SELECT {_COLUMNS} FROM gaps WHERE series_id = ? AND start_us <= ? AND end_us >= ?"  # noqa: S608  column names
           # Gaps are disjoint: of those that begin before the interval only the last one can reach it.
           " AND start_us >= COALESCE((SELECT MAX(start_us) FROM gaps WHERE series_id = ? AND start_us < ?), 0)"
           " ORDER BY start_us")
    rows = fetch(tx, sql, (series_id, interval.end, interval.start, series_id, interval.start))
    return [_gap(row) for row in rows]


def list_gaps(tx: Connection, connection: str | None = None, symbol: str | None = None,
              timeframe: str | Timeframe | None = None, due_before_us: int | None = None, *,
              within: Interval | None = None, cause: str | None = None, newest: int | None = None, skip: int = 0) -> list[GapRow]:
    """Return booked gaps, by series and time.

    Args:
        tx: a transaction.
        connection: only this connection's gaps; likewise `symbol` and `timeframe`.
        symbol: see there.
        timeframe: see there.
        due_before_us: only those to be tried again before it.
        within: only those that touch this range.
        cause: only those with it.
        newest: only so many, those that begin last.
        skip: with `newest`, so many that begin later are left out: the pages before.
    """
    wanted, values = ["1 = 1"], list[object]()
    for condition, value in (
        ("c.slug = ?", connection), ("s.symbol = ?", symbol),
        ("s.timeframe = ?", None if timeframe is None else Timeframe.parse(str(timeframe)).name),
        ("g.next_try_us <= ?", due_before_us), ("g.cause = ?", cause),
        ("g.start_us < ?", None if within is None else within.end),
        ("g.end_us > ?", None if within is None else within.start),
    ):
        if value is not None:
            wanted.append(condition)
            values.append(value)
    columns = ", ".join(f"g.{name}" for name in _COLUMNS.split(", "))
    sql = (f"SELECT {columns}, c.slug, s.symbol, s.timeframe FROM gaps g JOIN series s ON s.id = g.series_id"  # noqa: S608  names
           f" JOIN connections c ON c.id = s.connection_id WHERE {' AND '.join(wanted)} ORDER BY ")
    if newest is None:
        sql += "g.series_id, g.start_us"
    else:
        sql += "g.start_us DESC, g.series_id DESC LIMIT ? OFFSET ?"
        values += [newest, skip]
    keys: dict[int, Series] = {}
    by_series: dict[int, list[GapRow]] = defaultdict(list)
    for row in fetch(tx, sql, values):
        gap = _gap(row[:9])
        key = keys.setdefault(gap.series_id, Series(row[9], row[10], Timeframe.parse(row[11])))
        by_series[gap.series_id].append(GapRow(
            gap.series_id, gap.interval, gap.cause, gap.attempts, gap.first_seen_us, gap.last_seen_us, gap.next_try_us,
            gap.proof, series=key))
    return [gap for series_id in sorted(by_series, key=lambda number: keys[number])
            for gap in sorted(by_series[series_id], key=lambda gap: gap.interval.start)]


def waiting_since(tx: Connection, series_id: int, now_us: int) -> int | None:
    """Return where the first range begins that a run left behind and nobody has asked for since; None: there is none."""
    rows = fetch(tx, "SELECT MIN(start_us) FROM gaps WHERE series_id = ? AND next_try_us <= ? AND cause = 'unknown'"
                     " AND attempts = 0", (series_id, now_us))
    first = rows[0][0]
    return None if first is None else int(first)


def count_booked(tx: Connection, series_id: int, interval: Interval, causes: Iterable[str]) -> int:
    """Return how many booked ranges of one series reach into `interval` and have one of `causes`."""
    names = list(causes)
    return int(fetch(tx, "SELECT COUNT(*) FROM gaps WHERE series_id = ? AND start_us < ? AND end_us > ?"  # noqa: S608  marks only
                         f" AND cause IN ({marks(names)})", (series_id, interval.end, interval.start, *names))[0][0])


def booked_span(tx: Connection, series_id: int) -> Interval | None:
    """Return from where to where a series has booked ranges; None: nothing is booked."""
    first, end = fetch(tx, "SELECT MIN(start_us), MAX(end_us) FROM gaps WHERE series_id = ?", (series_id,))[0]
    return None if first is None else Interval(int(first), int(end))


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


def candle_runs(slots: Sequence[int], grid: Grid) -> list[Interval]:
    """Return the time that the candles opening at `slots` (ascending) cover."""
    length = grid.timeframe.length_us
    if grid.is_even:
        return list(runs(slots, length))
    # A broker's days need not lie on the grid that we were given: then the name of the timeframe says the length.
    return merge(Interval(slot, grid.next(slot) if grid.is_on(slot) else slot + length) for slot in slots)


def _layers(items: Sequence[Gap]) -> list[list[Gap]]:
    """Return the gaps, ascending, in as few lists as it takes for those of one list to be disjoint: nearly always one."""
    layers: list[list[Gap]] = []
    for gap in sorted(items, key=lambda item: item.interval):
        for layer in layers:
            if layer[-1].interval.end <= gap.interval.start:
                layer.append(gap)
                break
        else:
            layers.append([gap])
    return layers


def _booked(booked: list[Gap], news: Sequence[Gap], now_us: int) -> list[Gap]:
    """Return `booked` with `news` (ascending, disjoint) in it; slots booked before keep their history."""
    out = _without(booked, [gap.interval for gap in news])
    for new in news:
        fresh = replace(new, first_seen_us=new.first_seen_us or now_us, last_seen_us=now_us, proof=dict(new.proof))
        same = [(both, gap) for gap in _meeting(booked, new.interval)
                if gap.cause == new.cause and (both := gap.interval.intersect(new.interval)) is not None]
        out += [replace(fresh, interval=both, attempts=gap.attempts + new.attempts, first_seen_us=gap.first_seen_us)
                for both, gap in same]
        out += [replace(fresh, interval=part) for part in subtract([new.interval], [both for both, _ in same])]
    return sorted(out, key=lambda gap: gap.interval)


def _meeting(booked: Sequence[Gap], interval: Interval) -> Sequence[Gap]:
    """Return the gaps (of an ascending, disjoint list) that overlap `interval`."""
    first = bisect_right(booked, interval.start, key=lambda gap: gap.interval.end)
    return booked[first:bisect_left(booked, interval.end, key=lambda gap: gap.interval.start)]


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


def _without(booked: list[Gap], holes: Sequence[Interval]) -> list[Gap]:
    """Return the gaps less the holes; both ascending and disjoint."""
    out = []
    for gap in booked:
        met = meeting(holes, gap.interval)
        out += [replace(gap, interval=part) for part in subtract([gap.interval], met)] if met else [gap]
    return out


def _store(tx: Connection, series_id: int, before: list[Gap], after: list[Gap]) -> None:
    known = {gap.interval: gap for gap in after}
    kept = {gap.interval: gap for gap in before if known.get(gap.interval) == gap}
    execute_many(tx, "DELETE FROM gaps WHERE series_id = ? AND start_us = ?",
                 [(series_id, gap.interval.start) for gap in before if gap.interval not in kept])
    execute_many(tx, _INSERT, [
        (series_id, gap.interval.start, gap.interval.end, gap.cause, gap.attempts, gap.first_seen_us,
         gap.last_seen_us, gap.next_try_us, json.dumps(dict(gap.proof), sort_keys=True))
        for gap in after if gap.interval not in kept])

"""Coverage: what each series holds of what it should, counted from the manifest, the head and the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage.ledger import booked_of
from storage.metadata.store import MetadataStore
from storage.series import SeriesRow, grids_of, list_series
from storage.statements import fetch, marks


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


@dataclass(frozen=True, slots=True)
class Holding:
    """How many candles of a series are stored, as far as the manifest and the head can count them.

    `doubled` is the range in which head and lake overlap: its candles are not in `outside` and have to be read.
    """

    outside: int
    doubled: Interval | None


@dataclass(frozen=True, slots=True)
class Tally:
    """One series' gaps of one cause: how many rows, how much time together, and the span that they lie in."""

    rows: int
    total_us: int
    span: Interval


def coverage(lake: StoredSlots, connection: str | None = None, symbol: str | None = None,
             timeframe: str | Timeframe | None = None,
             servers: Mapping[str, ServerClock] | None = None, *, only: Collection[int] | None = None) -> list[CoverageRow]:
    """Count, for each series, what is expected, stored and explained, from the contents of the store.

    Counts come from the manifest, the head and the ledger; candles are read only where head and lake overlap, since the
    same candle may lie in both.

    Args:
        lake: the lake.
        connection: only this connection's series; likewise `symbol` and `timeframe`.
        symbol: see there.
        timeframe: see there.
        servers: brokers' clocks by connection, in place of those that the connections' configs hold.
        only: of these series, by their ids; some hundreds at most.
    """
    with lake.metadata.read() as tx:
        rows = list_series(tx, connection, symbol, timeframe, only=only)
        ids = [row.id for row in rows]
        tallies = tally_of(tx, ids)
        held = holdings_of(tx, ids)
        grids = grids_of(tx, rows)
    for row in rows:
        if servers and row.series.connection in servers:
            grids[row.id] = Grid(row.series.timeframe, servers[row.series.connection])
    return [_covered(lake, row, tallies.get(row.id, {}), held.get(row.id), grids[row.id]) for row in rows]


def _covered(lake: StoredSlots, row: SeriesRow, tallies: Mapping[str, Tally], held: Holding | None, grid: Grid) -> CoverageRow:
    marks_us = [us for us in (row.first_us, row.last_us) if us is not None]
    marks_us += [us for tally in tallies.values() for us in (tally.span.start, tally.span.end - 1)]
    if not marks_us:
        return CoverageRow(row.series, row.first_us, row.last_us, 0, 0, 0, 0)
    whole = Interval(grid.floor(min(marks_us)), grid.next(max(marks_us)))
    stored = 0 if held is None else held.outside
    if held is not None and held.doubled is not None:
        stored += sum(1 for _ in lake.stored_slots(row.id, held.doubled))
    explaining = [tally for cause, tally in tallies.items() if cause != "unknown"]
    total_us, length = sum(tally.total_us for tally in explaining), grid.timeframe.length_us
    expected = grid.count(whole)
    if grid.is_even and total_us % length == 0:
        explained = total_us // length
    else:  # candles of unequal length have to be counted one by one
        with lake.metadata.read() as tx:
            booked = booked_of(tx, [row.id]).get(row.id, [])
        explained = sum(grid.count(gap.interval) for gap in booked if gap.cause != "unknown")
    return CoverageRow(row.series, row.first_us, row.last_us, expected, stored, explained, expected - stored - explained)


def holdings_of(tx: Connection, series_ids: Sequence[int]) -> dict[int, Holding]:
    """Return what is stored of each series; series without candles are left out."""
    files: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    heads: dict[int, tuple[int, int, int]] = {}
    for start in range(0, len(series_ids), 500):
        part = series_ids[start:start + 500]
        for series_id, *file in fetch(
                tx, "SELECT series_id, first_us, last_us, rows FROM lake_files WHERE superseded_at_us IS NULL"  # noqa: S608  marks only
                    f" AND dataset = 'candles' AND series_id IN ({marks(part)})", part):
            files[series_id].append((file[0], file[1], file[2]))
        for series_id, *head in fetch(
                tx, "SELECT series_id, MIN(first_us), MAX(last_us), SUM(rows) FROM head_candles"  # noqa: S608  marks only
                    f" WHERE series_id IN ({marks(part)}) GROUP BY series_id", part):
            heads[series_id] = (head[0], head[1], int(head[2]))
    return {key: _holding(files.get(key, []), heads.get(key)) for key in files.keys() | heads.keys()}


def _holding(files: Sequence[tuple[int, int, int]], head: tuple[int, int, int] | None) -> Holding:
    if head is None:
        return Holding(sum(rows for _, _, rows in files), None)
    first, last, count = head
    met = [file for file in files if file[0] <= last and file[1] >= first]
    apart = sum(rows for _, _, rows in files) - sum(rows for _, _, rows in met)
    if not met:
        return Holding(apart + count, None)
    return Holding(apart, Interval(min(first, *(file[0] for file in met)), max(last, *(file[1] for file in met)) + 1))


def tally_of(tx: Connection, series_ids: Sequence[int]) -> dict[int, dict[str, Tally]]:
    """Return, by series and cause, what the ledger holds; one pass over its rows in the database."""
    out: dict[int, dict[str, Tally]] = defaultdict(dict)
    for start in range(0, len(series_ids), 500):
        part = series_ids[start:start + 500]
        sql = ("SELECT series_id, cause, COUNT(*), SUM(end_us - start_us), MIN(start_us), MAX(end_us) FROM gaps"  # noqa: S608  marks only
               f" WHERE series_id IN ({marks(part)}) GROUP BY series_id, cause")
        for series_id, cause, count, total, first, end in fetch(tx, sql, part):
            out[series_id][cause] = Tally(int(count), int(total), Interval(first, end))
    return dict(out)

"""Stores candles durably: one transaction with values, watermarks, gaps, revisions and quarantine together.

Candles stay packed on their way (`storage.lake.blocks`): what is new goes from the frame into a block as bytes, and only
candles that may be stored already are looked at one by one.
"""

from __future__ import annotations

import json
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import polars as pl
from sqlalchemy import Connection

from core.candles import SOURCES, VALUES
from core.errors import InputError, NotFoundError
from core.interval import Interval
from storage.incoming import pack_all, plain_rows
from storage.lake.below import LakeRows, Stored
from storage.lake.blocks import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    CANDLE_BYTES,
    Block,
    cut_blocks,
    insert_blocks,
    replace_blocks,
)
from storage.lake.place import Place
from storage.ledger import Gap, book_gaps, clear_stored
from storage.provenance import Brought, Request, note_write
from storage.quarantine import set_aside
from storage.repairs import note_repairs
from storage.series import get_series, grid_of
from storage.statements import Row, execute_many, fetch, is_sqlite, marks

_PART = 500  # bound parameters of one statement stay far below every driver's limit
_COLUMNS = ", ".join(BLOCK_COLUMNS)
_REVISE = ("INSERT INTO revisions (series_id, ts_us, known_at_us, old_known_at_us, old, new)"
           " VALUES (?, ?, ?, ?, ?, ?)"
           # After retention and a clock set back an old change may bear the same instant; the later one wins.
           " ON CONFLICT (series_id, ts_us, known_at_us) DO UPDATE SET old_known_at_us = excluded.old_known_at_us,"
           " old = excluded.old, new = excluded.new")
_values_of = struct.Struct(f"<8x{len(VALUES)}d").unpack  # of a packed candle


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request brought for one series.

    Attributes:
        candles: checked frame of CANDLE_SCHEMA, sorted and unique on ts.
        source: rest | stream | backfill | import.
        gaps: to be booked in the same transaction.
        rejected: frame of CANDLE_SCHEMA and `reason`, for the quarantine.
        request: what was asked for, for the provenance of what is new.
    """

    series_id: int
    candles: pl.DataFrame
    source: str
    gaps: Sequence[Gap] = ()
    rejected: pl.DataFrame | None = None
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch, counted in candles: new, changed (a revision each), same as stored, refused."""

    stored: int
    revised: int
    unchanged: int
    quarantined: int


@dataclass(slots=True)
class _Work:
    """One batch on its way: the open times of its candles, ascending, and the candles, packed."""

    batch: Batch
    times: list[int]
    candles: bytes
    is_unique: bool
    rejected: list[tuple[Row, str]]
    stored: int = 0
    revised: int = 0
    unchanged: int = 0


class _Kept(NamedTuple):
    """What the store says of a series that is written to: first and last candle, and where its last booked gap ends."""

    first_us: int | None
    last_us: int | None
    ledger_end_us: int | None


@dataclass(slots=True)
class _Changes:
    """What one write changes.

    Attributes:
        blocks: rows of the head: a series and what of a block is stored.
        judged: candles that were compared and are new or changed: known at, source and bytes by series and time.
        torn: blocks of the head that lose candles to `judged`, with the times of those, by series.
        revisions: rows of the table.
    """

    blocks: list[Row] = field(default_factory=list)
    judged: dict[int, dict[int, tuple[int, str, bytes]]] = field(default_factory=dict)
    torn: dict[int, dict[Block, list[int]]] = field(default_factory=dict)
    revisions: list[Row] = field(default_factory=list)


def write(place: Place, batches: Sequence[Batch], run_id: str, fence: Callable[[Connection], None] = lambda _tx: None) -> list[Written]:
    """Store the batches in one transaction; when this returns, they are on disk.

    An identical value writes nothing; a different one for a stored candle becomes a revision. Rows that are not finite
    or have no time are quarantined. What `fence` raises, called in the transaction, keeps it from storing anything.

    Raises:
        InputError: a batch names an unknown source. NotFoundError: or an unknown series. Nothing is stored then.
        StoreBusyError, StoreFullError, StoreUnwritableError: nothing is stored.
    """
    for batch in batches:
        if batch.source not in SOURCES:
            raise InputError("source", batch.source, SOURCES, "say where the candles come from")
    if not batches:
        return []
    work = _prepare(batches)
    below = LakeRows(place)
    with place.metadata.write() as tx:
        fence(tx)
        unread = _store(tx, work, below, place.clock.now_us(), run_id)
    if unread:
        below.load(unread)  # Parquet is read while no lock is held; what changes meanwhile is read under it
        for item in work:
            item.stored = item.revised = item.unchanged = 0
        with place.metadata.write() as tx:
            fence(tx)
            _store(tx, work, below, place.clock.now_us(), run_id, may_read=True)
    return [Written(item.stored, item.revised, item.unchanged, len(item.rejected)) for item in work]


def _store(tx: Connection, work: list[_Work], below: LakeRows, now_us: int, run_id: str, *,
           may_read: bool = False) -> dict[str, tuple[int, Interval]]:
    """Store the work; or return the lake files that must be read first, and change nothing."""
    kept = _kept(tx, work)
    ranges = _touching(work, kept)
    old = _head_below(tx, ranges) if ranges else {}
    files = _files_below(tx, _missing(work, ranges, old))
    if any(below.lacks(path, wanted) for path, wanted in files.items()):
        if not may_read:
            return files
        below.load(files)
    old = {**below.rows(files), **old}
    changes = _Changes()
    for item in work:
        series_id, count = item.batch.series_id, len(item.times)
        if series_id not in ranges and 0 < count <= BLOCK_ROWS:  # each of 500 series in a round: new, and one block
            item.stored = count
            changes.blocks.append((series_id, item.times[0], item.times[-1], count, now_us, item.batch.source, run_id, item.candles))
        else:
            _sort_out(item, ranges.get(series_id), old, changes, now_us, run_id)
    _store_changes(tx, kept, changes, run_id)
    for item in work:
        if item.rejected:
            set_aside(tx, item.batch.series_id, item.rejected, run_id, now_us)
    _settle_ledger(tx, work, kept, now_us)
    _note(tx, work, now_us, run_id)
    return {}


def _json_of(row: Stored) -> str:
    """Return what a revision keeps of a candle; a thousand at once are too much for the general encoder."""
    numbers = [f'"{name}": {value!r}' for name, value in zip(VALUES, _values_of(row.candle), strict=True)]  # finite: repr is JSON
    if numbers[-1].endswith("nan"):
        numbers[-1] = f'"{VALUES[-1]}": null'
    return f'{{{", ".join(numbers)}, "source": {_quoted(row.source)}, "run_id": {_quoted(row.run_id)}}}'


_quoted = lru_cache(maxsize=1024)(json.dumps)


def _prepare(batches: Sequence[Batch]) -> list[_Work]:
    work = []
    for batch, packed in zip(batches, pack_all([batch.candles for batch in batches]), strict=True):
        item = _Work(batch, packed.times, packed.candles, packed.is_unique, packed.broken)
        if batch.rejected is not None and not batch.rejected.is_empty():
            item.rejected = [*packed.broken, *zip(plain_rows(batch.rejected), batch.rejected["reason"].to_list(), strict=True)]
        work.append(item)
    return work


def _kept(tx: Connection, work: list[_Work]) -> dict[int, _Kept]:
    """Return what is known of the work's series, by id; on PostgreSQL their rows are locked in order of id."""
    ids = sorted({item.batch.series_id for item in work})
    out: dict[int, _Kept] = {}
    for start in range(0, len(ids), _PART):
        part = ids[start:start + _PART]
        if not is_sqlite(tx):  # a statement of its own: the next one must see what the last holder of the lock did
            fetch(tx, f"SELECT id FROM series WHERE id IN ({marks(part)}) ORDER BY id FOR UPDATE", part)  # noqa: S608  marks only
        sql = ("SELECT id, first_us, last_us, (SELECT end_us FROM gaps WHERE series_id = series.id"  # noqa: S608  marks
               f" ORDER BY start_us DESC LIMIT 1) FROM series WHERE id IN ({marks(part)})")
        out.update({row[0]: _Kept(*row[1:]) for row in fetch(tx, sql, part)})
    missing = set(ids) - set(out)
    if missing:
        raise NotFoundError(f"no series has the id {min(missing)}; add it with ensure_series before writing")
    return out


def _touching(work: list[_Work], kept: Mapping[int, _Kept]) -> dict[int, Interval]:
    """Return, by series, the range of the candles that may be stored already: live ones lie past all that is stored.

    Of a series whose times may come twice in this write that is all of them.
    """
    out: dict[int, Interval] = {}
    times_written = Counter(item.batch.series_id for item in work)
    for item in work:
        if not item.times:
            continue
        series_id = item.batch.series_id
        start, end = item.times[0], item.times[-1] + 1
        if item.is_unique and times_written[series_id] == 1:
            first, last = kept[series_id].first_us, kept[series_id].last_us
            if first is None or last is None or start > last or end <= first:
                continue
            start, end = max(start, first), min(end, last + 1)
        before = out.get(series_id, Interval(start, end))
        out[series_id] = Interval(min(start, before.start), max(end, before.end))
    return out


def _missing(work: list[_Work], ranges: Mapping[int, Interval], old: Mapping[tuple[int, int], Stored]) -> dict[int, Interval]:
    """Return `ranges` cut down to the candles that the head does not hold: only those can lie in the lake alone."""
    out: dict[int, Interval] = {}
    for item in work:
        series_id = item.batch.series_id
        span = ranges.get(series_id)
        if span is None:
            continue
        times = [time for time in item.times if span.start <= time < span.end and (series_id, time) not in old]
        if times:
            before = out.get(series_id, Interval(times[0], times[-1] + 1))
            out[series_id] = Interval(min(times[0], before.start), max(times[-1] + 1, before.end))
    return out


def _files_below(tx: Connection, ranges: Mapping[int, Interval]) -> dict[str, tuple[int, Interval]]:
    """Return the live files that hold candles of the ranges, each with its series and the range to be read."""
    ids = sorted(ranges)
    out: dict[str, tuple[int, Interval]] = {}
    for start in range(0, len(ids), _PART):
        part = ids[start:start + _PART]
        sql = ("SELECT path, series_id, first_us, last_us FROM lake_files WHERE superseded_at_us IS NULL"  # noqa: S608  marks only
               f" AND dataset = 'candles' AND series_id IN ({marks(part)})")
        for path, series_id, first, last in fetch(tx, sql, part):
            both = ranges[series_id].intersect(Interval(first, last + 1))
            if both is not None:
                out[path] = (series_id, both)
    return out


def _head_below(tx: Connection, ranges: Mapping[int, Interval]) -> dict[tuple[int, int], Stored]:
    """Return what the head holds of the ranges, by series and time."""
    spans = [(series_id, span.start, span.end) for series_id, span in ranges.items()]
    found: list[Row] = []
    if is_sqlite(tx):
        for start in range(0, len(spans), _PART):
            part = spans[start:start + _PART]
            # CROSS JOIN keeps SQLite from scanning the head once for all ranges.
            sql = (f"WITH span (id, start_us, end_us) AS (VALUES {', '.join('(?, ?, ?)' for _ in part)})"  # noqa: S608  marks, names
                   f" SELECT series_id, {_COLUMNS} FROM span CROSS JOIN head_candles"
                   " ON series_id = id AND last_us >= start_us AND first_us < end_us")
            found += fetch(tx, sql, [value for span in part for value in span])
    else:
        sql = (f"SELECT series_id, {_COLUMNS} FROM head_candles JOIN unnest(?::bigint[], ?::bigint[], ?::bigint[])"  # noqa: S608  names
               " AS span (id, start_us, end_us) ON series_id = id AND last_us >= start_us AND first_us < end_us")
        found = fetch(tx, sql, [list(column) for column in zip(*spans, strict=True)])
    out: dict[tuple[int, int], Stored] = {}
    for series_id, *rest in found:
        block = Block(*rest)
        for time, candle in block.between(ranges[series_id]):
            out[series_id, time] = Stored(candle, block.known_at_us, block.source, block.run_id, block)
    return out


def _sort_out(item: _Work, span: Interval | None, old: dict[tuple[int, int], Stored], changes: _Changes, now_us: int,  # noqa: PLR0917
              run_id: str) -> None:
    """Take candles outside `span` as they are, for nothing is stored there; compare each one in it."""
    series_id, source, times = item.batch.series_id, item.batch.source, item.times
    low = high = 0
    if span is not None:
        low, high = bisect_left(times, span.start), bisect_left(times, span.end)
        _judge(item, range(low, high), old, changes, now_us, run_id)
    for start, end in ((0, low), (high, len(times))):
        if start < end:
            item.stored += end - start
            changes.blocks += [(series_id, *block) for block in cut_blocks(
                times[start:end], item.candles[start * CANDLE_BYTES:end * CANDLE_BYTES], now_us, source, run_id)]


def _judge(item: _Work, places: range, old: dict[tuple[int, int], Stored], changes: _Changes, now_us: int,  # noqa: PLR0917
           run_id: str) -> None:
    """Compare candles with what is stored; `old` follows, so that a later candle of this write meets this one."""
    series_id, source = item.batch.series_id, item.batch.source
    for place in places:
        time, candle = item.times[place], item.candles[place * CANDLE_BYTES:(place + 1) * CANDLE_BYTES]
        before = old.get((series_id, time))
        known_at_us = now_us
        if before is None:
            item.stored += 1
        elif before.candle == candle:  # equal values have equal bytes, see `pack`
            item.unchanged += 1
            continue
        else:
            known_at_us = max(now_us, before.known_at_us + 1)  # a later value is always known later, whatever the clock says
            changes.revisions.append((series_id, time, known_at_us, before.known_at_us, _json_of(before),
                                      _json_of(Stored(candle, known_at_us, source, run_id))))
            item.revised += 1
            if before.block is not None:
                changes.torn.setdefault(series_id, {}).setdefault(before.block, []).append(time)
        old[series_id, time] = Stored(candle, known_at_us, source, run_id)
        changes.judged.setdefault(series_id, {})[time] = (known_at_us, source, candle)


def _store_changes(tx: Connection, kept: Mapping[int, _Kept], changes: _Changes, run_id: str) -> None:
    """Write blocks, revisions and watermarks."""
    for series_id, torn in changes.torn.items():
        replace_blocks(tx, series_id, list(torn), [part for block, times in torn.items() for part in block.without(times)])
    for series_id, judged in changes.judged.items():
        shared: dict[tuple[int, str], list[int]] = {}
        for time in sorted(judged):
            shared.setdefault(judged[time][:2], []).append(time)
        changes.blocks += [(series_id, *block) for (known_at_us, source), times in shared.items() for block in cut_blocks(
            times, b"".join(judged[time][2] for time in times), known_at_us, source, run_id)]
    insert_blocks(tx, changes.blocks)
    execute_many(tx, _REVISE, changes.revisions)
    reached: dict[int, tuple[int | None, int | None]] = {}
    for series_id, first_us, last_us, *_ in changes.blocks:
        first, last = reached.get(series_id) or kept[series_id][:2]
        reached[series_id] = (first_us if first is None or first_us < first else first,
                              last_us if last is None or last_us > last else last)
    execute_many(tx, "UPDATE series SET first_us = ?, last_us = ? WHERE id = ?", [
        (*ends, series_id) for series_id, ends in reached.items() if ends != kept[series_id][:2]])


def _settle_ledger(tx: Connection, work: list[_Work], kept: Mapping[int, _Kept], now_us: int) -> None:
    """Book the batches' gaps, then take what is stored out of the ledger; live candles lie past it and cost nothing."""
    booked = [gap for item in work for gap in item.batch.gaps]
    if booked:
        book_gaps(tx, booked, now_us)
    ends = {series_id: row.ledger_end_us or 0 for series_id, row in kept.items()}
    for gap in booked:
        ends[gap.series_id] = max(ends.get(gap.series_id, 0), gap.interval.end)
    for item in work:
        series_id = item.batch.series_id
        if item.times and item.times[0] < ends[series_id]:
            slots, grid = item.times, grid_of(tx, get_series(tx, series_id))
            note_repairs(tx, series_id, slots, grid, now_us)
            clear_stored(tx, series_id, slots, grid)


def _note(tx: Connection, work: list[_Work], now_us: int, run_id: str) -> None:
    """Note for the provenance what this write changed, and by which requests."""
    counts = (sum(item.stored for item in work), sum(item.revised for item in work), sum(len(item.rejected) for item in work))
    note_write(tx, run_id, now_us, counts, [
        Brought(item.batch.series_id, item.batch.request, item.stored, item.revised)
        for item in work if item.batch.request is not None and (item.stored or item.revised)])

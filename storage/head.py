"""Stores candles durably: one transaction with values, watermarks, gaps, revisions and quarantine together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import Connection

from core.candles import CANDLE_SCHEMA, SOURCES, VALUES
from core.errors import InputError, NotFoundError
from core.interval import Interval
from storage.lake.below import LakeRows
from storage.lake.place import Place
from storage.lake.schema import HEAD_COLUMNS
from storage.ledger import Gap, book_gaps, clear_stored
from storage.provenance import Brought, Request, note_write
from storage.quarantine import set_aside
from storage.repairs import note_repairs
from storage.series import get_series, grid_of
from storage.statements import Row, execute_many, fetch, insert_many, is_sqlite, marks

_PART = 500  # bound parameters of one statement stay far below every driver's limit
_COLUMNS = ", ".join(HEAD_COLUMNS)
_INTO = f"INSERT INTO head_candles (series_id, {_COLUMNS})"
_REPLACE = ("ON CONFLICT (series_id, ts_us) DO UPDATE SET "
            + ", ".join(f"{name} = excluded.{name}" for name in HEAD_COLUMNS if name != "ts_us"))
_REVISE = ("INSERT INTO revisions (series_id, ts_us, known_at_us, old_known_at_us, old, new)"
           " VALUES (?, ?, ?, ?, ?, ?)"
           # After retention and a clock set back an old change may bear the same instant; the later one wins.
           " ON CONFLICT (series_id, ts_us, known_at_us) DO UPDATE SET old_known_at_us = excluded.old_known_at_us,"
           " old = excluded.old, new = excluded.new")


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
    """One batch on its way: `rows` are (ts_us, open, high, low, close, volume, spread), ascending."""

    batch: Batch
    rows: list[Row]
    rejected: list[tuple[Row, str]]
    stored: int = 0
    revised: int = 0
    unchanged: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store says of a series that is written to: first and last candle, and where its last booked gap ends."""

    first_us: int | None
    last_us: int | None
    ledger_end_us: int | None


@dataclass(slots=True)
class _Changes:
    """What one write changes: rows for the head, revisions, and the span of changed candles by series."""

    rows: list[Row] = field(default_factory=list)
    revisions: list[Row] = field(default_factory=list)
    spans: dict[int, tuple[int, int]] = field(default_factory=dict)


def write(place: Place, batches: Sequence[Batch], run_id: str) -> list[Written]:
    """Store the batches in one transaction; when this returns, they are on disk.

    An identical value writes nothing; a different one for a stored candle becomes a revision. Rows that are not finite
    or have no time are quarantined.

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
        unread = _store(tx, work, below, place.clock.now_us(), run_id)
    if unread:
        below.load(unread)  # Parquet is read while no lock is held; what changes meanwhile is read under it
        for item in work:
            item.stored = item.revised = item.unchanged = 0
        with place.metadata.write() as tx:
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
    once = Counter(item.batch.series_id for item in work)
    for item in work:
        series_id = item.batch.series_id
        if series_id not in ranges and once[series_id] == 1 and _is_unique(item.rows):
            _append(item, changes, now_us, run_id)
        else:
            _judge(item, old, changes, now_us, run_id)
    insert_many(tx, _INTO, 1 + len(HEAD_COLUMNS), changes.rows, conflict=_REPLACE)
    execute_many(tx, _REVISE, changes.revisions)
    _move_watermarks(tx, kept, changes)
    for item in work:
        if item.rejected:
            set_aside(tx, item.batch.series_id, item.rejected, run_id, now_us)
    _settle_ledger(tx, work, kept, now_us)
    _note(tx, work, now_us, run_id)
    return {}


def values_of(row: Row) -> dict[str, Any]:
    """Return a head row (HEAD_COLUMNS) as the JSON object that a revision keeps."""
    return {**dict(zip(VALUES, row[1:7], strict=True)), "source": row[8], "run_id": row[9]}


def _json_of(row: Row) -> str:
    """Return `values_of` as JSON; a revision of each of a thousand candles is too much for the general encoder."""
    spread = "null" if row[6] is None else repr(row[6])  # repr of a finite float is JSON
    return (f'{{"open": {row[1]!r}, "high": {row[2]!r}, "low": {row[3]!r}, "close": {row[4]!r}, "volume": {row[5]!r}, '
            f'"spread": {spread}, "source": {_quoted(row[8])}, "run_id": {_quoted(row[9])}}}')


_quoted = lru_cache(maxsize=1024)(json.dumps)


def _prepare(batches: Sequence[Batch]) -> list[_Work]:
    """Turn all frames into tuples at once: a frame operation for each of 500 small batches would cost more than storing."""
    if len(batches) == 1:
        whole = batches[0].candles
    else:
        try:
            whole = pl.concat([batch.candles for batch in batches], rechunk=False).rechunk()
        except pl.exceptions.PolarsError:  # their columns differ in order or type
            whole = pl.concat([_shaped(batch.candles) for batch in batches])
    if whole.schema != CANDLE_SCHEMA:
        whole = _shaped(whole)
    rows, flags = _tuples(whole)
    work, start = [], 0
    for batch in batches:
        end = start + batch.candles.height
        good, refused = rows[start:end], []
        if flags is not None and any(flags[start:end]):
            good = [row for row, broken in zip(rows[start:end], flags[start:end], strict=True) if not broken]
            refused = [(row, "time missing" if row[0] is None else "not finite")
                       for row, broken in zip(rows[start:end], flags[start:end], strict=True) if broken]
        if batch.rejected is not None and not batch.rejected.is_empty():
            reasons = batch.rejected["reason"].to_list()
            raw = batch.rejected.select(pl.col("ts").dt.epoch("us"), *VALUES).rows()
            refused += list(zip(raw, reasons, strict=True))
        work.append(_Work(batch, good if len(good) < 2 else sorted(good, key=itemgetter(0)), refused))
        start = end
    return work


def _tuples(whole: pl.DataFrame) -> tuple[list[Row], list[bool] | None]:
    """Return the frame's rows with times in microseconds, and which of them are broken (None: not one)."""
    ts, spread = whole.get_column("ts"), whole.get_column("spread")
    prices = [whole.get_column(name) for name in VALUES[:5]]
    numbers = [column.to_numpy() for column in prices if not column.null_count()]
    has_spread = not spread.null_count()
    if has_spread:
        numbers.append(spread.to_numpy())
    is_plain = len(numbers) == 5 + has_spread and (has_spread or spread.null_count() == whole.height)
    if is_plain and not ts.null_count() and all(np.isfinite(column).all() for column in numbers):
        # Polars' expressions would cost a small batch more than its transaction. Adding zero turns -0.0 into 0.0.
        columns = [(column + 0.0).tolist() for column in numbers]
        return list(zip(ts.to_physical().to_list(), *columns, *([] if has_spread else [repeat(None)]), strict=False)), None
    plain = whole.select(pl.col("ts").dt.epoch("us"), *(pl.col(name) + 0.0 for name in VALUES))
    flags = whole.select(_broken())["broken"]
    return plain.rows(), flags.to_list() if flags.any() else None


def _shaped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items())


def _broken() -> pl.Expr:
    prices = [pl.col(name).is_finite().fill_null(value=False) for name in VALUES[:5]]
    whole = pl.all_horizontal(*prices, pl.col("spread").is_finite().fill_null(value=True), pl.col("ts").is_not_null())
    return (~whole).alias("broken")


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
    """Return, by series, the range of the rows that may be stored already: live candles lie past all that is stored."""
    out: dict[int, Interval] = {}
    for item in work:
        series_id = item.batch.series_id
        first, last = kept[series_id].first_us, kept[series_id].last_us
        if not item.rows or first is None or last is None or item.rows[0][0] > last or item.rows[-1][0] < first:
            continue
        start, end = max(item.rows[0][0], first), min(item.rows[-1][0], last) + 1
        before = out.get(series_id)
        out[series_id] = Interval(start, end) if before is None else Interval(min(start, before.start), max(end, before.end))
    return out


def _missing(work: list[_Work], ranges: Mapping[int, Interval], old: Mapping[tuple[int, int], Row]) -> dict[int, Interval]:
    """Return `ranges` cut down to the rows that the head does not hold: only those can lie in the lake alone."""
    out: dict[int, Interval] = {}
    for item in work:
        series_id = item.batch.series_id
        span = ranges.get(series_id)
        if span is None:
            continue
        times = [row[0] for row in item.rows if span.start <= row[0] < span.end and (series_id, row[0]) not in old]
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


def _head_below(tx: Connection, ranges: Mapping[int, Interval]) -> dict[tuple[int, int], Row]:
    spans = [(series_id, span.start, span.end) for series_id, span in ranges.items()]
    found: list[Row] = []
    if is_sqlite(tx):
        for start in range(0, len(spans), _PART):
            part = spans[start:start + _PART]
            # CROSS JOIN keeps SQLite from scanning the head once for all ranges.
            sql = (f"WITH span (id, start_us, end_us) AS (VALUES {', '.join('(?, ?, ?)' for _ in part)})"  # noqa: S608  marks, names
                   f" SELECT series_id, {_COLUMNS} FROM span CROSS JOIN head_candles"
                   " ON series_id = id AND ts_us >= start_us AND ts_us < end_us")
            found += fetch(tx, sql, [value for span in part for value in span])
    else:
        sql = (f"SELECT series_id, {_COLUMNS} FROM head_candles JOIN unnest(?::bigint[], ?::bigint[], ?::bigint[])"  # noqa: S608  names
               " AS span (id, start_us, end_us) ON series_id = id AND ts_us >= start_us AND ts_us < end_us")
        found = fetch(tx, sql, [list(column) for column in zip(*spans, strict=True)])
    return {(row[0], row[1]): row[1:] for row in found}


def _is_unique(rows: list[Row]) -> bool:
    return len(rows) < 2 or len({row[0] for row in rows}) == len(rows)


def _append(item: _Work, changes: _Changes, now_us: int, run_id: str) -> None:
    """Take rows that lie outside all that is stored: nothing to compare with."""
    if not item.rows:
        return
    series_id, source = item.batch.series_id, item.batch.source
    changes.rows += [(series_id, *row, now_us, source, run_id) for row in item.rows]
    changes.spans[series_id] = (item.rows[0][0], item.rows[-1][0])
    item.stored = len(item.rows)


def _judge(item: _Work, old_rows: dict[tuple[int, int], Row], changes: _Changes, now_us: int, run_id: str) -> None:
    """Compare each row with what is stored; `old_rows` follows, so that a later row of this write meets this one."""
    series_id, source = item.batch.series_id, item.batch.source
    changed = []
    for row in item.rows:
        key = (series_id, row[0])
        old = old_rows.get(key)
        if old is None:
            new = (*row, now_us, source, run_id)
            item.stored += 1
        elif old[1:7] == row[1:7]:
            item.unchanged += 1
            continue
        else:
            known_at = max(now_us, old[7] + 1)  # a later value is always known later, whatever the clock says
            new = (*row, known_at, source, run_id)
            changes.revisions.append((series_id, row[0], known_at, old[7], _json_of(old), _json_of(new)))
            item.revised += 1
        old_rows[key] = new
        changed.append((series_id, *new))
    if changed:
        low, high = changes.spans.get(series_id, (changed[0][1], changed[-1][1]))
        changes.spans[series_id] = (min(low, changed[0][1]), max(high, changed[-1][1]))
        changes.rows += changed


def _move_watermarks(tx: Connection, kept: Mapping[int, _Kept], changes: _Changes) -> None:
    moved = []
    for series_id, (low, high) in changes.spans.items():
        first, last = kept[series_id].first_us, kept[series_id].last_us
        if first is None or last is None or low < first or high > last:
            moved.append((low if first is None else min(low, first), high if last is None else max(high, last), series_id))
    execute_many(tx, "UPDATE series SET first_us = ?, last_us = ? WHERE id = ?", moved)


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
        if item.rows and item.rows[0][0] < ends[series_id]:
            slots, grid = [row[0] for row in item.rows], grid_of(tx, get_series(tx, series_id))
            note_repairs(tx, series_id, slots, grid, now_us)
            clear_stored(tx, series_id, slots, grid)


def _note(tx: Connection, work: list[_Work], now_us: int, run_id: str) -> None:
    """Note for the provenance what this write changed, and by which requests."""
    counts = (sum(item.stored for item in work), sum(item.revised for item in work), sum(len(item.rejected) for item in work))
    note_write(tx, run_id, now_us, counts, [
        Brought(item.batch.series_id, item.batch.request, item.stored, item.revised)
        for item in work if item.batch.request is not None and (item.stored or item.revised)])

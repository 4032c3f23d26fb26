"""Stores candles durably: one transaction with values, watermarks, gaps, revisions and quarantine together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import polars as pl
from sqlalchemy import Connection

from core.candles import CANDLE_SCHEMA, SOURCES, VALUES
from core.clock import isoformat
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from storage.lake.place import Place
from storage.lake.reader import read_files
from storage.lake.schema import HEAD_COLUMNS
from storage.ledger import Gap, book_gaps, clear_stored
from storage.statements import Row, execute_many, fetch, is_sqlite, marks

_PART = 500  # bound parameters of one statement stay far below every driver's limit
_COLUMNS = ", ".join(HEAD_COLUMNS)
_UPSERT = (
    f"INSERT INTO head_candles (series_id, {_COLUMNS}) VALUES ({marks(range(11))})"  # noqa: S608  column names
    " ON CONFLICT (series_id, ts_us) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in HEAD_COLUMNS if name != "ts_us"))
_REVISE = ("INSERT INTO revisions (series_id, ts_us, known_at_us, old_known_at_us, old, new)"
           " VALUES (?, ?, ?, ?, ?, ?)")
_QUARANTINE = ('INSERT INTO quarantine (series_id, ts_us, reason, digest, "row", run_id, seen_at_us)'
               " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (series_id, digest) DO NOTHING")


@dataclass(frozen=True, slots=True)
class Batch:
    """What one request brought for one series.

    Attributes:
        candles: checked frame of CANDLE_SCHEMA, sorted and unique on ts.
        source: rest | stream | backfill | import.
        gaps: to be booked in the same transaction.
        rejected: frame of CANDLE_SCHEMA and `reason`, for the quarantine.
    """

    series_id: int
    candles: pl.DataFrame
    source: str
    gaps: Sequence[Gap] = ()
    rejected: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch, counted in candles: new, changed (a revision each), same as stored, refused."""

    stored: int
    revised: int
    unchanged: int
    quarantined: int


@dataclass(slots=True)
class _Work:
    """One batch on its way: `rows` are (ts_us, open, high, low, close, volume, spread)."""

    batch: Batch
    rows: list[Row]
    rejected: list[tuple[Row, str]]
    stored: int = 0
    revised: int = 0
    unchanged: int = 0


@dataclass(slots=True)
class _Known:
    """What is stored of the times that are being written, and what changes: rows are HEAD_COLUMNS by (series, ts)."""

    timeframes: dict[int, str]
    bounds: dict[int, tuple[int | None, int | None]]
    rows: dict[tuple[int, int], Row] = field(default_factory=dict)
    changed: dict[tuple[int, int], Row] = field(default_factory=dict)
    revisions: list[Row] = field(default_factory=list)


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
    work = _prepare(batches)
    below = _LakeRows(place)
    with place.metadata.read() as tx:  # Parquet is read here, before the write lock is taken
        bounds = _bounds(tx, work, lock=False)
        files = _files_below(tx, work, bounds)
    below.load(files)
    now_us = place.clock.now_us()
    with place.metadata.write() as tx:
        bounds = _bounds(tx, work, lock=True)
        known = _Known({key: value[0] for key, value in bounds.items()},
                       {key: value[1:] for key, value in bounds.items()})
        below.load(_files_below(tx, work, bounds))  # reads only files that are newer than the first look
        known.rows.update(below.rows)
        known.rows.update(_head_below(tx, work, bounds))
        for item in work:
            _judge(item, known, now_us, run_id)
        execute_many(tx, _UPSERT, [(key[0], *row) for key, row in known.changed.items()])
        execute_many(tx, _REVISE, known.revisions)
        _move_watermarks(tx, known)
        quarantined = [_set_aside(tx, item, run_id, now_us) for item in work]
        _settle_ledger(tx, work, known, now_us)
    return [Written(item.stored, item.revised, item.unchanged, bad) for item, bad in zip(work, quarantined, strict=True)]


def values_of(row: Row) -> dict[str, Any]:
    """Return a head row (HEAD_COLUMNS) as the JSON object that a revision keeps."""
    return {**dict(zip(VALUES, row[1:7], strict=True)), "source": row[8], "run_id": row[9]}


def _prepare(batches: Sequence[Batch]) -> list[_Work]:
    """Turn all frames into tuples at once: a frame operation for each of 500 small batches would cost more than storing."""
    if not batches:
        return []
    try:
        whole = _shaped(pl.concat([batch.candles for batch in batches], rechunk=False))
    except pl.exceptions.PolarsError:  # their columns differ in order or type
        whole = pl.concat([_shaped(batch.candles) for batch in batches], rechunk=False)
    # Adding zero turns -0.0 into 0.0.
    plain = whole.select(pl.col("ts").dt.epoch("us"), *(pl.col(name) + 0.0 for name in VALUES))
    bad = whole.select(_broken())["broken"]
    rows = plain.rows()
    work, start = [], 0
    flags = bad.to_list() if bad.any() else None
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
        work.append(_Work(batch, sorted(good, key=itemgetter(0)), refused))
        start = end
    return work


def _shaped(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in CANDLE_SCHEMA.items())


def _broken() -> pl.Expr:
    prices = [pl.col(name).is_finite().fill_null(value=False) for name in VALUES[:5]]
    whole = pl.all_horizontal(*prices, pl.col("spread").is_finite().fill_null(value=True), pl.col("ts").is_not_null())
    return (~whole).alias("broken")


def _bounds(tx: Connection, work: list[_Work], *, lock: bool) -> dict[int, tuple[str, int | None, int | None]]:
    """Return timeframe, first_us and last_us by series id; on PostgreSQL the rows are locked in order of id."""
    ids = sorted({item.batch.series_id for item in work})
    out: dict[int, tuple[str, int | None, int | None]] = {}
    tail = " ORDER BY id FOR UPDATE" if lock and not is_sqlite(tx) else ""
    for start in range(0, len(ids), _PART):
        part = ids[start:start + _PART]
        sql = f"SELECT id, timeframe, first_us, last_us FROM series WHERE id IN ({marks(part)}){tail}"  # noqa: S608  marks only
        out.update({row[0]: row[1:] for row in fetch(tx, sql, part)})
    missing = set(ids) - set(out)
    if missing:
        raise NotFoundError(f"no series has the id {min(missing)}; add it with ensure_series before writing")
    return out


def _touching(work: list[_Work], bounds: Mapping[int, tuple[Any, int | None, int | None]]) -> dict[int, Interval]:
    """Return, by series, the range of the rows that may be stored already: live candles lie past all that is stored."""
    out: dict[int, Interval] = {}
    for item in work:
        _, first, last = bounds[item.batch.series_id]
        if not item.rows or first is None or last is None:
            continue
        start, end = max(item.rows[0][0], first), min(item.rows[-1][0], last) + 1
        if start >= end:
            continue
        before = out.get(item.batch.series_id)
        out[item.batch.series_id] = Interval(start, end) if before is None else Interval(
            min(start, before.start), max(end, before.end))
    return out


def _files_below(tx: Connection, work: list[_Work], bounds: Mapping[int, tuple[Any, int | None, int | None]]
                 ) -> dict[str, tuple[int, Interval]]:
    ranges = _touching(work, bounds)
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


class _LakeRows:
    """The lake's rows of the times being written; each file is read once, however often `load` names it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen: dict[str, tuple[int, Interval]] = {}
        self._rows: dict[str, dict[tuple[int, int], Row]] = {}
        self._wanted: list[str] = []

    def load(self, files: dict[str, tuple[int, Interval]]) -> None:
        """Make `files` the ones whose rows count; the rows of files that are already here are not read again."""
        for path, (series_id, interval) in files.items():
            if self._seen.get(path) == (series_id, interval):
                continue
            frame = read_files(self._place.root, [path], interval)
            plain = frame.select(pl.col("ts").dt.epoch("us"), *VALUES, pl.col("known_at").dt.epoch("us"), "source", "run_id")
            self._rows[path] = {(series_id, row[0]): row for row in plain.iter_rows()}
            self._seen[path] = (series_id, interval)
        self._wanted = list(files)

    @property
    def rows(self) -> dict[tuple[int, int], Row]:
        """The rows by series and time."""
        return {key: row for path in self._wanted for key, row in self._rows[path].items()}


def _head_below(tx: Connection, work: list[_Work], bounds: Mapping[int, tuple[Any, int | None, int | None]]
                ) -> dict[tuple[int, int], Row]:
    ranges = _touching(work, bounds)
    if not ranges:
        return {}
    found: list[Row] = []
    if is_sqlite(tx):
        sql = f"SELECT series_id, {_COLUMNS} FROM head_candles WHERE series_id = ? AND ts_us >= ? AND ts_us < ?"  # noqa: S608  names
        for series_id, span in ranges.items():
            found += fetch(tx, sql, (series_id, span.start, span.end))
    else:
        sql = (f"SELECT series_id, {_COLUMNS} FROM head_candles JOIN unnest(?::bigint[], ?::bigint[], ?::bigint[])"  # noqa: S608  names
               " AS span (id, start_us, end_us) ON series_id = id AND ts_us >= start_us AND ts_us < end_us")
        found = fetch(tx, sql, (list(ranges), [i.start for i in ranges.values()], [i.end for i in ranges.values()]))
    return {(row[0], row[1]): row[1:] for row in found}


def _judge(item: _Work, known: _Known, now_us: int, run_id: str) -> None:
    series_id, source = item.batch.series_id, item.batch.source
    for row in item.rows:
        key = (series_id, row[0])
        old = known.changed.get(key) or known.rows.get(key)
        if old is None:
            known.changed[key] = (*row, now_us, source, run_id)
            item.stored += 1
        elif old[1:7] == row[1:7]:
            item.unchanged += 1
        else:
            known_at = max(now_us, old[7] + 1)  # a later value is always known later, whatever the clock says
            new = (*row, known_at, source, run_id)
            known.changed[key] = new
            known.revisions.append((series_id, row[0], known_at, old[7], json.dumps(values_of(old)), json.dumps(values_of(new))))
            item.revised += 1


def _move_watermarks(tx: Connection, known: _Known) -> None:
    seen: dict[int, tuple[int, int]] = {}
    for series_id, ts_us in known.changed:
        low, high = seen.get(series_id, (ts_us, ts_us))
        seen[series_id] = (min(low, ts_us), max(high, ts_us))
    moved = []
    for series_id, (low, high) in seen.items():
        first, last = known.bounds[series_id]
        after = (low if first is None else min(low, first), high if last is None else max(high, last))
        if after != (first, last):
            moved.append((*after, series_id))
    execute_many(tx, "UPDATE series SET first_us = ?, last_us = ? WHERE id = ?", moved)


def _set_aside(tx: Connection, item: _Work, run_id: str, now_us: int) -> int:
    series_id = item.batch.series_id
    rows = []
    for row, reason in item.rejected:
        shown = {"ts": None if row[0] is None else isoformat(row[0]),
                 **{name: _jsonable(value) for name, value in zip(VALUES, row[1:], strict=True)}}
        text = json.dumps(shown)
        digest = hashlib.sha256(f"{reason}|{text}".encode()).hexdigest()
        rows.append((series_id, row[0], reason, digest, text, run_id, now_us))
    execute_many(tx, _QUARANTINE, rows)
    return len(rows)


def _jsonable(value: float | None) -> float | str | None:
    finite = value is None or value - value == 0  # JSON has no NaN and no infinity
    return value if finite else str(value)


def _settle_ledger(tx: Connection, work: list[_Work], known: _Known, now_us: int) -> None:
    book_gaps(tx, [gap for item in work for gap in item.batch.gaps], now_us)
    filled = [item for item in work if item.rows]
    ends = _ledger_ends(tx, sorted({item.batch.series_id for item in filled}))
    for item in filled:
        series_id = item.batch.series_id
        if item.rows[0][0] < ends.get(series_id, 0):
            clear_stored(tx, series_id, [row[0] for row in item.rows], Grid(Timeframe.parse(known.timeframes[series_id])))


def _ledger_ends(tx: Connection, ids: list[int]) -> dict[int, int]:
    """Return where the last booked gap of each series ends; live candles lie past it, and cost no more than this look."""
    out: dict[int, int] = {}
    for start in range(0, len(ids), _PART):
        part = ids[start:start + _PART]
        sql = ("SELECT id, (SELECT end_us FROM gaps WHERE series_id = series.id ORDER BY start_us DESC LIMIT 1)"  # noqa: S608  marks only
               f" FROM series WHERE id IN ({marks(part)})")
        out.update({series_id: end for series_id, end in fetch(tx, sql, part) if end is not None})
    return out

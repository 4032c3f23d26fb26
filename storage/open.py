"""Opens the store and gives it one face: `Lake`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, SupportsIndex

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection

from core.clock import Clock, SystemClock, parse_instant, to_us
from core.derive import DERIVED_SCHEMA
from core.errors import InputError, StoreFullError, StoreUnwritableError
from core.interval import Interval
from core.series import Series
from core.settings import Settings, settings
from core.timeframe import Timeframe
from storage import catalog, exchange_files, follow, head, query, snapshots
from storage.audit import Witness, unwitnessed
from storage.coverage_table import coverage_table
from storage.derived import plan_derived, read_derived
from storage.head import Batch, Written
from storage.lake import bulk, flush, rebuild, retention, sweep, verify
from storage.lake.copy_limit import CopyLimit
from storage.lake.days import stored_by_day
from storage.lake.flush import FlushResult, Progress
from storage.lake.objects import SCHEME, open_objects
from storage.lake.place import Place, make_folders
from storage.lake.publish import settle_all
from storage.lake.reader import pin, pin_last, read_files, read_last, read_pin, stored_slots
from storage.lake.rebuild import RebuildReport
from storage.lake.retention import RetentionPlan, RetentionResult
from storage.lake.revision_files import flush_all_revisions, restore_revisions
from storage.lake.revisions import as_known, changed_after
from storage.lake.schema import ALL_COLUMNS, FILLED_COLUMNS, check_columns, picked, with_ts
from storage.lake.sweep import SweepResult
from storage.lake.verify import VerifyReport
from storage.metadata import migrate
from storage.metadata.store import MetadataStore, open_metadata
from storage.series import find_series, grid_of, list_series
from storage.snapshots import SnapshotRow
from storage.ticks.rebuild import rebuild_ticks
from storage.ticks.store import TickStore
from storage.ticks.verify import verify_ticks

Instant = datetime | str | int | None
_EARLIEST, _LATEST = 0, 4_102_444_800_000_000


class Lake:
    """Candles of all connections: the head in the metadata store and the Parquet lake, read and written as one.

    Instants are aware datetimes, ISO 8601 texts or microseconds since 1970 UTC; ranges are half-open. Safe to use from
    several threads and processes at once.
    """

    def __init__(self, place: Place, grace_hours: float = 24.0) -> None:
        self.place = place
        self._grace_hours = grace_hours

    @property
    def root(self) -> Path:
        """The folder of the lake."""
        return self.place.root

    @property
    def metadata(self) -> MetadataStore:
        """The metadata store."""
        return self.place.metadata

    @property
    def clock(self) -> Clock:
        """The clock that stamps what is stored."""
        return self.place.clock

    def close(self) -> None:
        """Close the metadata store's connections."""
        self.metadata.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def candles(self, connection: str, symbol: str, timeframe: str | Timeframe,  # noqa: PLR0917  the public signature
                start: Instant = None,
                end: Instant = None, as_of: Instant = None, fill: Literal["previous"] | None = None, *,
                derive_from: str | None = None, anchor: str = "utc", snapshot: str | None = None,
                columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return a series' candles that open in [start, end), ascending.

        Args:
            connection: slug of the connection.
            symbol: in the provider's spelling.
            timeframe: e.g. 1m.
            start: first instant; None is the first stored candle.
            end: the first instant that is not wanted any more; None is past the last stored candle.
            as_of: give the values that were known at this instant.
            fill: "previous" adds a row for each missing slot between first and last row: all prices are the last close,
                volume 0, and `is_filled` says so. Such rows are never stored.
            derive_from: make the candles from this stored timeframe, e.g. 1m; any length that divides a day will do then.
            anchor: with derive_from: what cuts the candles: utc, server (the broker's midnight) or new_york (17:00).
            snapshot: read a named snapshot in place of what is stored now.
            columns: which columns to give, in which order; None is all of them. What is left out is not read.

        Returns:
            Columns ts (UTC), open, high, low, close, volume, spread, known_at, source, run_id; with fill also is_filled;
            with derive_from those of `core.derive.DERIVED_SCHEMA`, which say what is incomplete.

        Raises:
            NotFoundError: no such series. InputError: a range or an instant that is none.
            StoreCorruptError: a file of the lake is missing or damaged.
        """
        if fill not in {None, "previous"}:
            raise InputError("fill", fill, "previous or None", "leave it out to get stored candles only")
        interval = _interval(start, end)
        at = None if as_of is None else _instant(as_of, "as_of")
        wanted = check_columns(columns, tuple(DERIVED_SCHEMA) if derive_from is not None else FILLED_COLUMNS if fill else ALL_COLUMNS)
        if derive_from is not None:
            if fill is not None or snapshot is not None:
                raise InputError("derive_from", derive_from, "no fill and no snapshot with it", "leave out one of them")
            with self.metadata.read() as tx:
                plan = plan_derived(tx, _series(connection, symbol, derive_from), str(timeframe), interval, anchor, as_of_us=at)
            return picked(read_derived(self.place, plan), wanted)
        key = _series(connection, symbol, timeframe)
        if snapshot is not None:
            return picked(self._of_snapshot(snapshot, key, interval, at), wanted)
        with self.metadata.read() as tx:
            row = find_series(tx, key)
            pinned = pin(tx, row.id, interval, with_ts(wanted) if fill is None and at is None else ALL_COLUMNS)
            grid = grid_of(tx, row) if fill else None
            later = [] if at is None else changed_after(tx, row.id, interval, at)
        frame = read_pin(self.place, pinned, interval)
        if at is not None:
            frame = as_known(frame, later, at)
        return picked(frame if grid is None else exchange_files.filled(frame, grid), wanted)

    def _of_snapshot(self, name: str, key: Series, interval: Interval, as_of_us: int | None) -> pl.DataFrame:
        if as_of_us is not None:
            raise InputError("as_of", as_of_us, "no as_of with a snapshot", "a snapshot is one view of the past already")
        with self.metadata.read() as tx:
            files = snapshots.files_of(tx, name, key)
        return read_files(self.place, files, interval)

    def latest(self, connection: str, symbol: str, timeframe: str | Timeframe, count: int = 100, *,
               columns: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the `count` newest candles of a series, ascending; `columns` as in `candles`."""
        if count < 1:
            raise InputError("count", count, "1 or more", "ask for at least one candle")
        wanted = check_columns(columns, ALL_COLUMNS)
        with self.metadata.read() as tx:
            pinned = pin_last(tx, find_series(tx, _series(connection, symbol, timeframe)).id, count, with_ts(wanted))
        return picked(read_last(self.place, pinned, count), wanted)

    def coverage(self) -> pl.DataFrame:
        """Return what each series holds of what it should: connection, symbol, timeframe, first, last, then counts of slots.

        The counts are expected, stored, explained and unexplained; see `storage.ledger.CoverageRow`.
        """
        return coverage_table(self)

    def sql(self, text: str, parameters: Sequence[object] | Mapping[str, object] | None = None) -> pl.DataFrame:
        """Run one SELECT (or FROM ...) of DuckDB over the lake and the metadata, all of one snapshot.

        There are `candles('slug', 'SYMBOL', '1m')` (with `as_of := ...`), `derived('slug', 'SYMBOL', '4h')` (with `anchor := ...,
        derive_from := ...`), `runs`, `repairs`, `retired_gaps`, `quarantine`, `all_candles`, `series`, `coverage`, `gaps`, `connections`,
        `revisions`, `files`.

        Raises:
            InputError: not a query, or one that DuckDB refuses; nothing but the lake can be read.
        """
        return query.run(self, text, parameters)

    def write(self, batches: Sequence[Batch], *, run_id: str, fence: Callable[[Connection], None] = lambda _tx: None) -> list[Written]:
        """Store batches in one durable transaction; see `storage.head.write`."""
        return head.write(self.place, batches, run_id, fence)

    def import_candles(self, series_id: int, frame: pl.DataFrame, *, run_id: str) -> Written:
        """Merge a frame of CANDLE_SCHEMA straight into the partitions; see `storage.lake.bulk.import_candles`."""
        return bulk.import_candles(self.place, series_id, frame, run_id)

    def stored_slots(self, series_id: int, interval: Interval) -> NDArray[np.int64]:
        """Return the open times stored in `interval`, head and lake: ascending microseconds, int64."""
        return stored_slots(self.place, series_id, interval).to_numpy()

    def stored_by_day(self, series_ids: Sequence[int], interval: Interval) -> dict[int, NDArray[np.int64]]:
        """Return, for each of some series, how many candles are stored on each day of `interval`; see `storage.lake.days`."""
        return stored_by_day(self.place, series_ids, interval)

    def flush(self, series_ids: Sequence[int] | None = None, progress: Progress | None = None) -> FlushResult:
        """Move head rows into the lake's partitions, and new revisions into files; see `storage.lake.flush.flush`."""
        try:
            return flush.flush(self.place, series_ids, progress)
        finally:
            flush_all_revisions(self.place, series_ids)

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Check every file against the manifest; see `storage.lake.verify.verify`."""
        candles, ticks = verify.verify(self.place, progress), verify_ticks(self.place)
        return VerifyReport(candles.files + ticks.files, candles.rows + ticks.rows, [*candles.problems, *ticks.problems])

    @property
    def tick_store(self) -> TickStore:
        """The ticks dataset."""
        return TickStore(self.place)

    def ticks(self, connection: str, symbol: str, start: Instant = None, end: Instant = None,
              limit: int | None = None) -> pl.DataFrame:
        """Return a symbol's ticks in [start, end), by time, repeats dropped; `limit` keeps the newest of them.

        Columns ts (event time, UTC), kind (quote | trade), bid, ask, price, size, side, trade_id, received_at, source, run_id.
        """
        return self.tick_store.read(connection, symbol, _interval(start, end), limit)

    def follow(self, series: Series, after: Instant = None) -> AsyncIterator[pl.DataFrame]:
        """Yield candles as they are stored or revised, by whichever process; see `storage.follow.follow`."""
        return follow.follow(self.place, series, None if after is None else _instant(after, "after"))

    def plan_retention(self, before_us: int, connection: str | None = None, *, timeframe: str | None = None,
                       is_forced: bool = False) -> RetentionPlan:
        """Say what lies before an instant, and what is refused, without changing anything."""
        return retention.plan_retention(self.place, before_us, connection, timeframe=timeframe, is_forced=is_forced)

    def create_snapshot(self, name: str, note: str = "", connection: str | None = None, witness: Witness = unwitnessed) -> SnapshotRow:
        """Name what is stored now, of one connection or of all: the head is flushed, then the files are pinned.

        A `witness` writes it down in the transaction that pins them.
        """
        with self.metadata.read() as tx:
            ids = [row.id for row in list_series(tx, connection)]
        self.flush(ids)
        return snapshots.create_snapshot(self.place, name, note, connection, witness)

    def apply_retention(self, plan: RetentionPlan) -> RetentionResult:
        """Remove what a plan names."""
        return retention.apply_retention(self.place, plan)

    def sweep(self) -> SweepResult:
        """Delete .old/ past its grace and what killed writers left."""
        return sweep.sweep(self.place, self._grace_hours)

    def write_catalog(self) -> None:
        """Write LAKE/catalog/*.parquet and LAKE/candlelake.duckdb anew."""
        catalog.write_catalog(self.place)

    def export(self, connection: str, symbol: str, timeframe: str | Timeframe,  # noqa: PLR0917  the public signature
               path: str | Path,
               format: Literal["parquet", "csv", "json"] = "parquet", start: Instant = None,  # noqa: A002  the public name
               end: Instant = None, as_of: Instant = None) -> int:
        """Write a series' candles to a file of your own and return how many."""
        frame = self.candles(connection, symbol, timeframe, start, end, as_of)
        return exchange_files.write_candle_file(frame, Path(path), format)

    def rebuild(self) -> RebuildReport:
        """Make manifest and series rows again from the files; see `storage.lake.rebuild.rebuild`."""
        report = rebuild.rebuild(self.place)
        found = rebuild_ticks(self.place)
        return replace(report, revisions=restore_revisions(self.place), connections=report.connections + found.connections,
                       tick_files=found.files, ticks=found.rows, skipped=[*report.skipped, *found.skipped])


def open_lake(home: str | Path | None = None, clock: Clock | None = None, config: Settings | None = None) -> Lake:
    """Open the store at `home` (None: that of `config`, or CANDLELAKE_HOME), made and migrated up when needed.

    `s3://bucket/prefix` in place of a folder opens the lake there, with CANDLELAKE_HOME's metadata and its lake folder as
    the working copy; so does CANDLELAKE_LAKE. Nothing is asked of the object store before the first file.

    Raises:
        StoreUnwritableError, StoreFullError, StoreBusyError: the place cannot be used; says why.
        InputError: neither a folder nor s3://bucket/prefix. UnsupportedError: the extra `s3` is not installed.
    """
    chosen = config or settings()
    if home is not None:
        chosen = chosen.model_copy(update={"lake": home} if str(home).startswith(SCHEME) else {"home": Path(home)})
    objects = open_objects(chosen.lake_root, chosen) if "://" in chosen.lake_root else None
    root = Path(chosen.lake_root if objects is None else chosen.home / "lake").absolute()
    metadata = open_metadata(chosen.database_url)
    try:
        migrate.upgrade(metadata)
        place = Place(root, metadata, clock or SystemClock(), objects, None if objects is None else CopyLimit(chosen.object_copies_gb * 10**9))
        make_folders(place.root)
        with suppress(StoreFullError, StoreUnwritableError):  # only tidier: readers find a file wherever it lies
            settle_all(place)
    except BaseException:
        metadata.close()
        raise
    return Lake(place, chosen.old_files_grace_hours)


def _series(connection: str, symbol: str, timeframe: str | Timeframe) -> Series:
    return Series.parse(connection, symbol, str(timeframe))


def _interval(start: Instant, end: Instant) -> Interval:
    first = _EARLIEST if start is None else _instant(start, "start")
    return Interval(first, max(first, _LATEST) if end is None else _instant(end, "end"))


def _instant(moment: Any, what: str) -> int:
    if isinstance(moment, datetime):
        return to_us(moment)
    if isinstance(moment, str):
        return parse_instant(moment, what)
    if isinstance(moment, SupportsIndex):  # NumPy's integers too
        return moment.__index__()
    raise InputError(what, moment, "an aware datetime, ISO 8601 text or microseconds since 1970", "give one of them")

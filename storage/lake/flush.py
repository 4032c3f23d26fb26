"""Moves head rows into the lake's partitions, and merges bulk imports into them.

Writers of one series exclude each other by a file lock; the manifest's generation is compared once more in the
transaction that swaps it, so that a writer that slept through the loss of its lock changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import polars as pl
from sqlalchemy import Connection

from core.clock import to_datetime, to_us
from core.errors import StoreBusyError
from core.interval import Interval
from core.series import Series
from storage.lake import layout
from storage.lake.blocks import Block, blocks_in, candles_of, replace_blocks
from storage.lake.damage import Damage, read_unaltered
from storage.lake.place import Place
from storage.lake.publish import drop_staged, publish, writing
from storage.lake.reader import head_candles
from storage.lake.schema import empty_stored, overlay
from storage.lake.writer import NewFile, swap_manifest, write_file
from storage.series import SeriesRow, get_series
from storage.statements import execute_many, fetch, is_sqlite

Progress = Callable[[int, int, str], None]
_ATTEMPTS = 5  # a lost race for the manifest is run again so many times
_WRITERS = 2  # partitions that are packed and synced at once


@dataclass(frozen=True, slots=True)
class FlushResult:
    """How many partitions were written, and how many head rows went into them."""

    partitions: int
    rows: int


@dataclass(frozen=True, slots=True)
class LiveFile:
    """The live file of one partition, as the manifest has it."""

    id: int
    path: str
    generation: int
    digest: str


class OvertakenError(Exception):
    """Raised, and caught by our own writers, when the store changed since it was read."""


def flush(place: Place, series_ids: Sequence[int] | None = None, progress: Progress | None = None) -> FlushResult:
    """Flush the head rows of the series (None: of all) into their partitions.

    Raises:
        StoreFullError, StoreUnwritableError: what was not flushed stays in the head; nothing is lost.
        StoreCorruptError: the same, for series whose files were altered; all others are flushed.
    """
    with place.metadata.read() as tx:
        waiting = [row[0] for row in fetch(tx, "SELECT id FROM series WHERE EXISTS"
                                               " (SELECT 1 FROM head_candles WHERE series_id = series.id) ORDER BY id")]
    todo = waiting if series_ids is None else [item for item in waiting if item in set(series_ids)]
    partitions = rows = 0
    damage = Damage()
    for done, series_id in enumerate(todo):
        with place.metadata.read() as tx:
            row = get_series(tx, series_id)
        if progress is not None:
            progress(done, len(todo), str(row.series))
        with damage.apart():
            written = flush_series(place, row)
            partitions, rows = partitions + written.partitions, rows + written.rows
    if progress is not None:
        progress(len(todo), len(todo), "flushed")
    damage.tell()
    return FlushResult(partitions, rows)


def flush_series(place: Place, row: SeriesRow) -> FlushResult:
    """Flush one series' head rows, all its partitions in one swap of the manifest."""
    with writing(place, row.series):
        for _ in range(_ATTEMPTS):
            with place.metadata.read() as tx:
                blocks = blocks_in(tx, row.id)
                live = live_by_label(tx, row.id)
            if not blocks:
                return FlushResult(0, 0)
            candles = candles_of(blocks)
            files = merge(place, row.series, candles, live)
            try:
                commit(place, row.id, files, live, flushed=blocks)
            except OvertakenError:
                discard(place, files)
                continue
            except BaseException:
                discard_unless_live(place, row.id, files)
                raise
            return FlushResult(len(files), candles.height)
    raise StoreBusyError(f"{row.series}: other writers keep changing its partitions; try again")


def live_by_label(tx: Connection, series_id: int) -> dict[str, LiveFile]:
    """Return the live file of each partition of a series."""
    rows = fetch(tx, "SELECT period, id, path, generation, digest FROM lake_files WHERE series_id = ? AND dataset = 'candles'"
                     " AND superseded_at_us IS NULL", (series_id,))
    return {label: LiveFile(*rest) for label, *rest in rows}


def commit(place: Place, series_id: int, files: list[NewFile], live: dict[str, LiveFile], *,
           flushed: Sequence[Block] = (), grown_to: Interval | None = None,
           head_seen: tuple[Interval, pl.DataFrame] | None = None, also: Callable[[Connection], None] | None = None) -> None:
    """Swap the manifest to `files` in one transaction; then publish them and move the old ones away.

    Args:
        place: the lake.
        series_id: the series; the caller holds its lock.
        files: the new files.
        live: the live files that they were merged from.
        flushed: blocks of the head whose candles are in `files` now and leave the head.
        grown_to: the watermarks widen to it.
        head_seen: a range and what the head held there; a change since then counts as overtaken.
        also: more work for the same transaction.

    Raises:
        OvertakenError: the manifest, or what `head_seen` says, is no longer so.
    """
    labels = {file.label for file in files}
    old = {label: (item.id, item.generation) for label, item in live.items() if label in labels}
    with place.metadata.write() as tx:
        lock_series(tx, series_id)
        now = {label: (item.id, item.generation) for label, item in live_by_label(tx, series_id).items() if label in labels}
        if now != old:
            raise OvertakenError
        if head_seen is not None and not head_candles(tx, series_id, head_seen[0]).equals(head_seen[1]):
            raise OvertakenError
        swap_manifest(tx, series_id, files, old, place.clock.now_us())
        _leave_head(tx, series_id, flushed)
        if grown_to is not None:
            grow_watermarks(tx, series_id, grown_to)
        if also is not None:
            also(tx)
    for file in files:
        publish(place.root, file.path, {live[file.label].path} if file.label in live else set())


def lock_series(tx: Connection, series_id: int) -> None:
    """Keep other writers of the series out until the end of the transaction (SQLite does it by itself)."""
    if not is_sqlite(tx):
        fetch(tx, "SELECT id FROM series WHERE id = ? FOR UPDATE", (series_id,))


def grow_watermarks(tx: Connection, series_id: int, span: Interval) -> None:
    """Widen first and last stored candle to `span`."""
    execute_many(
        tx, "UPDATE series SET first_us = CASE WHEN first_us IS NULL OR first_us > ? THEN ? ELSE first_us END,"
        " last_us = CASE WHEN last_us IS NULL OR last_us < ? THEN ? ELSE last_us END WHERE id = ?",
        [(span.start, span.start, span.end - 1, span.end - 1, series_id)])


def discard(place: Place, files: Iterable[NewFile]) -> None:
    """Remove files that never became live."""
    for file in files:
        drop_staged(place.root, file.path)


def discard_unless_live(place: Place, series_id: int, files: list[NewFile]) -> None:
    """Remove files after a commit whose outcome is unknown (the answer was lost), unless it succeeded."""
    with place.metadata.read() as tx:
        known = {item.path for item in live_by_label(tx, series_id).values()}
    discard(place, (file for file in files if file.path not in known))


def by_period(series: Series, candles: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Cut an ascending frame into its partitions."""
    rest = candles
    while not rest.is_empty():
        period = layout.period_of(series.timeframe, to_us(rest["ts"][0]))
        count = int(rest["ts"].search_sorted(to_datetime(period.end)))
        yield layout.period_label(period), rest.head(count)
        rest = rest.slice(count)


def merge(place: Place, series: Series, candles: pl.DataFrame, live: dict[str, LiveFile]) -> list[NewFile]:
    """Write a new file for each partition that `candles` touch: what lies there now, overlaid with them."""
    def write(label: str, part: pl.DataFrame) -> NewFile:
        below = read_unaltered(place, live[label].path, live[label].digest) if label in live else empty_stored()
        return write_file(place, series, label, overlay(below, part))

    parts = list(by_period(series, candles))
    if len(parts) == 1:
        return [write(*parts[0])]
    # One partition is packed while another waits for the disk. When one fails, those not begun are left out.
    tasks: list[Future[NewFile]] = []
    try:
        with ThreadPoolExecutor(_WRITERS, thread_name_prefix="candlelake-merge") as pool:
            tasks += [pool.submit(write, *part) for part in parts]
            wait(tasks, return_when=FIRST_EXCEPTION)
            pool.shutdown(cancel_futures=True)
        return [task.result() for task in tasks]
    except BaseException:
        discard(place, (task.result() for task in tasks if not task.cancelled() and task.exception() is None))
        raise


def _leave_head(tx: Connection, series_id: int, flushed: Sequence[Block]) -> None:
    """Take flushed candles out of the head, but not those whose value has changed since: those stay for the next flush."""
    if not flushed:
        return
    waiting = set(flushed)
    gone, left = [], []
    for block in blocks_in(tx, series_id):
        if block in waiting:
            gone.append(block)
            continue
        # Stored since; or what a revision left of a flushed block, which keeps its `known_at`.
        merged = {time for other in flushed if other.known_at_us == block.known_at_us for time in other.times.tolist()}
        parts = block.without(merged) if merged else [block]
        if parts != [block]:
            gone.append(block)
            left += parts
    replace_blocks(tx, series_id, gone, left)

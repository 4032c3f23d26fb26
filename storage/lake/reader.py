"""Reads candles: pins manifest and head in one snapshot of the metadata store, then reads those exact files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import polars as pl
import pyarrow as pa
from sqlalchemy import Connection

from core.clock import EARLIEST_US, to_datetime, to_us
from core.errors import StoreCorruptError
from core.interval import Interval
from core.unreadable import UNREADABLE, first_line
from storage.lake.blocks import ALL, blocks_in, candles_of, newest_candles, times_of
from storage.lake.local import present_all
from storage.lake.place import Place
from storage.lake.schema import ALL_COLUMNS, empty_stored, overlay
from storage.lake.tail import read_tail
from storage.statements import fetch

T = TypeVar("T")
Candles = TypeVar("Candles", pl.DataFrame, pl.LazyFrame)
_LIVE = ("FROM lake_files WHERE series_id = ? AND dataset = 'candles' AND superseded_at_us IS NULL"
         " AND first_us < ? AND last_us >= ? ORDER BY first_us")
_MOVES = 50  # a pinned file moves once at most; so many of a query's files may move while it runs


@dataclass(frozen=True, slots=True)
class Pin:
    """A snapshot of one series: the live files that touch the range, ascending, and the head's rows in it."""

    files: tuple[str, ...]
    head: pl.DataFrame
    is_whole: bool = False  # all that the files hold lies in the range: no need to look at each row


def live_files(tx: Connection, series_id: int, interval: Interval = ALL) -> tuple[str, ...]:
    """Return the paths of the live files that may hold candles of `interval`, ascending."""
    return tuple(row[0] for row in fetch(tx, f"SELECT path {_LIVE}", (series_id, interval.end, interval.start)))


def head_candles(tx: Connection, series_id: int, interval: Interval = ALL, columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return the head's candles of a series in `interval`: `columns` of STORED_SCHEMA, ts among them, ascending."""
    return candles_of(blocks_in(tx, series_id, interval), interval, columns)


def pin(tx: Connection, series_id: int, interval: Interval = ALL, columns: Sequence[str] = ALL_COLUMNS) -> Pin:
    """Pin a series' snapshot of `columns`, ts among them. `tx` is one read snapshot: files and head fit together."""
    rows = fetch(tx, f"SELECT path, first_us, last_us {_LIVE}", (series_id, interval.end, interval.start))
    is_whole = all(interval.start <= first_us and last_us < interval.end for _, first_us, last_us in rows)
    return Pin(tuple(row[0] for row in rows), head_candles(tx, series_id, interval, columns), is_whole)


def read_pin(place: Place, pinned: Pin, interval: Interval = ALL) -> pl.DataFrame:
    """Return the candles of a snapshot in `interval`: the columns that were pinned, ascending."""
    return overlay(read_files(place, pinned.files, ALL if pinned.is_whole else interval, pinned.head.columns), pinned.head)


def read_files(place: Place, files: Sequence[str], interval: Interval = ALL, columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return what the files hold in `interval`: `columns` of STORED_SCHEMA; the files of one series, ascending."""
    if not files:
        return empty_stored(columns)

    def read(paths: list[Path]) -> pl.DataFrame:
        return between(pl.scan_parquet(paths, hive_partitioning=False, glob=False), interval).select(columns).collect()

    return with_files(place, files, read)


def between(candles: Candles, interval: Interval) -> Candles:
    """Return the rows that open in `interval`."""
    if interval == ALL:
        return candles
    return candles.filter(pl.col("ts").is_between(to_datetime(interval.start), to_datetime(interval.end), closed="left"))


def pin_last(tx: Connection, series_id: int, count: int, columns: Sequence[str] = ALL_COLUMNS) -> Pin:
    """Pin what the `count` newest candles of a series need, of `columns`, ts among them: head rows, and the newest files first."""
    head = newest_candles(tx, series_id, count, columns)
    oldest = to_us(head["ts"][0]) if head.height == count else EARLIEST_US  # files that end below it are not needed
    files = fetch(tx, "SELECT path FROM lake_files WHERE series_id = ? AND dataset = 'candles'"
                      " AND superseded_at_us IS NULL AND last_us >= ? ORDER BY first_us DESC", (series_id, oldest))
    return Pin(tuple(row[0] for row in files), head)


def read_last(place: Place, pinned: Pin, count: int) -> pl.DataFrame:
    """Return the `count` newest candles of what `pin_last` gave, ascending, at the cost of the last row groups."""
    parts: list[pl.DataFrame] = []
    missing = count
    for path in pinned.files:
        if missing <= 0:
            break
        tail = with_files(place, [path], partial(_tail_of_one, count=missing, columns=pinned.head.columns))
        parts.insert(0, tail)
        missing -= tail.height
    below = parts[0] if len(parts) == 1 else pl.concat(parts) if parts else None
    return (pinned.head if below is None else overlay(below, pinned.head)).tail(count)


def stored_slots(place: Place, series_id: int, interval: Interval) -> pl.Series:
    """Return the open times stored in `interval`, head and lake, as an ascending Int64 series of microseconds."""
    with place.metadata.read() as tx:
        files = live_files(tx, series_id, interval)
        above = pl.Series("ts", times_of(blocks_in(tx, series_id, interval), interval))
    if not files:
        return above
    below = with_files(place, files, lambda paths: pl.scan_parquet(paths, hive_partitioning=False, glob=False).select(
        pl.col("ts").dt.epoch("us")).collect()["ts"])
    below = below.filter(below.is_between(interval.start, interval.end, closed="left"))
    return pl.concat([below, above]).unique().sort() if above.len() else below


def with_files(place: Place, files: Sequence[str], read: Callable[[list[Path]], T]) -> T:
    """Run `read` on the files' present places: a pinned file that is superseded meanwhile has moved to .old/.

    Raises:
        StoreCorruptError: a file is in neither place, cannot be read, or is missing or altered in the object store.
        TransientError, PermanentError: the object store that has it does not answer, or refuses.
    """
    seen: list[Path] = []
    for _ in range(_MOVES):
        paths = present_all(place, files)
        try:
            return read(paths)
        except (*UNREADABLE, pa.lib.ArrowException) as error:
            if paths == seen:  # nothing has moved since: it is the file itself
                raise StoreCorruptError(
                    f"cannot read {first_line(error)}; run `candlelake verify`, then repair or restore the file") from error
            seen = paths
    raise StoreCorruptError(f"{len(files)} files kept moving while they were read; try again")


def _tail_of_one(paths: list[Path], count: int, columns: Sequence[str]) -> pl.DataFrame:
    return read_tail(paths[0], count, columns)

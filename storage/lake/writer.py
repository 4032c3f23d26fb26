"""Writes one immutable Parquet file for the lake: staged, synced, checked. Then the manifest, then `publish`."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA
from core.clock import to_us
from core.errors import StoreCorruptError
from core.series import Series
from storage.lake import layout
from storage.lake.local import keep
from storage.lake.place import Place, make_durable_folder, sync_folder, translated
from storage.lake.publish import drop_staged
from storage.lake.schema import COMPRESSION_LEVEL, ROW_GROUP_ROWS
from storage.statements import execute_many

_FEW = 8  # rows for each distinct value, from which on a dictionary takes less than differences


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that lies in staging and is not in the manifest yet. `path`, below the lake's root, is where it will lie."""

    path: str
    label: str
    rows: int
    first_us: int
    last_us: int
    size_bytes: int
    digest: str


def write_file(place: Place, series: Series, label: str, frame: pl.DataFrame) -> NewFile:
    """Write `frame` (STORED_SCHEMA, sorted and unique on ts, not empty) as a new file of a partition, into staging.

    The caller holds the series' lock. When this returns, the file and its name are on disk; `publish` brings it into the
    tree once the manifest calls it live.

    Raises:
        StoreFullError, StoreUnwritableError: nothing is left behind.
        StoreCorruptError: what came back from the disk is not what was written.
        TransientError, PermanentError: the object store does not answer, or refuses.
    """
    return stage(place, layout.new_file(series, label), encode(frame), frame)


def stage(place: Place, path: str, content: memoryview, frame: pl.DataFrame) -> NewFile:
    """Write the bytes of `frame` (ascending by ts, not empty) into staging as the file that will lie at `path`.

    On S3 they are in the object store when this returns.

    Raises: as `write_file`.
    """
    label = layout.parse_path(path)[1]
    digest = hashlib.sha256(content).hexdigest()
    staged, target = layout.staged_file(place.root, path), place.root / path
    with translated(target.parent):
        try:
            make_durable_folder(place.root, target.parent.parent)  # the partition's own folder comes with the file
            staged.parent.mkdir()
            _write_synced(staged, content)
            _check_back(staged, content, frame.height)
            sync_folder(staged.parent)
            sync_folder(staged.parent.parent)
            keep(place, path, content)
        except BaseException:
            drop_staged(place.root, path)
            raise
    return NewFile(path, label, frame.height, to_us(frame["ts"][0]), to_us(frame["ts"][-1]), len(content), digest)


def encode(frame: pl.DataFrame) -> memoryview:
    """Return the bytes of a Parquet file that DuckDB, Polars, pyarrow, pandas and Spark read."""
    # Open times as differences: files are a fifth smaller and read a tenth faster. Of a backfill's pages each has one
    # `known_at`, of live candles each its own. Polars' writer, as fast, knows no choice of encodings.
    named = ["source", "run_id"]
    differing = ["ts", "known_at"]
    if frame["known_at"].n_unique() * _FEW < frame.height:
        named.append(differing.pop())
    buffer = io.BytesIO()
    pq.write_table(  # type: ignore[no-untyped-call]
        frame.select(list(STORED_SCHEMA)).to_arrow(compat_level=pl.CompatLevel.oldest()), buffer,
        row_group_size=ROW_GROUP_ROWS, compression="zstd", compression_level=COMPRESSION_LEVEL, use_dictionary=named,
        column_encoding=dict.fromkeys(differing, "DELTA_BINARY_PACKED"), write_statistics=["ts", "known_at"], store_schema=False)
    return buffer.getbuffer()


def swap_manifest(tx: Connection, series_id: int, files: list[NewFile], old: dict[str, tuple[int, int]],
                  now_us: int) -> None:
    """Make `files` the live ones of their partitions; `old` gives id and generation of those they supersede, by label."""
    superseded = [(now_us, old[file.label][0]) for file in files if file.label in old]
    execute_many(tx, "UPDATE lake_files SET superseded_at_us = ? WHERE id = ?", superseded)
    execute_many(
        tx, "INSERT INTO lake_files (dataset, series_id, period, path, rows, first_us, last_us, size_bytes, digest,"
        " generation, created_at_us) VALUES ('candles', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(series_id, file.label, file.path, file.rows, file.first_us, file.last_us, file.size_bytes, file.digest,
          old.get(file.label, (0, 0))[1] + 1, now_us) for file in files])


def enter_superseded(tx: Connection, series_id: int, files: list[NewFile], now_us: int) -> None:
    """Enter files that another one has taken the place of already."""
    execute_many(
        tx, "INSERT INTO lake_files (dataset, series_id, period, path, rows, first_us, last_us, size_bytes, digest,"
        " generation, created_at_us, superseded_at_us) VALUES ('candles', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
        [(series_id, file.label, file.path, file.rows, file.first_us, file.last_us, file.size_bytes, file.digest, now_us, now_us)
         for file in files])


def _write_synced(staged: os.PathLike[str], content: memoryview) -> None:
    # After a failed fsync the kernel may have dropped the pages: the file is abandoned, never synced again.
    with open(staged, "xb", buffering=0) as file:  # noqa: PTH123  Path.open has the same meaning and no advantage here
        view = content
        while view:
            view = view[file.write(view):]
        os.fsync(file.fileno())


def _check_back(staged: Path, content: memoryview, rows: int) -> None:
    found = staged.read_bytes()  # compared, which is quicker than to digest them once more and says as much
    if found != bytes(content) or pq.read_metadata(io.BytesIO(found)).num_rows != rows:  # type: ignore[no-untyped-call]
        raise StoreCorruptError(f"{staged}: the disk gave back other bytes than were written; check the disk")

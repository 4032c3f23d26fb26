"""Files of the ticks dataset: LAKE/ticks/connection=<slug>/symbol=<encoded>/date=<UTC day>/<unique>.parquet.

Each is immutable and in the manifest `tick_files`, with its digest. A new file is staged, synced and checked; the
manifest's transaction makes it live; then it is moved into the tree, in one exchange of folders when it takes the place
of others. Killed in between, the next holder of the lock finishes by what the manifest says.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Final

import polars as pl
from sqlalchemy import Connection

from core.clock import to_us
from core.errors import StoreBusyError, StoreCorruptError
from core.ticks import STORED_TICK_SCHEMA
from storage.lake import layout
from storage.lake.local import keep, present
from storage.lake.place import Place, locked, make_durable_folder, retire, sync_folder, translated
from storage.lake.publish import exchange
from storage.statements import execute_many, fetch, is_sqlite

STAGING: Final = ".ticks"  # below the lake's root; the candles' staging has a sweeper of its own
ROW_GROUP_ROWS: Final = 65_536
_COLUMNS: Final = "id, tick_series_id, date, path, rows, first_us, last_us, size_bytes, digest"


@dataclass(frozen=True, slots=True)
class TickFile:
    """One file of the manifest; `id` is 0 before it is in."""

    id: int
    series_id: int
    date: str
    path: str
    rows: int
    first_us: int
    last_us: int
    size_bytes: int
    digest: str


def series_folder(slug: str, symbol: str) -> PurePosixPath:
    """Return the folder of a symbol's ticks, below the lake's root."""
    return PurePosixPath(layout.TICKS, f"connection={slug}", f"symbol={layout.encode_symbol(symbol)}")


def parse_path(path: str) -> tuple[str, str, str]:
    """Return connection, symbol and date that a path below the lake's root names; StoreCorruptError when it is none."""
    parts = PurePosixPath(path).parts
    try:
        dataset, connection, symbol, day, name = parts
        keys = dict(part.split("=", 1) for part in (connection, symbol, day))
        found = keys["connection"], layout.decode_symbol(keys["symbol"]), date.fromisoformat(keys["date"]).isoformat()
    except (ValueError, KeyError) as error:
        raise StoreCorruptError(f"{path} is not a path of the lake; move it out of ticks/") from error
    if dataset != layout.TICKS or not name.endswith(".parquet"):
        raise StoreCorruptError(f"{path} is not a path of the lake; move it out of ticks/")
    return found


@contextlib.contextmanager
def writing(place: Place, slug: str, symbol: str) -> Iterator[str]:
    """Hold the lock of a symbol's tick writers, with all that an earlier writer left unfinished put right; give its key."""
    key = hashlib.sha256(str(series_folder(slug, symbol)).encode()).hexdigest()[:32]
    with locked(place.root, key):
        _settle(place, key)
        yield key


def stage(place: Place, key: str, folder: PurePosixPath, series_id: int, ticks: pl.DataFrame) -> TickFile:
    """Write ticks of one day (STORED_TICK_SCHEMA, sorted by ts, not empty) as a new file into staging.

    Raises:
        StoreFullError, StoreUnwritableError: nothing is left behind.
        StoreCorruptError: the disk gave back other bytes than were written.
    """
    buffer = io.BytesIO()
    ticks.select(list(STORED_TICK_SCHEMA)).write_parquet(
        buffer, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS, statistics=True)
    content, name = buffer.getbuffer(), uuid.uuid4().hex
    digest = hashlib.sha256(content).hexdigest()
    day = ticks["ts"][0].date().isoformat()
    path = folder / f"date={day}" / f"{name}.parquet"
    staged = _staged(place.root, key, str(path))
    with translated(staged):
        try:
            make_durable_folder(place.root, staged.parent)
            with staged.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _check_back(staged, digest)
            sync_folder(staged.parent)
            sync_folder(staged.parent.parent)
            keep(place, str(path), content)
        except BaseException:
            _drop(staged)
            raise
    first, last = to_us(ticks["ts"][0]), to_us(ticks["ts"][-1])
    return TickFile(0, series_id, day, str(path), ticks.height, first, last, len(content), digest)


def enter(tx: Connection, new: Sequence[TickFile], superseded: Sequence[TickFile], now_us: int) -> None:
    """Make `new` files live and others superseded, in the caller's transaction.

    Raises:
        StoreBusyError: another machine has superseded one of them meanwhile; nothing is changed.
    """
    for file in superseded:
        lock = "" if is_sqlite(tx) else " FOR UPDATE"
        if not fetch(tx, f"SELECT id FROM tick_files WHERE id = ? AND superseded_at_us IS NULL{lock}", (file.id,)):  # noqa: S608  a constant
            raise StoreBusyError(f"{file.path} was superseded by another machine meanwhile; try again")
    execute_many(tx, "UPDATE tick_files SET superseded_at_us = ? WHERE id = ?", [(now_us, file.id) for file in superseded])
    execute_many(
        tx, "INSERT INTO tick_files (tick_series_id, date, path, rows, first_us, last_us, size_bytes, digest, created_at_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(file.series_id, file.date, file.path, file.rows, file.first_us, file.last_us, file.size_bytes, file.digest, now_us)
         for file in new])


def publish(place: Place, key: str, path: str, superseded: Sequence[str] = ()) -> None:
    """Bring a live file from staging into the tree, and what it supersedes to .old/. Nothing to do when it is there."""
    staged, target = _staged(place.root, key, path), place.root / path
    with translated(target.parent):
        if not staged.exists():
            return
        make_durable_folder(place.root, target.parent)
        names = {item.name for item in target.parent.iterdir()}
        gone = {PurePosixPath(item).name for item in superseded}
        if names and names <= gone and exchange(staged.parent, target.parent):
            for item in list(staged.parent.iterdir()):
                old = layout.old_path(place.root, str(PurePosixPath(path).parent / item.name))
                old.parent.mkdir(parents=True, exist_ok=True)
                item.rename(old)
        else:
            for name in names & gone:
                retire(place.root, str(PurePosixPath(path).parent / name))
            staged.rename(target)
        with contextlib.suppress(OSError):
            staged.parent.rmdir()
        sync_folder(target.parent)


def live_files(tx: Connection, series_id: int, first_us: int, last_us: int) -> list[TickFile]:
    """Return the live files of a symbol that hold ticks in [first_us, last_us], oldest first."""
    return [TickFile(*row) for row in fetch(
        tx, f"SELECT {_COLUMNS} FROM tick_files WHERE tick_series_id = ? AND superseded_at_us IS NULL"  # noqa: S608  a constant
        " AND last_us >= ? AND first_us <= ? ORDER BY first_us, id", (series_id, first_us, last_us))]


def all_live(tx: Connection) -> list[TickFile]:
    """Return every live file by path."""
    return [TickFile(*row) for row in fetch(
        tx, f"SELECT {_COLUMNS} FROM tick_files WHERE superseded_at_us IS NULL ORDER BY path")]  # noqa: S608  a constant


def where(place: Place, path: str) -> Path:
    """Return where a live or superseded file lies now: in the tree, in staging on its way in, in .old/, or fetched.

    Raises: as `storage.lake.local.present`.
    """
    if (place.root / path).exists():
        return place.root / path
    staged = next((place.root / STAGING).glob(f"*/{PurePosixPath(path).name}"), None)
    return present(place, path) if staged is None else staged


def stored_bytes(place: Place, path: str) -> bytes:
    """Return a file's bytes from where it is kept for good; FileNotFoundError when it is not there."""
    return where(place, path).read_bytes() if place.objects is None else place.objects.get(path)


def _staged(root: Path, key: str, path: str) -> Path:
    name = PurePosixPath(path)
    return root / STAGING / f"{key}.{name.stem}" / name.name


def _check_back(staged: Path, digest: str) -> None:
    with staged.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise StoreCorruptError(f"{staged}: the disk gave back other bytes than were written; check the disk")


def _drop(staged: Path) -> None:
    staged.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        staged.parent.rmdir()


def _settle(place: Place, key: str) -> None:
    """Finish what a killed writer left under a lock's key: live files go into the tree, superseded ones to .old/."""
    top = place.root / STAGING
    left = [item for item in top.iterdir() if item.name.startswith(key + ".")] if top.is_dir() else []
    if not left:
        return
    with place.metadata.read() as tx:
        known = {PurePosixPath(path).name: (path, gone is None) for path, gone in
                 fetch(tx, "SELECT path, superseded_at_us FROM tick_files")}
    with translated(top):
        for entry in left:
            for item in list(entry.iterdir()):
                path, is_live = known.get(item.name, ("", False))
                if is_live:
                    gone = [other for other, alive in known.values() if not alive and PurePosixPath(other).parent == PurePosixPath(path).parent]
                    publish(place, key, path, gone)
                elif path:
                    old = layout.old_path(place.root, path)
                    old.parent.mkdir(parents=True, exist_ok=True)
                    item.rename(old)
                else:
                    item.unlink()
            with contextlib.suppress(OSError):
                entry.rmdir()

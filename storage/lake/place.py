"""Where a lake lies and what its parts share: root folder, metadata store, clock; and the files' elementary moves."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from core.clock import Clock
from core.errors import StoreBusyError, StoreCorruptError, StoreFullError, StoreUnwritableError
from storage.lake import layout
from storage.lake.copy_limit import CopyLimit
from storage.lake.objects import Objects
from storage.metadata.store import MetadataStore

_NAMED = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT)  # Polars and DuckDB give the text alone
LOCK_TIMEOUT = 600.0  # seconds: a flush of a large series may take minutes on a slow disk


@dataclass(frozen=True, slots=True)
class Place:
    """A lake's root folder, its metadata store and its clock; on S3 the folder is this machine's working copy of `objects`."""

    root: Path
    metadata: MetadataStore
    clock: Clock
    objects: Objects | None = None
    copies: CopyLimit | None = None  # of what lies in `objects`; None: as many as there are


def make_folders(root: Path) -> None:
    """Make the lake's own folders; StoreUnwritableError or StoreFullError when that fails."""
    with translated(root):
        for name in (layout.CANDLES, layout.REVISIONS, layout.STAGING, layout.OLD, layout.LOCKS, layout.CATALOG):
            (root / name).mkdir(parents=True, exist_ok=True)


@contextmanager
def locked(root: Path, key: str, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock of a series' writers, over threads and processes; a killed holder frees it.

    Raises:
        StoreBusyError: another writer held it for `timeout` seconds.
    """
    lock = FileLock(layout.lock_path(root, key), timeout=timeout, fallback_to_soft=False)
    with translated(root):
        try:
            lock.acquire()
        except Timeout as error:
            raise StoreBusyError(f"another process has been writing this series for {timeout:g} s; try again") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn errors of the file system into the store's own."""
    try:
        yield
    except OSError as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: OSError) -> Exception:
    """Return the store's error for what the file system said about `path`."""
    reason = error.strerror or str(error).splitlines()[0]
    number = error.errno or next((number for number in _NAMED if os.strerror(number) in str(error)), None)
    if number in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return StoreFullError(f"no space left at {path} ({reason}); free some and run again: what was stored is intact")
    if number in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return StoreUnwritableError(f"cannot write {path} ({reason}); check owner and mode of the lake's folder")
    if number == errno.ENOENT:
        return StoreCorruptError(f"{path} is missing; run `candlelake verify`")
    return StoreUnwritableError(f"cannot use {path} ({reason}); check the disk, then run `candlelake verify`")


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durable_folder(root: Path, folder: Path) -> None:
    """Make `folder` and its parents up to `root`, each new name durable."""
    if folder.is_dir():
        return
    if folder != root:
        make_durable_folder(root, folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def retire(root: Path, path: str) -> None:
    """Move a superseded file to .old/, where readers that pinned it still find it; nothing when it is gone already."""
    source, target = root / path, layout.old_path(root, path)
    with translated(root):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except FileNotFoundError:
            return  # another sweep was faster

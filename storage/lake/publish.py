"""Brings a committed file into the tree in place of the one it supersedes, and finishes what a killed writer began.

A file is written in a folder of its own below .staging/. The manifest's transaction makes it live; from then on our
readers find it by its unique name, wherever it lies. Publishing exchanges that folder with the partition's in one step
of the file system (renameat2 with RENAME_EXCHANGE), so that a plain glob meets the old file or the new one, never both
and never none; then the old one goes to .old/. Where the file system knows no exchange, the old file is moved out
before the new one is moved in. Killed at any step, the next holder of the series' lock finishes by what the manifest says.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Collection, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from core.errors import StoreBusyError
from core.series import Series
from storage.lake import layout
from storage.lake.place import Place, locked, retire, sync_folder, translated
from storage.statements import fetch

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.ENOTSUP, errno.EPERM})


@contextlib.contextmanager
def writing(place: Place, series: Series) -> Iterator[None]:
    """Hold the lock of a series' writers, with all that an earlier writer left unfinished put right.

    Raises:
        StoreBusyError: another writer held the lock for too long.
    """
    key = layout.lock_key(series)
    with locked(place.root, key):
        settle(place, key)
        yield


def publish(root: Path, path: str, superseded: Collection[str]) -> None:
    """Bring the live file `path` from staging into the tree, and the superseded files of its partition to .old/.

    The caller holds the series' lock. Nothing to do when the file lies in the tree already.
    """
    staged, folder = layout.staged_file(root, path), (root / path).parent
    with translated(folder):
        if not staged.exists():
            return
        names = {item.name for item in folder.iterdir()} if folder.is_dir() else set()
        known = {PurePosixPath(item).name for item in superseded if PurePosixPath(item).parent == PurePosixPath(path).parent}
        if not names:
            staged.parent.rename(folder)  # an empty folder gives way
        elif names <= known and exchange(staged.parent, folder):
            _retire_all(root, staged.parent, PurePosixPath(path).parent)
        else:  # no exchange here, or a file that is not ours to move lies beside it
            for name in names & known:
                retire(root, str(PurePosixPath(path).parent / name))
            staged.rename(folder / staged.name)
            staged.parent.rmdir()
            sync_folder(folder)
        sync_folder(folder.parent)


def settle(place: Place, key: str) -> int:
    """Finish what a killed writer left in staging under a lock's key; return how many files were put right or deleted.

    The caller holds that lock. Live files are published, superseded ones go to .old/, unknown ones are deleted.
    """
    with translated(place.root):
        left = [item for item in (place.root / layout.STAGING).iterdir() if item.name.split(".", 1)[0] == key]
        if not left:
            return 0
        files = _manifest_by_name(place)
        return sum(_settle(place.root, item, files) for item in left)


def settle_all(place: Place) -> int:
    """Do `settle` for every key whose writer is not at work."""
    with translated(place.root):
        keys = sorted({item.name.split(".", 1)[0] for item in (place.root / layout.STAGING).iterdir()})
    count = 0
    for key in keys:
        with contextlib.suppress(StoreBusyError), locked(place.root, key, timeout=0):  # else its writer is at work
            count += settle(place, key)
    return count


def drop_staged(root: Path, path: str) -> None:
    """Delete a staged file that never became live."""
    staged = layout.staged_file(root, path)
    staged.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        staged.parent.rmdir()


def exchange(left: Path, right: Path) -> bool:
    """Exchange two folders in one step; False when this system or file system cannot, and nothing was changed.

    Raises:
        OSError: another reason.
    """
    call = _renameat2()
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(left), _AT_FDCWD, os.fsencode(right), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(right))


@lru_cache(maxsize=1)
def _renameat2() -> Any:
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):  # not Linux, or a C library of before 2018
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return call


def _manifest_by_name(place: Place) -> dict[str, tuple[str, bool]]:
    with place.metadata.read() as tx:
        rows = fetch(tx, "SELECT path, superseded_at_us FROM lake_files")
    return {PurePosixPath(path).name: (path, gone is None) for path, gone in rows}


def _settle(root: Path, entry: Path, files: Mapping[str, tuple[str, bool]]) -> int:
    if not entry.is_dir():  # a half-written catalog
        entry.unlink(missing_ok=True)
        return 1
    count = 0
    for item in list(entry.iterdir()):
        path, is_live = files.get(item.name, ("", False))
        count += 1
        if is_live and item == layout.staged_file(root, path):
            (root / path).parent.parent.mkdir(parents=True, exist_ok=True)
            publish(root, path, {known for known, alive in files.values() if not alive})
        elif path:
            _move_to_old(root, item, path)
        else:
            item.unlink()
    with contextlib.suppress(FileNotFoundError):  # it became the partition's folder
        entry.rmdir()
    return count


def _retire_all(root: Path, folder: Path, below: PurePosixPath) -> None:
    for item in list(folder.iterdir()):
        _move_to_old(root, item, str(below / item.name))
    folder.rmdir()


def _move_to_old(root: Path, file: Path, path: str) -> None:
    target = layout.old_path(root, path)
    target.parent.mkdir(parents=True, exist_ok=True)
    file.rename(target)

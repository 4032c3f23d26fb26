"""Clears away what nobody needs: .old/ past its grace, and what killed writers left."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import StoreBusyError, StoreCorruptError
from storage.lake import layout
from storage.lake.copy_limit import trim
from storage.lake.object_sweep import sweep_copies, sweep_objects
from storage.lake.place import Place, locked, retire, translated
from storage.lake.publish import settle, settle_all
from storage.statements import execute_many, fetch


@dataclass(frozen=True, slots=True)
class SweepResult:
    """How many files were deleted or moved to .old/."""

    files: int


def sweep(place: Place, grace_hours: float) -> SweepResult:
    """Delete .old/ past its grace; finish or delete what lies in .staging/; move to .old/ what the manifest does not call live.

    Safe while others write: a file counts as left over only while we hold the lock that its writer would hold. Files of
    series that the metadata store does not know stay: `rebuild` may want them. On S3 the same is done to the objects.

    Raises:
        StoreFullError, StoreUnwritableError: a folder cannot be changed.
        TransientError, PermanentError: the object store does not answer, or refuses; the folder is swept.
    """
    with translated(place.root):
        count = settle_all(place) + _sweep_tree(place)
        count += _sweep_old(place, grace_hours)
        if place.objects is not None:
            count += sweep_copies(place, _now_of_files(place.root), grace_hours)
            if place.copies is not None:
                count += trim(place.root, place.copies.max_bytes, _now_of_files(place.root))
            _remove_empty(place.root / layout.CACHE)
    if place.objects is not None:
        count += sweep_objects(place, place.objects, grace_hours)
    return SweepResult(count)


def tree_files(root: Path) -> Iterator[str]:
    """Yield every file under the candles' root, as a path below the lake's root."""
    for folder, _, names in os.walk(root / layout.CANDLES):
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def manifest(place: Place) -> dict[str, bool]:
    """Return every path in the manifest and whether it is live."""
    with place.metadata.read() as tx:
        return {path: gone is None for path, gone in fetch(tx, "SELECT path, superseded_at_us FROM lake_files")}


def _sweep_tree(place: Place) -> int:
    known = manifest(place)
    strays = [path for path in tree_files(place.root) if path.endswith(".parquet") and not known.get(path, False)]
    if not strays:
        return 0
    with place.metadata.read() as tx:
        series = {tuple(row) for row in fetch(
            tx, "SELECT slug, symbol, timeframe FROM series JOIN connections ON connections.id = connection_id")}
    return sum(_retire_stray(place, path, series) for path in strays)


def _retire_stray(place: Place, path: str, known_series: set[tuple[str, ...]]) -> bool:
    try:
        key, _ = layout.parse_path(path)
    except StoreCorruptError:
        return False  # not ours: `verify` names it
    if (key.connection, key.symbol, key.timeframe.name) not in known_series:
        return False
    try:
        with locked(place.root, layout.lock_key(key), timeout=0):
            settle(place, layout.lock_key(key))  # its successor comes in before it goes
            with place.metadata.read() as tx:
                live = fetch(tx, "SELECT 1 FROM lake_files WHERE path = ? AND superseded_at_us IS NULL", (path,))
            if live or not (place.root / path).exists():
                return False
            retire(place.root, path)
            return True
    except StoreBusyError:
        return False  # its writer is at work


def _sweep_old(place: Place, grace_hours: float) -> int:
    old = place.root / layout.OLD
    files = [Path(folder) / name for folder, _, names in os.walk(old) for name in names]
    if not files:
        return 0
    known, pinned = manifest(place), _pinned(place)
    now, gone = _now_of_files(place.root), []
    for file in files:
        path = file.relative_to(old).as_posix()
        # A rename sets the change time: it says since when the file has lain here.
        if not known.get(path, False) and path not in pinned and now - file.stat().st_ctime >= grace_hours * 3600:
            file.unlink(missing_ok=True)
            gone.append((path,))
    if place.objects is None:  # else the manifest keeps them for as long as the object store does
        with place.metadata.write() as tx:
            execute_many(tx, "DELETE FROM lake_files WHERE path = ? AND superseded_at_us IS NOT NULL", gone)
    _remove_empty(old)
    return len(gone)


def _pinned(place: Place) -> set[str]:
    """Return the paths that named snapshots need, superseded or not."""
    with place.metadata.read() as tx:
        return {row[0] for row in fetch(tx, "SELECT path FROM snapshot_files")}


def _now_of_files(root: Path) -> float:
    """Return the present by the clock of the file system, which stamps the files whose age is asked."""
    probe = root / layout.LOCKS / f"{uuid.uuid4().hex}.now"
    probe.touch()
    try:
        return probe.stat().st_ctime
    finally:
        probe.unlink()


def _remove_empty(top: Path) -> None:
    for folder, _, _ in os.walk(top, topdown=False):
        if folder != str(top):
            with contextlib.suppress(OSError):  # not empty, or filled again at this moment
                Path(folder).rmdir()

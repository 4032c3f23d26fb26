"""Checks every file of the lake against the manifest: no Parquet reader notices a flipped bit by itself."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import polars as pl
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA
from core.clock import to_us
from core.errors import StoreCorruptError
from core.series import Series
from core.unreadable import UNREADABLE, first_line
from storage.lake import layout
from storage.lake.local import find
from storage.lake.object_sweep import stray_objects
from storage.lake.objects import Objects
from storage.lake.place import Place, locked
from storage.lake.publish import writing
from storage.lake.revision_files import REVISION_SCHEMA
from storage.lake.sweep import manifest, tree_files
from storage.statements import fetch

Progress = Callable[[int, int, str], None]
_SWEPT = "`candlelake cleanup --apply` sweeps what a killed writer left; `candlelake audit --rebuild` takes it in after lost metadata"
_REFETCH = "move the file out of the lake, run `candlelake audit --rebuild` and backfill its range"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do about it. `path` is below the lake's root."""

    path: str
    what: str
    fix: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked, and what is wrong."""

    files: int
    rows: int
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Entry:
    path: str
    rows: int
    first_us: int
    last_us: int
    size_bytes: int
    digest: str
    dataset: str


def verify(place: Place, progress: Progress | None = None) -> VerifyReport:
    """Check digest, row count, schema and order of every live file, and look for files that are missing or not ours.

    On S3 it is the objects that are read, and this machine's copies besides.

    Raises:
        TransientError, PermanentError: the object store does not answer, or refuses.
    """
    with place.metadata.read() as tx:
        entries = _entries(tx)
    problems: list[Problem] = []
    for done, entry in enumerate(entries):
        if progress is not None:
            progress(done, len(entries), entry.path)
        problem = _check(place, entry)
        if problem is not None and _is_live(place, entry.path):  # superseded meanwhile: nothing is wrong
            problems.append(problem)
    problems += _strays(place) if place.objects is None else _stray_objects(place, place.objects)
    if progress is not None:
        progress(len(entries), len(entries), "verified")
    return VerifyReport(len(entries), sum(entry.rows for entry in entries), problems)


def _entries(tx: Connection) -> list[_Entry]:
    return [_Entry(*row) for row in fetch(tx, "SELECT path, rows, first_us, last_us, size_bytes, digest, dataset FROM lake_files"
                                              " WHERE superseded_at_us IS NULL AND dataset IN ('candles', 'revisions') ORDER BY path")]


def _is_live(place: Place, path: str) -> bool:
    return manifest(place).get(path, False)


def _check(place: Place, entry: _Entry) -> Problem | None:
    return _check_file(place, entry) if place.objects is None else _check_object(place, place.objects, entry)


def _check_object(place: Place, objects: Objects, entry: _Entry) -> Problem | None:
    try:
        content = objects.get(entry.path)
    except FileNotFoundError:
        return Problem(entry.path, f"missing in {objects.url}", "restore it from a version or replica of the bucket, or put a machine's copy back")
    problem = _bytes_problem(content, entry)
    copy = find(place.root, entry.path)
    if problem is None and copy is not None:
        with contextlib.suppress(FileNotFoundError):  # swept at this moment
            if copy.read_bytes() != content:
                return Problem(entry.path, f"the copy at {copy} is not what was written", "delete that copy: it is fetched anew")
    return problem


def _check_file(place: Place, entry: _Entry) -> Problem | None:
    root, path = place.root, place.root / entry.path
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        with writing(place, layout.parse_path(entry.path)[0]):  # it may be on its way in, or its writer was killed
            if path.exists():
                return _check_file(place, entry)
        if layout.old_path(root, entry.path).exists():
            return Problem(entry.path, "live, but lies in .old/", f"move it back from .old/ to {entry.path}")
        return Problem(entry.path, "missing", "restore it from a backup, or run `candlelake audit --rebuild` and backfill its range")
    except OSError as error:
        return Problem(entry.path, f"cannot be read: {error.strerror}", "check the disk and the file's mode")
    return _bytes_problem(content, entry)


def _bytes_problem(content: bytes, entry: _Entry) -> Problem | None:
    if hashlib.sha256(content).hexdigest() != entry.digest:
        size = "" if len(content) == entry.size_bytes else f" ({len(content)} bytes instead of {entry.size_bytes})"
        return Problem(entry.path, f"its bytes are not those that were written{size}", _REFETCH)
    try:
        what = _content_problem(pl.read_parquet(content, hive_partitioning=False), entry)
    except UNREADABLE as error:
        what = f"not readable as Parquet: {first_line(error)}"
    return None if what is None else Problem(entry.path, what, _REFETCH)


def _content_problem(frame: pl.DataFrame, entry: _Entry) -> str | None:
    columns = STORED_SCHEMA if entry.dataset == layout.CANDLES else REVISION_SCHEMA
    if dict(frame.schema) != dict(columns):
        return f"its columns are {', '.join(frame.columns)} or their types differ from the lake's"
    if frame.height != entry.rows:
        return f"holds {frame.height} rows instead of {entry.rows}"
    if not frame["ts"].is_sorted() or (entry.dataset == layout.CANDLES and frame["ts"].n_unique() != frame.height):
        return "not sorted by time, or two rows for one time"
    if (to_us(frame["ts"][0]), to_us(frame["ts"][-1])) != (entry.first_us, entry.last_us):
        return "its first or last time is not what the manifest says"
    return None


def _strays(place: Place) -> list[Problem]:
    known = manifest(place)
    return [problem for path in sorted(tree_files(place.root)) if not known.get(path, False)
            and (problem := _stray(place, path)) is not None]


def _stray_objects(place: Place, objects: Objects) -> list[Problem]:
    return [Problem(path, f"in {objects.url}, but not in the manifest", _SWEPT) if is_ours
            else Problem(path, f"in {objects.url}, but not a file of the lake", "move it out of the lake's prefix")
            for path, is_ours in sorted(stray_objects(place, objects))]


def _stray(place: Place, path: str) -> Problem | None:
    try:
        key: Series | None = layout.parse_path(path)[0]
    except StoreCorruptError:
        key = None
    if key is None or not path.endswith(".parquet"):
        return Problem(path, "not a file of the lake; it breaks other readers", "move it out of candles/")
    with locked(place.root, layout.lock_key(key)):  # its writer may be about to commit it, or to move it away
        known = manifest(place)
        if known.get(path, False) or not (place.root / path).exists():
            return None
    if path in known:
        return Problem(path, "superseded, but still in the tree: plain readers see its rows twice", "run `candlelake cleanup --apply`, which sweeps")
    return Problem(path, "not in the manifest", _SWEPT)

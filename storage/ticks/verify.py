"""Checks the files of the ticks dataset against their manifest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl

from core.clock import to_us
from core.errors import StoreCorruptError
from core.ticks import STORED_TICK_SCHEMA, without_repeats
from storage.lake import layout
from storage.lake.place import Place
from storage.lake.verify import Problem, VerifyReport
from storage.statements import fetch
from storage.ticks import files
from storage.ticks.files import TickFile

_FIX = "move the file out of the lake and run `candlelake backfill-ticks` over its day"


def verify_ticks(place: Place) -> VerifyReport:
    """Check digest, rows, columns, order and uniqueness of every live tick file, and look for files that are not ours."""
    with place.metadata.read() as tx:
        live = files.all_live(tx)
    problems = [problem for item in live if (problem := _check(place, item)) is not None and _is_live(place, item.path)]
    return VerifyReport(len(live), sum(item.rows for item in live), [*problems, *_strays(place)])


def _is_live(place: Place, path: str) -> bool:
    with place.metadata.read() as tx:
        return bool(fetch(tx, "SELECT 1 FROM tick_files WHERE path = ? AND superseded_at_us IS NULL", (path,)))


def _check(place: Place, item: TickFile) -> Problem | None:
    try:
        content = files.stored_bytes(place, item.path)
    except FileNotFoundError:
        return Problem(item.path, "missing", "restore it from a backup, or run `candlelake backfill-ticks` over its day")
    if hashlib.sha256(content).hexdigest() != item.digest:
        return Problem(item.path, "its bytes are not those that were written", _FIX)
    frame = pl.read_parquet(content, hive_partitioning=False)
    what = None
    if dict(frame.schema) != dict(STORED_TICK_SCHEMA):
        what = "its columns or their types differ from the lake's"
    elif frame.height != item.rows:
        what = f"holds {frame.height} rows instead of {item.rows}"
    elif not frame["ts"].is_sorted() or without_repeats(frame).height != frame.height:
        what = "not sorted by time, or holds repeats"
    elif (to_us(frame["ts"][0]), to_us(frame["ts"][-1])) != (item.first_us, item.last_us):
        what = "its first or last time is not what the manifest says"
    return None if what is None else Problem(item.path, what, _FIX)


def _strays(place: Place) -> list[Problem]:
    out: list[Problem] = []
    if place.objects is not None:  # the folder is a working copy: `storage.lake.verify` names strays of the object store
        return out
    for folder, _, names in os.walk(place.root / layout.TICKS):
        for name in sorted(names):
            path = (Path(folder) / name).relative_to(place.root).as_posix()
            try:
                files.parse_path(path)
            except StoreCorruptError:
                out.append(Problem(path, "not a file of the lake; it breaks other readers", "move it out of ticks/"))
                continue
            if (place.root / path).exists() and not _is_live(place, path):
                out.append(Problem(path, "not live in the manifest: plain readers see its rows too", "move it out of ticks/"))
    return out

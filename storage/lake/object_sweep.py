"""Clears an object store, and this machine's copies of it: superseded files past their grace, and what killed writers left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from core.clock import HOUR_US
from core.errors import StoreCorruptError
from storage.lake import layout
from storage.lake.objects import Objects
from storage.lake.place import Place
from storage.metadata.store import MetadataStore
from storage.statements import execute_many, fetch
from storage.ticks.files import parse_path as parse_tick_path

DATASETS = (layout.CANDLES, layout.REVISIONS, layout.TICKS)
STRAY_HOURS = 24.0  # a file is put before the manifest names it: no writer takes that long


def superseded_at(metadata: MetadataStore) -> dict[str, int | None]:
    """Return every path of both manifests with the instant since which it is superseded; None while it is live."""
    with metadata.read() as tx:
        return dict(fetch(tx, "SELECT path, superseded_at_us FROM lake_files UNION ALL SELECT path, superseded_at_us FROM tick_files"))


def sweep_objects(place: Place, objects: Objects, grace_hours: float) -> int:
    """Delete objects that are superseded for longer than the grace, and strays of known series; return how many.

    Strays of series that the metadata store does not know stay for `rebuild`, unless they were removed on purpose.
    """
    rows = [(row.path, row.put_at_us) for row in objects.list(*DATASETS)]  # before the manifest: what is new in it is not judged
    marks = {row.path.removeprefix(f"{layout.OLD}/"): row.put_at_us for row in objects.list(layout.OLD)}
    known, kept = superseded_at(place.metadata), _pinned(place)
    series = _known_series(place)
    now_us = place.clock.now_us()
    grace_us, stray_us = int(grace_hours * HOUR_US), int(max(grace_hours, STRAY_HOURS) * HOUR_US)
    gone = []
    for path, put_at_us in rows:
        if path in kept:
            continue
        if path in known:
            since = known[path]
            is_over = since is not None and now_us - since >= grace_us
        elif path in marks:
            is_over = now_us - marks[path] >= grace_us
        else:
            is_over = now_us - put_at_us >= stray_us and _key(path) in series
        if is_over:
            gone.append(path)
    objects.delete(gone)
    left = {path for path, _ in rows} - set(gone)
    objects.delete([f"{layout.OLD}/{path}" for path in marks if path not in left])
    done = [(path,) for path, since in known.items()
            if since is not None and now_us - since >= grace_us and path not in left and path not in kept]
    with place.metadata.write() as tx:
        execute_many(tx, "DELETE FROM lake_files WHERE path = ? AND superseded_at_us IS NOT NULL", done)
    return len(gone)


def sweep_copies(place: Place, now: float, grace_hours: float) -> int:
    """Delete this machine's copies of files that are live no more; `now` is the file system's present in seconds."""
    known, kept = superseded_at(place.metadata), _pinned(place)
    count = 0
    for path, file in copies(place.root):
        if known.get(path, 0) is not None and path not in kept and now - file.stat().st_ctime >= grace_hours * 3600:
            file.unlink(missing_ok=True)
            count += 1
    return count


def copies(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield what lies in .cache/ and the trees of revisions and ticks: the path it stands for, and the file."""
    for top, base in ((root / layout.CACHE, root / layout.CACHE), (root / layout.REVISIONS, root), (root / layout.TICKS, root)):
        for folder, _, names in os.walk(top):
            for name in names:
                yield (Path(folder) / name).relative_to(base).as_posix(), Path(folder) / name


def stray_objects(place: Place, objects: Objects) -> list[tuple[str, bool]]:
    """Return objects that no manifest names and whose writer cannot be at work any more, and whether they are paths of a lake."""
    rows = list(objects.list(*DATASETS))
    known, gone, now_us = superseded_at(place.metadata), objects.removed(), place.clock.now_us()
    return [(row.path, _key(row.path) is not None) for row in rows
            if row.path not in known and row.path not in gone and now_us - row.put_at_us >= HOUR_US]


def _key(path: str) -> tuple[str, ...] | None:
    """Return connection, symbol and timeframe (or `ticks`) of a path; None when it is none of the lake's."""
    try:
        if path.startswith(f"{layout.TICKS}/"):
            slug, symbol, _ = parse_tick_path(path)
            return slug, symbol, layout.TICKS
        series, _ = layout.parse_path(path)
    except StoreCorruptError:
        return None
    return series.connection, series.symbol, series.timeframe.name


def _known_series(place: Place) -> set[tuple[str, ...] | None]:
    with place.metadata.read() as tx:
        rows = fetch(tx, "SELECT slug, symbol, timeframe FROM series JOIN connections ON connections.id = connection_id")
        ticks = fetch(tx, "SELECT slug, symbol FROM tick_series s JOIN connections ON connections.id = s.connection_id")
    return {*(tuple(row) for row in rows), *((slug, symbol, layout.TICKS) for slug, symbol in ticks)}


def _pinned(place: Place) -> set[str]:
    with place.metadata.read() as tx:
        return {row[0] for row in fetch(tx, "SELECT path FROM snapshot_files")}

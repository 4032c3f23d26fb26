"""Makes manifest, series and connections again from the files alone, after the metadata was lost."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import polars as pl
from sqlalchemy import Connection, insert, select

from core.candles import STORED_SCHEMA
from core.clock import to_us
from core.errors import StoreCorruptError
from core.series import Series
from core.unreadable import UNREADABLE
from storage.lake import layout
from storage.lake.flush import live_by_label, lock_series
from storage.lake.local import present, stored_files
from storage.lake.place import Place
from storage.lake.publish import publish, writing
from storage.lake.retention import refresh_watermarks
from storage.lake.sweep import manifest
from storage.lake.writer import NewFile, enter_superseded, swap_manifest, write_file
from storage.metadata.tables import connections
from storage.series import ensure_series


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What was made again; `skipped` names files that are not ours or cannot be read."""

    connections: int
    series: int
    files: int
    rows: int
    skipped: list[str]
    revisions: int = 0
    tick_files: int = 0
    ticks: int = 0


def rebuild(place: Place) -> RebuildReport:
    """Take every candle file that the manifest does not know into it; connections come back inactive.

    Files of one partition are merged: for each time the value known last wins. What the head held is lost; the gap ledger and
    the next fetch find what is missing. Revisions come back from their own files.
    """
    known = manifest(place)
    by_partition: dict[tuple[Series, str], list[str]] = defaultdict(list)
    skipped: list[str] = []
    for path in sorted(stored_files(place, layout.CANDLES)):
        if path in known:
            continue
        try:
            by_partition[layout.parse_path(path)].append(path)
        except StoreCorruptError:
            skipped.append(path)
    made, seen, files, rows = 0, set(), 0, 0
    for (series, label), paths in sorted(by_partition.items()):
        frames, readable = {}, []
        for path in paths:
            frame = read_sound(place, path, STORED_SCHEMA)
            if frame is None:
                skipped.append(path)
            else:
                frames[path] = frame
                readable.append(path)
        if not readable:
            continue
        with writing(place, series):
            made += _take_in(place, series, label, frames)
        seen.add(series)
        files, rows = files + 1, rows + sum(frame.height for frame in frames.values())
    return RebuildReport(made, len(seen), files, rows, skipped)


def read_sound(place: Place, path: str, schema: pl.Schema) -> pl.DataFrame | None:
    """Return what a file holds, as `schema`; None when it holds nothing or cannot be read: the report names it."""
    try:
        frame = pl.read_parquet(present(place, path), hive_partitioning=False)
        return frame.select(list(schema)).cast(schema) if frame.height else None
    except UNREADABLE:
        return None


def _take_in(place: Place, series: Series, label: str, frames: dict[str, pl.DataFrame]) -> int:
    with place.metadata.write() as tx:
        made, connection_id = ensure_connection(tx, series.connection, place.clock.now_us())
        row = ensure_series(tx, connection_id, series.symbol, series.timeframe, place.clock.now_us())
        live = live_by_label(tx, row.id).get(label)
    below = read_sound(place, live.path, STORED_SCHEMA) if live else None
    parts = [*frames.values(), *([below] if below is not None else [])]
    merged = pl.concat(parts).sort("ts", "known_at").unique("ts", keep="last", maintain_order=True)
    if len(parts) == 1:
        new = _described(place, label, *next(iter(frames.items())))
        gone: list[str] = []
    else:
        new = write_file(place, series, label, merged)
        gone = [*frames, *([live.path] if live else [])]
    with place.metadata.write() as tx:
        lock_series(tx, row.id)
        if gone and place.objects is not None:  # they stay there for a grace: noted, so that they are not taken in once more
            enter_superseded(tx, row.id, [_described(place, label, path, frame) for path, frame in frames.items()], place.clock.now_us())
        swap_manifest(tx, row.id, [new], {label: (live.id, live.generation)} if live else {}, place.clock.now_us())
        refresh_watermarks(tx, row.id)
    publish(place.root, new.path, gone)
    return made


def _described(place: Place, label: str, path: str, frame: pl.DataFrame) -> NewFile:
    content = present(place, path).read_bytes()
    return NewFile(path, label, frame.height, to_us(frame["ts"][0]), to_us(frame["ts"][-1]), len(content), hashlib.sha256(content).hexdigest())


def ensure_connection(tx: Connection, slug: str, now_us: int) -> tuple[int, int]:
    """Return 1 when the connection had to be made (inactive, its provider unknown), else 0, and its id."""
    found = tx.execute(select(connections.c.id).where(connections.c.slug == slug)).scalar()
    if found is not None:
        return 0, found
    made = tx.execute(insert(connections).values(
        slug=slug, name=slug, type="crypto", provider="unknown", config={}, settings={}, status="inactive",
        status_reason="rebuilt from the lake's files; set provider and credentials, then activate it",
        is_active=False, is_admin_owned=False, created_at_us=now_us, updated_at_us=now_us))
    return 1, int((made.inserted_primary_key or [0])[0])

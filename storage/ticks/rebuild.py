"""Takes tick files that the manifest does not know into it: after the metadata was lost, all of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field

import polars as pl

from core.clock import to_us
from core.errors import StoreCorruptError
from core.ticks import STORED_TICK_SCHEMA, without_known
from storage.lake import layout
from storage.lake.local import present, remove, stored_files
from storage.lake.place import Place
from storage.lake.rebuild import ensure_connection, read_sound
from storage.statements import fetch
from storage.ticks import files, losses
from storage.ticks.files import TickFile


@dataclass(slots=True)
class TickRebuild:
    """What came back; `skipped` names files that are not ours or cannot be read."""

    connections: int = 0
    files: int = 0
    rows: int = 0
    skipped: list[str] = field(default_factory=list)


def rebuild_ticks(place: Place) -> TickRebuild:
    """Take every tick file that the manifest does not know into it; connections come back inactive.

    A file whose ticks lie in another one too (a kill in the middle of joining a day leaves both) is replaced by what is new in it.
    Ranges that were booked as lost are not in the files: they are gone with the metadata.
    """
    with place.metadata.read() as tx:
        known = {row[0] for row in fetch(tx, "SELECT path FROM tick_files")}
    report, days = TickRebuild(), defaultdict[tuple[str, str, str], list[str]](list)
    for path in sorted(set(stored_files(place, layout.TICKS)) - known):
        try:
            days[files.parse_path(path)].append(path)
        except StoreCorruptError:
            report.skipped.append(path)
    for (slug, symbol, day), paths in sorted(days.items()):
        _take_day(place, slug, symbol, day, paths, report)
    return report


def _take_day(place: Place, slug: str, symbol: str, day: str, paths: list[str], report: TickRebuild) -> None:  # noqa: PLR0917  one day
    frames = {path: frame for path in paths if (frame := read_sound(place, path, STORED_TICK_SCHEMA)) is not None}
    report.skipped += [path for path in paths if path not in frames]
    with files.writing(place, slug, symbol) as key:
        with place.metadata.write() as tx:
            report.connections += ensure_connection(tx, slug, place.clock.now_us())[0]
            series_id = losses.ensure_tick_series(tx, slug, symbol, place.clock.now_us())
            live = [item for item in files.all_live(tx) if (item.series_id, item.date) == (series_id, day)]
        seen = [frame for item in live if (frame := read_sound(place, item.path, STORED_TICK_SCHEMA)) is not None]
        for path, frame in sorted(frames.items(), key=lambda item: -item[1].height):
            news = without_known(frame, seen)
            seen.append(frame)
            report.files, report.rows = report.files + 1, report.rows + news.height
            if news.height == frame.height:
                _enter(place, _described(place, series_id, day, path, frame))
                continue
            if news.height:
                item = files.stage(place, key, files.series_folder(slug, symbol), series_id, news)
                _enter(place, item)
                files.publish(place, key, item.path)
            remove(place, path)


def _enter(place: Place, item: TickFile) -> None:
    with place.metadata.write() as tx:
        files.enter(tx, [item], [], place.clock.now_us())


def _described(place: Place, series_id: int, day: str, path: str, frame: pl.DataFrame) -> TickFile:
    content = present(place, path).read_bytes()
    first, last = to_us(frame["ts"][0]), to_us(frame["ts"][-1])
    return TickFile(0, series_id, day, path, frame.height, first, last, len(content), hashlib.sha256(content).hexdigest())

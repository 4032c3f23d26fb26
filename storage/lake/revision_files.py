"""Revisions as plain Parquet beside the candles: LAKE/revisions/, the same keys, immutable files that are only added to.

The metadata store stays the place that reads go to. The files are for other tools, and for the day when the metadata is
lost: `rebuild` takes the revisions back from them. In the manifest their `generation` is the last revision's id, so that
each flush writes what came after it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection

from core.candles import TS, VALUES
from core.clock import to_us
from core.errors import StoreCorruptError
from core.series import Series
from core.unreadable import UNREADABLE, first_line
from storage.lake import layout
from storage.lake.flush import lock_series
from storage.lake.local import present, stored_files
from storage.lake.place import Place
from storage.lake.publish import drop_staged, publish, writing
from storage.lake.writer import NewFile, stage
from storage.series import get_series, list_series
from storage.statements import Row, execute_many, fetch

_PARTS: Final = (*VALUES, "source", "run_id")
_KINDS: Final = {**dict.fromkeys(VALUES, pl.Float64()), "source": pl.String(), "run_id": pl.String()}
REVISION_SCHEMA: Final = pl.Schema({
    "ts": TS, "known_at": TS, "old_known_at": TS,
    **{f"{side}_{name}": kind for side in ("old", "new") for name, kind in _KINDS.items()},
})
_SELECT = "SELECT id, ts_us, known_at_us, old_known_at_us, old, new FROM revisions WHERE series_id = ? AND id > ? ORDER BY ts_us, known_at_us"
_RESTORE = ("INSERT INTO revisions (series_id, ts_us, known_at_us, old_known_at_us, old, new) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (series_id, ts_us, known_at_us) DO NOTHING")


def flush_revisions(place: Place, series_id: int, series: Series) -> int:
    """Write the revisions that no file holds yet; return how many. The caller holds no lock of the series.

    Raises:
        StoreFullError, StoreUnwritableError: what was not written is with the next flush.
    """
    with place.metadata.read() as tx:
        if not _waiting(tx, series_id):
            return 0
    with writing(place, series):
        with place.metadata.read() as tx:
            after = _last(tx, series_id)
            rows = fetch(tx, _SELECT, (series_id, after))
        files: list[NewFile] = []
        try:
            for label, part in _by_period(series, rows):
                files.append(_write(place, series, label, part))
            with place.metadata.write() as tx:
                lock_series(tx, series_id)
                is_first = _last(tx, series_id) == after
                if is_first:
                    _enter(tx, series_id, files, max((row[0] for row in rows), default=after), place.clock.now_us())
        except BaseException:
            _drop(place, files)
            raise
        if not is_first:  # another machine has written them; what came after them is with the next flush
            _drop(place, files)
            return 0
        for file in files:
            publish(place.root, file.path, set())
    return len(rows)


def flush_all_revisions(place: Place, series_ids: Sequence[int] | None = None) -> int:
    """Do `flush_revisions` for the series that have some waiting (None: of all); return how many were written."""
    with place.metadata.read() as tx:
        found = [row[0] for row in fetch(tx, "SELECT DISTINCT series_id FROM revisions ORDER BY series_id")]
        rows = [get_series(tx, item) for item in found if series_ids is None or item in series_ids]
    return sum(flush_revisions(place, row.id, row.series) for row in rows)


def restore_revisions(place: Place) -> int:
    """Take revisions of known series back from files that the manifest does not know; return how many.

    Raises:
        StoreCorruptError: a file that cannot be read.
    """
    with place.metadata.read() as tx:
        ids = {row.series: row.id for row in list_series(tx)}
    count = 0
    for path in sorted(item for item in stored_files(place, layout.REVISIONS) if item.endswith(".parquet")):
        series, label = layout.parse_path(path)
        with place.metadata.write() as tx:
            if series not in ids or fetch(tx, "SELECT 1 FROM lake_files WHERE path = ?", (path,)):
                continue
            file = present(place, path)
            frame = _read(file)
            execute_many(tx, _RESTORE, [
                (ids[series], to_us(row["ts"]), to_us(row["known_at"]), to_us(row["old_known_at"]), _side(row, "old"), _side(row, "new"))
                for row in frame.iter_rows(named=True)])
            last = fetch(tx, "SELECT max(id) FROM revisions WHERE series_id = ?", (ids[series],))[0][0]
            content = file.read_bytes()
            _enter(tx, ids[series], [NewFile(path, label, frame.height, to_us(frame["ts"][0]), to_us(frame["ts"][-1]), len(content),
                                             hashlib.sha256(content).hexdigest())], last, place.clock.now_us())
            count += frame.height
    return count


def _drop(place: Place, files: Sequence[NewFile]) -> None:
    for file in files:
        drop_staged(place.root, file.path)


def _waiting(tx: Connection, series_id: int) -> bool:
    last = fetch(tx, "SELECT max(id) FROM revisions WHERE series_id = ?", (series_id,))[0][0]
    return last is not None and last > _last(tx, series_id)


def _last(tx: Connection, series_id: int) -> int:
    found = fetch(tx, "SELECT max(generation) FROM lake_files WHERE series_id = ? AND dataset = 'revisions'", (series_id,))[0][0]
    return 0 if found is None else int(found)


def _by_period(series: Series, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(layout.period_label(layout.period_of(series.timeframe, row[1])), []).append(row)
    return sorted(parts.items())


def _write(place: Place, series: Series, label: str, rows: Sequence[Row]) -> NewFile:
    columns: dict[str, list[Any]] = {name: [] for name in REVISION_SCHEMA}
    for _, ts_us, known_at_us, old_known_at_us, old, new in rows:
        sides = [json.loads(side) if isinstance(side, str) else side for side in (old, new)]
        values = (ts_us, known_at_us, old_known_at_us, *(side[name] for side in sides for name in _PARTS))
        for name, value in zip(REVISION_SCHEMA, values, strict=True):
            columns[name].append(value)
    plain = pl.Schema({name: pl.Int64() if kind == TS else kind for name, kind in REVISION_SCHEMA.items()})
    frame = pl.DataFrame(columns, schema=plain).cast(REVISION_SCHEMA)
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=True)
    return stage(place, layout.new_file(series, label, layout.REVISIONS), buffer.getbuffer(), frame)


def _enter(tx: Connection, series_id: int, files: Sequence[NewFile], last: int, now_us: int) -> None:
    execute_many(
        tx, "INSERT INTO lake_files (dataset, series_id, period, path, rows, first_us, last_us, size_bytes, digest, generation,"
        " created_at_us) VALUES ('revisions', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(series_id, file.label, file.path, file.rows, file.first_us, file.last_us, file.size_bytes, file.digest, last, now_us)
         for file in files])


def _read(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file, hive_partitioning=False).select(list(REVISION_SCHEMA)).cast(REVISION_SCHEMA)
    except UNREADABLE as error:
        raise StoreCorruptError(f"{file}: not a file of revisions ({first_line(error)}); move it out of the lake") from error


def _side(row: dict[str, Any], side: str) -> str:
    return json.dumps({name: row[f"{side}_{name}"] for name in _PARTS})

"""Named snapshots: a manifest of rows and files that gives the same candles later, or proves that another home has them.

A snapshot pins its files: superseded or removed by retention they stay in .old/ until the snapshot is deleted. Its digest
is over the rows themselves (series, open times, values), so that it does not depend on how they lie in files: two homes
with the same rows have the same digest.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from sqlalchemy import Connection

from core.candles import VALUES
from core.clock import isoformat, parse_instant
from core.errors import InputError, NotFoundError, StoreBusyError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.audit import Witness, unwitnessed
from storage.lake.local import stored_bytes
from storage.lake.place import Place
from storage.lake.reader import pin, read_files, read_pin
from storage.lake.verify import Problem
from storage.series import find_series
from storage.statements import execute_many, fetch, marks

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_ATTEMPTS: Final = 5
_PART: Final = 500


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A named snapshot: its digest over the rows, its manifest, and when it was made."""

    name: str
    note: str
    digest: str
    manifest: dict[str, Any]
    created_at_us: int


def create_snapshot(place: Place, name: str, note: str = "", connection: str | None = None, witness: Witness = unwitnessed) -> SnapshotRow:
    """Name what the lake's files hold now, of one connection or of all; flush first, or the head is not in it.

    Raises:
        InputError: the name is taken, or none.
    """
    if not _NAME.fullmatch(name):
        raise InputError("snapshot", name, "1 to 63 of a-z 0-9 . _ -", "e.g. backtest-2026-11")
    for _ in range(_ATTEMPTS):
        with place.metadata.read() as tx:
            if fetch(tx, "SELECT 1 FROM snapshots WHERE name = ?", (name,)):
                raise InputError("snapshot", name, "a name that is not taken", "a snapshot never changes; delete it or use another name")
            found = _live(tx, connection)
        series = [_described(place, key, files) for key, files in sorted(found.items())]
        row = SnapshotRow(name, note, digest_of(series), {"series": series}, place.clock.now_us())
        if _pinned(place, row, witness):
            return row
    raise StoreBusyError(f"snapshot {name}: its files keep being swept away; try again")


def list_snapshots(tx: Connection) -> list[SnapshotRow]:
    """Return all snapshots, the newest first."""
    rows = fetch(tx, "SELECT name, note, digest, manifest, created_at_us FROM snapshots ORDER BY created_at_us DESC, id DESC")
    return [SnapshotRow(row[0], row[1], row[2], json.loads(row[3]), row[4]) for row in rows]


def find_snapshot(tx: Connection, name: str) -> SnapshotRow:
    """Return a snapshot; NotFoundError when there is none of that name."""
    rows = fetch(tx, "SELECT name, note, digest, manifest, created_at_us FROM snapshots WHERE name = ?", (name,))
    if not rows:
        known = [row[0] for row in fetch(tx, "SELECT name FROM snapshots ORDER BY name")]
        raise NotFoundError(f"no snapshot {name!r}; there are: {', '.join(known) or 'none'}")
    row = rows[0]
    return SnapshotRow(row[0], row[1], row[2], json.loads(row[3]), row[4])


def delete_snapshot(tx: Connection, name: str) -> None:
    """Forget a snapshot; its files go with the next sweep, if nothing else needs them."""
    find_snapshot(tx, name)
    execute_many(tx, "DELETE FROM snapshot_files WHERE snapshot_id = (SELECT id FROM snapshots WHERE name = ?)", [(name,)])
    execute_many(tx, "DELETE FROM snapshots WHERE name = ?", [(name,)])


def files_of(tx: Connection, name: str, key: Series) -> list[str]:
    """Return the paths that hold a series in a snapshot, ascending.

    Raises:
        NotFoundError: no such snapshot, or the series is not in it.
    """
    for item in find_snapshot(tx, name).manifest["series"]:
        if (item["connection"], item["symbol"], item["timeframe"]) == (key.connection, key.symbol, key.timeframe.name):
            return [file["path"] for file in item["files"]]
    raise NotFoundError(f"{key} is not in the snapshot {name}; `candlelake snapshots show {name}` lists what is")


def verify_snapshot(place: Place, name: str) -> list[Problem]:
    """Check that a snapshot's files are there byte for byte, that they hold its rows, and that its digest is theirs."""
    with place.metadata.read() as tx:
        row = find_snapshot(tx, name)
    problems = [problem for item in row.manifest["series"] for file in item["files"]
                if (problem := _file_problem(place, file)) is not None]
    if digest_of(row.manifest["series"]) != row.digest:
        problems.append(Problem(name, "its manifest is not the one that its digest was made of", "restore the metadata from a backup"))
    broken = {problem.path for problem in problems}
    for item in row.manifest["series"]:
        paths = [file["path"] for file in item["files"]]
        if not broken & set(paths) and rows_digest([read_files(place, [path]) for path in paths]) != item["rows_digest"]:
            problems.append(Problem(f"{item['connection']} {item['symbol']} {item['timeframe']}", "its files hold other rows", "restore them from a backup"))
    return problems


def compare(place: Place, manifest: dict[str, Any]) -> list[Problem]:
    """Check that this home holds exactly the rows of a manifest, made here or elsewhere, in the range of each series.

    Raises:
        InputError: not a snapshot's manifest.
    """
    try:
        items = [(Series(item["connection"], item["symbol"], Timeframe.parse(item["timeframe"])), str(item["rows_digest"]), int(item["rows"]),
                  Interval(parse_instant(item["first"]), parse_instant(item["last"]) + 1)) for item in manifest["series"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("manifest", type(error).__name__, "what `candlelake snapshots show NAME --json` prints", "make it anew") from error
    out = []
    for key, digest, rows, span in items:
        try:
            with place.metadata.read() as tx:
                pinned = pin(tx, find_series(tx, key).id, span)
        except NotFoundError:
            out.append(Problem(str(key), "not in this home", "backfill or import it"))
            continue
        frame = read_pin(place, pinned, span)
        if rows_digest([frame]) != digest:
            out.append(Problem(str(key), f"{frame.height} candles here, {rows} in the manifest, not the same",
                               "`candlelake revisions` and `candlelake verify --against-provider` say what differs"))
    return out


def digest_of(series: Sequence[dict[str, Any]]) -> str:
    """Return the digest of a manifest: over the rows of its series, not over its files."""
    keys = ("connection", "symbol", "timeframe", "rows", "first", "last", "rows_digest")
    plain = sorted([item[key] for key in keys] for item in series)
    return hashlib.sha256(json.dumps(plain, separators=(",", ":")).encode()).hexdigest()


def _live(tx: Connection, connection: str | None) -> dict[Series, list[tuple[str, int, str, int, int]]]:
    rows = fetch(tx, "SELECT c.slug, s.symbol, s.timeframe, f.path, f.rows, f.digest, f.first_us, f.last_us FROM lake_files f"
                     " JOIN series s ON s.id = f.series_id JOIN connections c ON c.id = s.connection_id"
                     " WHERE f.superseded_at_us IS NULL AND f.dataset = 'candles' ORDER BY f.first_us")
    out: dict[Series, list[tuple[str, int, str, int, int]]] = {}
    for slug, symbol, timeframe, *file in rows:
        if connection in {None, slug}:
            out.setdefault(Series(slug, symbol, Timeframe.parse(timeframe)), []).append((file[0], file[1], file[2], file[3], file[4]))
    return out


def _described(place: Place, key: Series, files: Sequence[tuple[str, int, str, int, int]]) -> dict[str, Any]:
    return {
        "connection": key.connection, "symbol": key.symbol, "timeframe": key.timeframe.name,
        "rows": sum(file[1] for file in files), "first": isoformat(files[0][3]), "last": isoformat(files[-1][4]),
        "rows_digest": rows_digest(read_files(place, [file[0]]) for file in files),
        "files": [{"path": file[0], "rows": file[1], "digest": file[2]} for file in files],
    }


def _pinned(place: Place, row: SnapshotRow, witness: Witness) -> bool:
    """Store a snapshot; False when one of its files has been swept meanwhile."""
    paths = [file["path"] for item in row.manifest["series"] for file in item["files"]]
    with place.metadata.write() as tx:
        known: set[str] = set()
        for start in range(0, len(paths), _PART):
            part = paths[start:start + _PART]
            known |= {item[0] for item in fetch(tx, f"SELECT path FROM lake_files WHERE path IN ({marks(part)})", part)}  # noqa: S608  marks
        if known != set(paths):
            return False
        execute_many(tx, "INSERT INTO snapshots (name, note, digest, manifest, created_at_us) VALUES (?, ?, ?, ?, ?)",
                     [(row.name, row.note, row.digest, json.dumps(row.manifest), row.created_at_us)])
        number = fetch(tx, "SELECT id FROM snapshots WHERE name = ?", (row.name,))[0][0]
        execute_many(tx, "INSERT INTO snapshot_files (snapshot_id, path) VALUES (?, ?)", [(number, path) for path in paths])
        witness(tx)
    return True


def _file_problem(place: Place, file: dict[str, Any]) -> Problem | None:
    fix = "restore it from a backup, or backfill and make the snapshot anew"
    try:
        content = stored_bytes(place, file["path"])
    except FileNotFoundError:
        return Problem(file["path"], "missing", fix)
    if hashlib.sha256(content).hexdigest() != file["digest"]:
        return Problem(file["path"], "its bytes are not those of the snapshot", fix)
    return None


def rows_digest(frames: Iterable[pl.DataFrame]) -> str:
    """Return the SHA-256 over rows of eight bytes a column: open time in microseconds, then the values; a null is NaN."""
    whole = hashlib.sha256()
    for frame in frames:
        if frame.is_empty():
            continue
        values = frame.select(pl.col(name).fill_null(float("nan")) for name in VALUES).to_numpy().astype("<f8")
        values[np.isnan(values)] = np.float64("nan")
        table = np.empty((frame.height, len(VALUES) + 1), dtype="<i8")
        table[:, 0] = frame["ts"].dt.epoch("us").to_numpy()
        table[:, 1:] = np.ascontiguousarray(values).view("<i8")
        whole.update(np.ascontiguousarray(table).tobytes())
    return whole.hexdigest()

"""Backup and restore of a home: one consistent snapshot of the metadata and the lake files it lists, in one tar file.

The lake's files never change once they have a name, so the snapshot of the metadata says what belongs to it: a file
that a flush has replaced meanwhile is found in `.old/`. Keys are not in a backup: a stolen one opens no credential.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.output import Progress, check_target
from core.clock import SystemClock, isoformat
from core.errors import InputError, NotFoundError, StoreCorruptError, UnsupportedError
from core.settings import Settings
from storage.audit import Witness
from storage.metadata import migrate
from storage.metadata.store import open_metadata, translated

FORMAT = 1
DATABASE = "metadata.db"
HEADER = "backup.json"
_LIVE = "SELECT path, digest, size_bytes FROM lake_files WHERE superseded_at_us IS NULL ORDER BY path"
_PINNED = ("SELECT '.old/' || path, digest, size_bytes FROM lake_files WHERE superseded_at_us IS NOT NULL"  # what named snapshots need
           " AND path IN (SELECT path FROM snapshot_files) ORDER BY path")
_HAS_SNAPSHOTS = "SELECT 1 FROM sqlite_master WHERE name = 'snapshot_files'"  # a backup of an earlier release has none


@dataclass(frozen=True, slots=True)
class BackupResult:
    """What a backup holds, or what a restore brought back. `size_bytes` counts the lake's files."""

    files: int
    size_bytes: int


def backup(current: Settings, target: Path, progress: Progress) -> BackupResult:
    """Write a backup of the home to `target`, which must not exist yet; work may go on meanwhile.

    Raises:
        UnsupportedError: the metadata lies in PostgreSQL or the lake in object storage: their own tools do it.
        NotFoundError: there is nothing to back up, or a lake file is missing.
    """
    _only_local(current)
    database = current.home / DATABASE
    if not database.exists():
        raise NotFoundError(f"no home at {current.home.absolute()}: nothing to back up; set CANDLELAKE_HOME")
    check_target(target)
    if target.exists():
        raise InputError("backup file", str(target), "a file that does not exist yet", "choose another name")
    part = target.with_name(f".{target.name}.part")
    try:
        with tempfile.TemporaryDirectory(dir=current.home, prefix=".backup-") as folder:
            snapshot = Path(folder) / DATABASE
            _copy_database(database, snapshot)
            result = _write(part, snapshot, Path(current.lake_root), progress)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return result


def restore(current: Settings, source: Path, progress: Progress, witness: Witness) -> BackupResult:
    """Bring a backup back into a home that has no metadata and no lake; every file's digest is checked first.

    The `witness` writes it down in the metadata that comes back.

    Raises:
        InputError: `source` is no backup, or the home holds data already.
        StoreCorruptError: a file of the backup is damaged or missing; the home stays as it was.
        PermanentError: a newer release made it.
    """
    _only_local(current)
    lake = Path(current.lake_root)
    if (current.home / DATABASE).exists() or (lake.exists() and any(lake.rglob("*.parquet"))):
        raise InputError("home", str(current.home.absolute()), "a home without data", "set CANDLELAKE_HOME to a new folder")
    current.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=current.home, prefix=".restore-") as name:
        folder = Path(name)
        with _reading(source) as archive:
            archive.extractall(folder, filter="data")
        result = _check(folder, source, progress)
        _write_down(folder / DATABASE, witness)
        lake.parent.mkdir(parents=True, exist_ok=True)
        if lake.exists():
            shutil.rmtree(lake)  # it holds no candles, see above
        (folder / "lake").mkdir(exist_ok=True)
        shutil.move(folder / "lake", lake)
        (folder / DATABASE).replace(current.home / DATABASE)  # last: with it the home is there
    return result


def _only_local(current: Settings) -> None:
    if not current.database_url.startswith("sqlite"):
        raise UnsupportedError("the metadata store is PostgreSQL: back it up with pg_dump, and the lake's folder with it")
    if current.lake_root.startswith("s3://"):
        raise UnsupportedError("the lake is in object storage: use its versioning or replication")


def _copy_database(source: Path, target: Path) -> None:
    with translated(sqlite3), closing(sqlite3.connect(f"file:{source.absolute()}?mode=ro", uri=True)) as live, \
            closing(sqlite3.connect(target)) as copy:
        live.backup(copy)
        _in_one_file(copy)


def _write_down(database: Path, witness: Witness) -> None:
    metadata = open_metadata(f"sqlite:///{database.absolute()}")
    try:
        migrate.upgrade(metadata)  # an old backup may have no audit log yet
        with metadata.write() as tx:
            witness(tx)
    finally:
        metadata.close()
    with translated(sqlite3), closing(sqlite3.connect(database)) as restored:
        _in_one_file(restored)


def _in_one_file(database: sqlite3.Connection) -> None:
    database.execute("PRAGMA journal_mode=DELETE")  # no -wal beside it


def _live_files(database: Path) -> list[tuple[str, str, int]]:
    with closing(sqlite3.connect(f"file:{database.absolute()}?mode=ro", uri=True)) as snapshot:
        queries = [_LIVE, _PINNED] if snapshot.execute(_HAS_SNAPSHOTS).fetchone() else [_LIVE]
        return [(str(path), str(digest), int(size)) for query in queries for path, digest, size in snapshot.execute(query)]


def _write(part: Path, snapshot: Path, lake: Path, progress: Progress) -> BackupResult:
    files = _live_files(snapshot)
    header = {"format": FORMAT, "made_at": isoformat(SystemClock().now_us()), "files": len(files)}
    with tarfile.open(part, "w") as archive:
        text = json.dumps(header).encode()
        info = tarfile.TarInfo(HEADER)
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text))
        archive.add(snapshot, DATABASE)
        for number, (path, _, _) in enumerate(files, 1):
            archive.add(_find(lake, path), f"lake/{path}")
            progress(number, len(files), "files")
    with part.open("rb+") as stream:
        os.fsync(stream.fileno())
    return BackupResult(len(files), sum(size for _, _, size in files))


def _find(lake: Path, path: str) -> Path:
    """Return where a file of the manifest lies: in its place, or in .old/ when it was replaced since the snapshot."""
    direct = lake / path
    if direct.exists():
        return direct
    moved = next((lake / ".old").rglob(Path(path).name), None) if (lake / ".old").exists() else None
    if moved is None:
        raise NotFoundError(f"the lake file {path} is missing; run: candlelake verify")
    return moved


@contextmanager
def _reading(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source) as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise InputError("backup file", str(source), "a file made by candlelake backup", f"it cannot be read: {error}") from error


def _check(folder: Path, source: Path, progress: Progress) -> BackupResult:
    header = folder / HEADER
    if not header.exists() or not (folder / DATABASE).exists():
        raise InputError("backup file", str(source), "a file made by candlelake backup", "its header is missing")
    found = json.loads(header.read_text())
    if found.get("format") != FORMAT:
        raise InputError("backup file", f"format {found.get('format')}", f"format {FORMAT}", "use the release that made it")
    try:
        files = _live_files(folder / DATABASE)
    except sqlite3.DatabaseError as error:
        raise StoreCorruptError(f"{source}: its {DATABASE} is damaged; nothing was restored; use another backup") from error
    for number, (path, digest, _) in enumerate(files, 1):
        file = folder / "lake" / path
        if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise StoreCorruptError(f"{source}: {path} is missing or damaged; nothing was restored; use another backup")
        progress(number, len(files), "files")
    return BackupResult(len(files), sum(size for _, _, size in files))

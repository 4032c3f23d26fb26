# ruff: noqa: S608  every query here is built from constants and quoted paths
"""Snapshots of the metadata for other tools: LAKE/catalog/*.parquet, and LAKE/candlelake.duckdb with views on the lake.

Paths in candlelake.duckdb are absolute, so that it works from any working directory; a lake that moves writes it anew.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb
import polars as pl
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA, TS
from core.errors import StoreCorruptError
from core.unreadable import first_line
from storage.lake import layout
from storage.lake.place import Place, locked, make_durable_folder, store_error, sync_folder, translated
from storage.lake.revision_files import REVISION_SCHEMA
from storage.lake.schema import HIVE_TYPES
from storage.statements import fetch

_KEY = {"connection": pl.String(), "symbol": pl.String(), "timeframe": pl.String()}
_JOINED = " JOIN series s ON s.id = t.series_id JOIN connections c ON c.id = s.connection_id"
# Each table: its columns (instants are microseconds in the store) and the query that fills them, in the same order.
_QUERIES: Final[dict[str, tuple[dict[str, pl.DataType], str]]] = {
    "series": (
        {"id": pl.Int64(), **_KEY, "is_active": pl.Boolean(), "first": TS, "last": TS, "fetched_at": TS},
        ("SELECT s.id, c.slug, s.symbol, s.timeframe, s.is_active, s.first_us, s.last_us, s.fetched_at_us FROM series s"
        " JOIN connections c ON c.id = s.connection_id ORDER BY 2, 3, 4")),
    "gaps": (
        {**_KEY, "start": TS, "end": TS, "cause": pl.String(), "attempts": pl.Int64(), "first_seen": TS, "last_seen": TS,
         "next_try": TS, "proof": pl.String()},
        ("SELECT c.slug, s.symbol, s.timeframe, t.start_us, t.end_us, t.cause, t.attempts, t.first_seen_us, t.last_seen_us,"
        f" t.next_try_us, CAST(t.proof AS TEXT) FROM gaps t{_JOINED} ORDER BY 1, 2, 3, 4")),
    "connections": (
        {"slug": pl.String(), "name": pl.String(), "type": pl.String(), "provider": pl.String(), "status": pl.String(),
         "status_reason": pl.String(), "is_active": pl.Boolean(), "owner": pl.String(), "last_connected_at": TS,
         "created_at": TS},
        ("SELECT slug, name, type, provider, status, status_reason, is_active, owner, last_connected_at_us, created_at_us"
        " FROM connections ORDER BY 1")),
    "revisions": (
        {**_KEY, "ts": TS, "known_at": TS, "old_known_at": TS, "old": pl.String(), "new": pl.String()},
        ("SELECT c.slug, s.symbol, s.timeframe, t.ts_us, t.known_at_us, t.old_known_at_us, CAST(t.old AS TEXT),"
        f" CAST(t.new AS TEXT) FROM revisions t{_JOINED} ORDER BY 1, 2, 3, 4, 5")),
    "files": (
        {"path": pl.String(), **_KEY, "period": pl.String(), "rows": pl.Int64(), "first": TS, "last": TS,
         "size_bytes": pl.Int64(), "digest": pl.String(), "generation": pl.Int64(), "created_at": TS},
        ("SELECT t.path, c.slug, s.symbol, s.timeframe, t.period, t.rows, t.first_us, t.last_us, t.size_bytes, t.digest,"
        f" t.generation, t.created_at_us FROM lake_files t{_JOINED} WHERE t.superseded_at_us IS NULL ORDER BY 1")),
}
_QUERIES["tick_gaps"] = (
    {"connection": pl.String(), "symbol": pl.String(), "start": TS, "end": TS, "cause": pl.String(), "seen_at": TS, "healed_at": TS},
    ("SELECT c.slug, s.symbol, t.start_us, t.end_us, t.cause, t.seen_at_us, t.healed_at_us FROM tick_gaps t"
     " JOIN tick_series s ON s.id = t.tick_series_id JOIN connections c ON c.id = s.connection_id ORDER BY 1, 2, 3, 4"))
_QUERIES["tick_files"] = (
    {"path": pl.String(), "connection": pl.String(), "symbol": pl.String(), "date": pl.String(), "rows": pl.Int64(), "first": TS,
     "last": TS, "size_bytes": pl.Int64(), "digest": pl.String(), "created_at": TS},
    ("SELECT t.path, c.slug, s.symbol, t.date, t.rows, t.first_us, t.last_us, t.size_bytes, t.digest, t.created_at_us"
     " FROM tick_files t JOIN tick_series s ON s.id = t.tick_series_id JOIN connections c ON c.id = s.connection_id"
     " WHERE t.superseded_at_us IS NULL ORDER BY 1"))
_QUERIES["runs"] = (
    {"run_id": pl.String(), "kind": pl.String(), "first_write": TS, "last_write": TS, "stored": pl.Int64(), "revised": pl.Int64(),
     "quarantined": pl.Int64(), "status": pl.String(), "message": pl.String(), "ended_at": TS},
    ("SELECT run_id, kind, first_at_us, last_at_us, stored, revised, quarantined, status, message, ended_at_us FROM runs ORDER BY 3, 1"))
_QUERIES["repairs"] = (
    {**_KEY, "start": TS, "end": TS, "cause": pl.String(), "attempts": pl.Int64(), "first_seen": TS, "repaired_at": TS},
    ("SELECT c.slug, s.symbol, s.timeframe, t.start_us, t.end_us, t.cause, t.attempts, t.first_seen_us, t.repaired_at_us"
     f" FROM repairs t{_JOINED} ORDER BY 1, 2, 3, 4"))
_QUERIES["retired_gaps"] = (
    {**_KEY, "start": TS, "end": TS, "cause": pl.String(), "attempts": pl.Int64(), "first_seen": TS, "last_seen": TS,
     "proof": pl.String(), "retired_at": TS},
    ("SELECT c.slug, s.symbol, s.timeframe, t.start_us, t.end_us, t.cause, t.attempts, t.first_seen_us, t.last_seen_us,"
     f" CAST(t.proof AS TEXT), t.retired_at_us FROM retired_gaps t{_JOINED} ORDER BY 1, 2, 3, 4"))
_QUERIES["quarantine"] = (
    {**_KEY, "ts": TS, "reason": pl.String(), "row": pl.String(), "run_id": pl.String(), "seen_at": TS},
    ("SELECT c.slug, s.symbol, s.timeframe, t.ts_us, t.reason, CAST(t.\"row\" AS TEXT), t.run_id, t.seen_at_us"
     f" FROM quarantine t{_JOINED} ORDER BY 1, 2, 3, 4"))
TABLES: Final = tuple(_QUERIES)
_SNAPSHOTS: Final = ("series", "gaps", "connections", "files")
# layout.encode_symbol in SQL: what is not plain is percent-encoded, byte by byte.
_ENCODED = ("array_to_string(list_transform(string_split(symbol, ''), lambda c: CASE WHEN regexp_full_match(c,"
            " CASE WHEN symbol LIKE '%.' THEN '[A-Z0-9_~-]' ELSE '[A-Z0-9_.~-]' END) THEN c"
            " ELSE regexp_replace(hex(c), '(..)', '%\\1', 'g') END), '')")


def table(tx: Connection, name: str) -> pl.DataFrame:
    """Return one of TABLES as a frame; it holds no secret."""
    columns, sql = _QUERIES[name]
    raw = pl.Schema({key: pl.Int64() if kind == TS else kind for key, kind in columns.items()})
    rows = [tuple(bool(value) if kind == pl.Boolean() else value for value, kind in zip(row, columns.values(), strict=True))
            for row in fetch(tx, sql)]
    return pl.DataFrame(rows, schema=raw, orient="row").cast(pl.Schema(columns))


def write_catalog(place: Place) -> None:
    """Write the snapshots and the DuckDB file, each built aside and put in place whole.

    Raises:
        StoreFullError, StoreUnwritableError, StoreCorruptError: what was there before stays.
    """
    with locked(place.root, layout.CATALOG), translated(place.root):  # under the lock `sweep` leaves our files alone
        with place.metadata.read() as tx:
            frames = {name: table(tx, name) for name in _SNAPSHOTS}
        make_durable_folder(place.root, place.root / layout.CATALOG)
        for name, frame in frames.items():
            with _aside(place.root) as aside:
                content = io.BytesIO()
                frame.write_parquet(content)
                aside.write_bytes(content.getbuffer())
                _put(aside, place.root / layout.CATALOG / f"{name}.parquet")
        with _aside(place.root) as aside:
            try:
                datasets = {path.split("/", 1)[0] for path in frames["files"]["path"]}
                _build(aside, place.root, datasets=datasets, is_whole=place.objects is None)
            except duckdb.InvalidInputException as error:  # a file whose end does not say what it holds
                raise StoreCorruptError(f"cannot make the views of {layout.CATALOG_DATABASE}: {first_line(error)}; run `candlelake verify`") from error
            except duckdb.Error as error:  # nothing in it comes from a person: it is the disk
                raise store_error(aside, OSError(str(error))) from error
            _put(aside, place.root / layout.CATALOG_DATABASE)
        sync_folder(place.root / layout.CATALOG)
        sync_folder(place.root)


@contextmanager
def _aside(root: Path) -> Iterator[Path]:
    """Give a path for a file in the making; what is left of it at the end is deleted."""
    path = root / layout.STAGING / f"{layout.CATALOG}.{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        for item in (path, path.with_name(f"{path.name}.wal")):
            item.unlink(missing_ok=True)


def _put(aside: Path, target: Path) -> None:
    descriptor = os.open(aside, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.replace(target)


def _nothing(schema: pl.Schema) -> str:
    kinds = {pl.String(): "VARCHAR", pl.Float64(): "DOUBLE", TS: "TIMESTAMPTZ"}
    columns = {**{name: kinds[kind] for name, kind in schema.items()}, **dict.fromkeys(_KEY, "VARCHAR"), "period": "DATE"}
    return "SELECT " + ", ".join(f"CAST(NULL AS {kind}) AS {name}" for name, kind in columns.items()) + " WHERE false"


def _build(path: Path, root: Path, *, datasets: set[str], is_whole: bool) -> None:
    """Build the DuckDB file; no views of candles where the folder does not hold them all: less than all would pass for it."""
    base = str(root).replace("'", "''")
    tree = f"{base}/{layout.CANDLES}"
    with duckdb.connect(":memory:") as session:
        session.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS catalog_file (STORAGE_VERSION 'v1.0.0')")
        session.execute("USE catalog_file")
        if is_whole:
            for name, dataset, schema in (("all_candles", layout.CANDLES, STORED_SCHEMA), ("revisions", layout.REVISIONS, REVISION_SCHEMA)):
                rows = (f"SELECT * FROM read_parquet('{base}/{dataset}/*/*/*/*/*.parquet', hive_types = {HIVE_TYPES})"
                        if dataset in datasets else _nothing(schema))  # read_parquet refuses a pattern without files
                session.execute(f"CREATE VIEW {name} AS {rows}")
        for name in _SNAPSHOTS:
            session.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{base}/{layout.CATALOG}/{name}.parquet')")
        if is_whole:
            session.execute(
                "CREATE MACRO candles(connection, symbol, timeframe) AS TABLE SELECT * FROM read_parquet("
                f"'{tree}/connection=' || connection || '/symbol=' || {_ENCODED} || '/timeframe=' ||"
                " CASE timeframe WHEN '1M' THEN '1mo' ELSE timeframe END || '/*/*.parquet', hive_partitioning = false) ORDER BY ts")
            session.execute(
                f"CREATE MACRO ticks(connection, symbol) AS TABLE SELECT * FROM read_parquet('{base}/{layout.TICKS}/connection=' ||"
                f" connection || '/symbol=' || {_ENCODED} || '/*/*.parquet', hive_partitioning = false) ORDER BY ts")
        session.execute("USE memory")
        session.execute("DETACH catalog_file")

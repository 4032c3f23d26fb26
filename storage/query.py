# ruff: noqa: S608  views are built from constants, ids, hex names and quoted paths
"""SQL over the lake: DuckDB on one snapshot of manifest, head and metadata, with nothing else in reach."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import duckdb
import polars as pl
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA
from core.errors import InputError, NotFoundError
from storage.catalog import TABLES, table
from storage.coverage import StoredSlots
from storage.coverage_table import coverage_table
from storage.derived import read_derived
from storage.lake import layout
from storage.lake.blocks import BLOCK_COLUMNS, Block, unpacked
from storage.lake.damage import check_unaltered
from storage.lake.place import Place
from storage.lake.reader import head_candles, live_files, with_files
from storage.lake.schema import HIVE_TYPES
from storage.query_views import DERIVED_MACRO, NOW_MACRO, PAST_MACRO, asks_past, derived_calls, past_versions
from storage.series import SeriesRow, get_series, list_series
from storage.statements import fetch, marks
from storage.ticks import sql as tick_sql

_COLUMNS = ", ".join(STORED_SCHEMA)
_WORDS = 5000  # bound three times in one statement; SQLite allows 32,766
_UNKNOWN = re.compile(r"Table with name candles_([0-9A-F]*)_([0-9A-F]*)_([0-9A-F]*) does not exist")
_IN_THE_TEXT = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)  # errors that come before a file is read
_HELP = "SELECT ... or FROM candles('slug', 'SYMBOL', '1m')"


class QueriedLake(StoredSlots, Protocol):
    """What a query needs of a lake."""

    @property
    def place(self) -> Place:
        """Where it lies."""


def run(lake: QueriedLake, text: str, parameters: Sequence[object] | Mapping[str, object] | None) -> pl.DataFrame:
    """Run one query; see `Lake.sql`.

    Raises:
        InputError: not one query, or DuckDB refuses it. NotFoundError: it names a series that is not in the store.
        StoreCorruptError: a file that it reads is missing or damaged.
    """
    place = lake.place
    engine = _engine(place.root, os.getpid())
    tree = _parse(place.root, os.getpid(), text)
    names = {str(node["table_name"]).lower() for node in tree if node.get("type") == "BASE_TABLE"}
    wants_past, calls = asks_past(tree), derived_calls(tree)
    wants_candles = any(node.get("function_name") == "candles" for node in tree)
    texts = {str(node["literal"]["text"]) for node in tree if isinstance(node.get("literal"), dict) and "text" in node["literal"]}
    texts |= {str(value) for value in (parameters.values() if isinstance(parameters, Mapping) else parameters or ())}
    tick_views = tick_sql.tick_views(place, tree, texts)
    with place.metadata.read() as tx:
        frames = {name: table(tx, name) for name in TABLES if name in names}
        series = _named(tx, texts) if wants_candles else []
        pins = [(row, live_files(tx, row.id), head_candles(tx, row.id), past_versions(tx, row.id) if wants_past else None)
                for row in series]
        plans = [(call.view, call.plan(tx)) for call in calls]
        whole = _pin_all(tx) if "all_candles" in names else None
    if "coverage" in names:
        frames["coverage"] = coverage_table(lake)
    derived = {view: read_derived(place, plan) for view, plan in plans}
    files = [path for _, paths, _, _ in pins for path in paths] + (whole[0] if whole else [])

    def answer(paths: list[Path]) -> pl.DataFrame:
        place_of = dict(zip(files, paths, strict=True))
        with _moved_files_named(), engine.cursor() as session:
            for name, frame in {**frames, **derived}.items():
                session.register(name, frame)
            with _unreadable_files_named():
                for row, live, head, past in pins:
                    _candles_view(session, row, [place_of[path] for path in live], head, past)
                if whole is not None:
                    _all_view(session, {path: place_of[path] for path in whole[0]}, whole[1])
                for view in tick_views:
                    view.make(session)
            session.execute(PAST_MACRO if wants_past else NOW_MACRO)
            if calls:
                session.execute(DERIVED_MACRO)
            session.execute(tick_sql.MACRO)
            return _execute(session, text, parameters, doubt=lambda: check_unaltered(place, files))

    return with_files(place, files, answer)


@lru_cache(maxsize=64)
def _parse(root: Path, process: int, text: str) -> tuple[dict[str, Any], ...]:
    """Return every node of the query's syntax tree; it hangs on the text alone, and pages ask the same again."""
    with _engine(root, process).cursor() as session:
        try:
            statements = session.extract_statements(text)
        except duckdb.Error as error:
            raise InputError("query", _line(text), _HELP, _line(str(error))) from None
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise InputError("query", _line(text), f"one query: {_HELP}", "the lake is changed by commands, not by SQL")
        row = session.execute("SELECT json_serialize_sql(?)", [text]).fetchone()
    tree = json.loads(row[0]) if row else {"error": True, "error_message": "no answer"}
    if tree["error"]:
        raise InputError("query", _line(text), f"one query: {_HELP}", _line(str(tree["error_message"])))
    return tuple(_nodes(tree))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    todo = [tree]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            yield item
            todo.extend(item.values())
        elif isinstance(item, list):
            todo.extend(item)


def _named(tx: Connection, texts: set[str]) -> list[SeriesRow]:
    """Return the series whose connection, symbol and timeframe are all among the texts of the query."""
    words = sorted({"1mo" if item == "1M" else item for item in texts} | texts)
    if len(words) > _WORDS:
        return [row for row in list_series(tx) if {row.series.connection, row.series.symbol, row.series.timeframe.name} <= set(words)]
    found = fetch(tx, "SELECT s.id FROM series s JOIN connections c ON c.id = s.connection_id"
                      f" WHERE c.slug IN ({marks(words)}) AND s.symbol IN ({marks(words)}) AND s.timeframe IN ({marks(words)})"
                      " ORDER BY s.id", [*words] * 3)
    return [get_series(tx, row[0]) for row in found]


def _pin_all(tx: Connection) -> tuple[list[str], pl.DataFrame]:
    files = [row[0] for row in fetch(tx, "SELECT path FROM lake_files WHERE dataset = 'candles'"
                                         " AND superseded_at_us IS NULL ORDER BY path")]
    rows = fetch(tx, f"SELECT slug, symbol, timeframe, {', '.join(f'h.{name}' for name in BLOCK_COLUMNS)} FROM head_candles h"
                     " JOIN series ON series.id = series_id JOIN connections ON connections.id = connection_id")
    keys = pl.DataFrame([row[:3] for row in rows], schema={"connection": pl.String, "symbol": pl.String, "timeframe": pl.String},
                        orient="row")
    blocks = [Block(*row[3:]) for row in rows]
    repeated = keys.select(pl.all().repeat_by(pl.Series([block.rows for block in blocks], dtype=pl.UInt32)).explode())
    return files, pl.concat([repeated, unpacked(blocks)], how="horizontal")


@contextmanager
def _moved_files_named() -> Iterator[None]:
    try:
        yield
    except duckdb.IOException as error:
        raise FileNotFoundError(_line(str(error))) from error  # it moved to .old/ meanwhile: `with_files` looks again


@contextmanager
def _unreadable_files_named() -> Iterator[None]:
    """While the views of files are made, nothing but a file can be wrong."""
    try:
        yield
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        raise OSError(_line(str(error))) from error  # `with_files` says which kind of error that is


@lru_cache(maxsize=8)
def _engine(root: Path, _process: int) -> duckdb.DuckDBPyConnection:
    """Return this process's DuckDB for a lake; to start one costs more than most queries.

    Each query has a cursor of its own: temporary views, macros and registered frames of one are not seen by another, and
    nothing else can be made, for only SELECTs pass and the settings are locked.
    """
    engine = duckdb.connect(":memory:")
    for setting in (f"allowed_directories = [{_quoted(root)}]", "enable_external_access = false",
                    "autoinstall_known_extensions = false", "autoload_known_extensions = false",
                    "python_enable_replacements = false", "enable_external_file_cache = false",
                    "parquet_metadata_cache = true",  # of files that never change; one that was altered has another time
                    "TimeZone = 'UTC'", "lock_configuration = true"):
        engine.execute(f"SET GLOBAL {setting}")
    return engine


def _candles_view(session: duckdb.DuckDBPyConnection, row: SeriesRow, paths: list[Path], head: pl.DataFrame,
                  past: pl.DataFrame | None) -> None:
    parts = []
    if head.height or not paths:  # an empty head would cost as much as some files
        session.register(f"head_{row.id}", head)
        parts.append(f"SELECT {_COLUMNS} FROM head_{row.id}")
    if paths:
        overlaid = f" ANTI JOIN head_{row.id} USING (ts)" if head.height else ""
        parts.append(f"SELECT {_COLUMNS} FROM read_parquet({_list(paths)}, hive_partitioning = false){overlaid}")
    key = (row.series.connection, row.series.symbol, row.series.timeframe.name)
    name = "_".join(["candles", *(part.encode().hex().upper() for part in key)])
    whole = " UNION ALL ".join(reversed(parts))
    if past is not None:
        session.register(f"past_{row.id}", past)
        whole = f"SELECT *, CAST(NULL AS TIMESTAMPTZ) AS until FROM ({whole}) UNION ALL FROM past_{row.id}"
    session.execute(f'CREATE TEMP VIEW "{name}" AS {whole}')


def _all_view(session: duckdb.DuckDBPyConnection, place_of: dict[str, Path], head: pl.DataFrame) -> None:
    session.register("head_of_all", head)
    columns = f"connection, symbol, timeframe, {_COLUMNS}"
    below = []
    named = [place for path, place in place_of.items() if str(place).endswith(path)]
    if named:
        below.append(f"SELECT {columns} FROM read_parquet({_list(named)}, hive_types = {HIVE_TYPES})")
    for path, place in place_of.items():
        if not str(place).endswith(path):  # in staging, on its way in or out: the folders there do not name the series
            key = layout.parse_path(path)[0]
            below.append(f"SELECT {_literal(key.connection)} AS connection, {_literal(key.symbol)} AS symbol,"
                         f" {_literal(key.timeframe.name)} AS timeframe, {_COLUMNS}"
                         f" FROM read_parquet({_quoted(place)}, hive_partitioning = false)")
    parts = [f"SELECT {columns} FROM head_of_all"]
    if below:
        parts.append(f"SELECT {columns} FROM ({' UNION ALL '.join(below)})"
                     " ANTI JOIN head_of_all USING (connection, symbol, timeframe, ts)")
    session.execute(f"CREATE TEMP VIEW all_candles AS {' UNION ALL '.join(reversed(parts))}")


def _execute(session: duckdb.DuckDBPyConnection, text: str,
             parameters: Sequence[object] | Mapping[str, object] | None, doubt: Callable[[], None]) -> pl.DataFrame:
    try:
        found: pl.DataFrame = session.sql(text, params=parameters or None).pl()
        return found
    except duckdb.IOException:
        raise
    except duckdb.Error as error:
        message = _line(str(error))
        unknown = _UNKNOWN.search(message)
        if "Table with name ticks_" in message:
            raise NotFoundError("no ticks of that connection and symbol in the store; stream them with: candlelake stream SLUG") from None
        if unknown:
            named = " ".join(bytes.fromhex(part).decode() for part in unknown.groups())
            raise NotFoundError(f"no series {named} in the store; `candlelake coverage` lists what there is") from None
        if not isinstance(error, _IN_THE_TEXT):
            doubt()  # a damaged page shows only when it is read
        raise InputError("query", _line(text), _HELP, message) from None


def _list(paths: Sequence[Path]) -> str:
    return "[" + ", ".join(_quoted(path) for path in paths) + "]"


def _quoted(path: Path) -> str:
    return _literal(str(path))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _line(text: str) -> str:
    return " ".join(text.split())[:300]



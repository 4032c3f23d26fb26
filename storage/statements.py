"""Plain SQL on the hot paths, for both databases: `?` marks become the driver's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

Row = tuple[Any, ...]


@lru_cache(maxsize=256)
def _for_psycopg(sql: str) -> str:
    return sql.replace("?", "%s")


def is_sqlite(tx: Connection) -> bool:
    """Whether `tx` speaks to SQLite."""
    return tx.dialect.name == "sqlite"


def _cursor(tx: Connection) -> Any:
    if not tx.in_transaction():
        tx.begin()  # SQLAlchemy does not see what the driver's cursor does, and would commit nothing
    return tx.connection.cursor()


def fetch(tx: Connection, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
    """Run one query with `?` marks on the driver itself and return its rows as plain tuples."""
    cursor = _cursor(tx)
    try:
        cursor.execute(sql if is_sqlite(tx) else _for_psycopg(sql), tuple(parameters))
        return list(cursor.fetchall())
    finally:
        cursor.close()


def execute_many(tx: Connection, sql: str, rows: Sequence[Sequence[object]]) -> None:
    """Run one changing statement with `?` marks for each of `rows`."""
    if not rows:
        return
    cursor = _cursor(tx)
    try:
        cursor.executemany(sql if is_sqlite(tx) else _for_psycopg(sql), rows)
    finally:
        cursor.close()


def marks(values: Iterable[object]) -> str:
    """Return `?, ?, ...`, one for each of `values`."""
    return ", ".join("?" for _ in values)

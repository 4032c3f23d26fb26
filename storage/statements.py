"""Plain SQL on the hot paths, for both databases: `?` marks become the driver's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table, text
from sqlalchemy.dialects import postgresql, sqlite

Row = tuple[Any, ...]
_TOGETHER = 10  # rows of one INSERT: with more, a long statement costs what the fewer steps save


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


def insert_many(tx: Connection, into: str, width: int, rows: Sequence[Sequence[object]]) -> None:
    """Insert rows of `width` values; `into` is `INSERT INTO table (columns)`."""
    whole = len(rows) - len(rows) % _TOGETHER if is_sqlite(tx) else 0  # psycopg sends many single ones in one go
    row = f"({', '.join('?' * width)})"
    execute_many(tx, f"{into} VALUES {', '.join([row] * _TOGETHER)}",
                 [tuple(chain.from_iterable(rows[first:first + _TOGETHER])) for first in range(0, whole, _TOGETHER)])
    execute_many(tx, f"{into} VALUES {row}", rows[whole:])


def insert_into(tx: Connection, table: Table) -> Any:
    """Return an INSERT into `table` that knows `on_conflict_do_nothing` and `on_conflict_do_update`, which SQLAlchemy's own does not."""
    return sqlite.insert(table) if is_sqlite(tx) else postgresql.insert(table)


def lock_table(tx: Connection, table: Table) -> None:
    """Let others who do this with the table wait until `tx` ends; reading goes on. SQLite's writers wait for each other anyway."""
    if not is_sqlite(tx):
        tx.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))


def marks(values: Iterable[object]) -> str:
    """Return `?, ?, ...`, one for each of `values`."""
    return ", ".join("?" for _ in values)

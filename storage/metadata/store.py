"""Opens the metadata store: SQLite (WAL, synchronous=FULL) by default, PostgreSQL by URL.

Writers take SQLite's write lock at BEGIN: a transaction that reads first and writes later could otherwise fail with
`database is locked` no matter how long it waits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from core.errors import (
    CandlelakeError,
    InputError,
    StoreBusyError,
    StoreConflictError,
    StoreCorruptError,
    StoreFullError,
    StoreUnwritableError,
)

BUSY_TIMEOUT_MS = 30_000
_GONE = "what this belongs to was deleted by another process meanwhile; try again"
_CONFLICTS = {"23505": "another process wrote the same at the same moment; try again", "23503": _GONE}  # by PostgreSQL's states


class MetadataStore:
    """The metadata database. `write()` is one durable transaction, `read()` one consistent snapshot."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is SQLite."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run the body in one transaction; when it returns, the changes are on disk.

        Raises:
            StoreBusyError, StoreFullError, StoreUnwritableError, StoreCorruptError: translated from the driver.
        """
        with translated(self.engine.dialect.loaded_dbapi), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.rollback()
                raise
            connection.commit()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Run the body on one snapshot of the store."""
        with translated(self.engine.dialect.loaded_dbapi), self.engine.connect() as connection:
            if self.is_sqlite:  # on the driver: SQLAlchemy's own way takes longer than a short query
                driver: Any = connection.connection.driver_connection
                driver.execute("BEGIN")  # ends when the pool takes the connection back
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection
            connection.rollback()

    def close(self) -> None:
        """Close all connections of the pool."""
        self.engine.dispose()


def open_metadata(url: str) -> MetadataStore:
    """Open the store at a SQLAlchemy URL; migrations are `storage.metadata.migrate.upgrade`'s work.

    Raises:
        InputError: the URL is none, or names a database or driver that is not installed; it is not repeated.
        StoreUnwritableError: the folder of the SQLite file cannot be written.
    """
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        options = {"pool_size": 8, "max_overflow": 24} | ({} if is_sqlite else {"pool_pre_ping": True})
        engine = create_engine(parsed, hide_parameters=True, **options)
    except (ArgumentError, ImportError) as error:  # its text may hold the password
        raise InputError(
            "CANDLELAKE_METADATA_URL", f"a URL that cannot be used ({type(error).__name__})",
            "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE", "correct it, or leave it out for SQLite") from None
    if is_sqlite:
        _check_folder(Path(parsed.database or ""))
        event.listen(engine, "connect", _prepare_sqlite)
    return MetadataStore(engine)


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin transactions ourselves
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")  # first: switching to WAL takes a lock
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":  # some network file systems cannot, and SQLite then keeps the old mode without a word
        raise StoreUnwritableError(
            f"the metadata store's folder does not support SQLite's WAL (it stays in mode {mode!r}); "
            "use a local disk, or PostgreSQL with CANDLELAKE_METADATA_URL")
    # A round over 500 series touches as many pages: checkpointed every 1,000 pages (the default), each second round would
    # write and sync the database too. 8,000 pages are 32 MB of log.
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "cache_size=-65536", "wal_autocheckpoint=8000"):
        connection.execute(f"PRAGMA {pragma}")


def _check_folder(database: Path) -> None:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnwritableError(
            f"cannot make the folder {database.parent}: {error.strerror}; choose another CANDLELAKE_HOME") from error


@contextmanager
def translated(driver: Any) -> Iterator[None]:
    """Raise what a database says in the body as an error of ours; a statement's own fault comes as it is.

    Args:
        driver: the DB-API module, e.g. `sqlite3`: whoever works on it directly, as `storage.statements` does, meets its own errors.

    Raises:
        StoreBusyError, StoreConflictError, StoreCorruptError, StoreFullError, StoreUnwritableError: by what the database says.
        InputError: a text that it cannot hold.
    """
    try:
        yield
    except UnicodeEncodeError:
        raise _torn("half a character") from None
    except (DBAPIError, driver.DatabaseError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if "cannot contain NUL" in str(cause):  # PostgreSQL's driver, before it asks
            raise _torn("one with a NUL character") from error
        is_lost = isinstance(error, DBAPIError) and error.connection_invalidated
        conflict = _GONE if "FOREIGN KEY constraint failed" in str(cause) else _CONFLICTS.get(getattr(cause, "sqlstate", None) or "")
        if conflict is not None:
            raise StoreConflictError(conflict) from error
        known = _translate(str(cause), is_operational=is_lost or isinstance(cause, driver.OperationalError))
        if known is None:
            raise
        raise known from error


def _torn(what: str) -> InputError:
    return InputError("text", what, "text that UTF-8 can hold, without NUL characters", "send it without")


def _translate(text: str, *, is_operational: bool) -> CandlelakeError | None:
    """Return what an error of the database means to the caller; None when it is the statement's own fault."""
    if "database disk image is malformed" in text or "file is not a database" in text:  # PostgreSQL calls literals malformed
        return StoreCorruptError(f"the metadata store is damaged: {text}; restore a backup, or set the database aside and run `candlelake audit --rebuild`")
    if not is_operational:
        return None
    if "readonly" in text or "unable to open" in text:
        return StoreUnwritableError(f"the metadata store cannot be written: {text}; check owner and mode of the folder that CANDLELAKE_HOME names")
    if "disk is full" in text or "disk I/O" in text:
        return StoreFullError(f"no space left for the metadata store: {text}; free some and run again")
    first = (text.splitlines() or ["no reason given"])[0]
    return StoreBusyError(f"the metadata store does not answer: {first}; try again")

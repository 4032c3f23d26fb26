"""Brings the metadata store's schema up and down with the Alembic scripts in `migrations/`; no alembic.ini is needed.

A migration is one transaction under one lock: of two processes that start at once the second finds the work done, and a
killed migration leaves the store as it was. Every command asks whether one is needed, so that takes no Alembic: the names of
the scripts are their revisions (`0001_first_schema.py` is `0001`), and it is imported when there is something to do.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, inspect, text

from core.errors import InputError, PermanentError
from storage.metadata.store import MetadataStore

if TYPE_CHECKING:
    from alembic.config import Config

SCRIPTS: Final = Path(__file__).parent / "migrations"
EMPTY: Final = "base"  # Alembic's name for a store without tables
_POSTGRES_LOCK: Final = 0x63616E646C656C  # "candlel": one advisory lock for all our migrations
_alembic_is_global = threading.Lock()  # its `context` is one per process


def upgrade(metadata: MetadataStore) -> None:
    """Bring the schema to the newest revision that this code knows; does nothing when it is there.

    Raises:
        PermanentError: the store's schema is newer than this code; nothing is touched.
        StoreBusyError: another process kept the lock for too long.
    """
    if current(metadata) == newest():
        return
    with _alembic_is_global, metadata.write() as tx:
        _lock(tx)
        if _check_known(tx) != newest():  # another process may have been faster
            from alembic import command  # noqa: PLC0415  a fifth of a second that most commands need not wait

            command.upgrade(_config(tx), "head")


def downgrade(metadata: MetadataStore, revision: str) -> None:
    """Bring the schema back to `revision`; `base` removes every table and all that is in them.

    Raises:
        InputError: no script has that revision.
        PermanentError: the store's schema is newer than this code; nothing is touched.
    """
    from alembic import command  # noqa: PLC0415  see above

    if revision not in {EMPTY, *_known()}:
        raise InputError("revision", revision, [EMPTY, *_known()], "use one of the revisions allowed")
    with _alembic_is_global, metadata.write() as tx:
        _lock(tx)
        _check_known(tx)
        command.downgrade(_config(tx), revision)


def current(metadata: MetadataStore) -> str | None:
    """Return the revision of the store's schema, None for an empty store.

    Raises:
        PermanentError: the schema is newer than this code.
    """
    with metadata.read() as tx:
        return _check_known(tx)


def newest() -> str:
    """Return the newest revision that this code knows."""
    return _known()[-1]


def _config(tx: Connection | None = None) -> Config:
    from alembic.config import Config  # noqa: PLC0415  see above

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


def _lock(tx: Connection) -> None:
    if tx.dialect.name == "postgresql":  # SQLite holds its write lock since BEGIN IMMEDIATE
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})


def _check_known(tx: Connection) -> str | None:
    revision = tx.execute(text("SELECT version_num FROM alembic_version")).scalar() if inspect(tx).has_table("alembic_version") else None
    if revision is not None and revision not in _known():
        raise PermanentError(
            f"metadata store: its schema is revision {revision}, this Candlelake knows up to {newest()}; "
            "nothing was changed; install a newer Candlelake, or restore the backup made before its upgrade")
    return revision


@lru_cache(maxsize=1)
def _known() -> tuple[str, ...]:
    """Return the revisions by the scripts' names, oldest first."""
    found = sorted(path.name.partition("_")[0] for path in (SCRIPTS / "versions").glob("[0-9]*.py"))
    if not found:
        raise PermanentError(f"no migration scripts in {SCRIPTS}; install Candlelake again")
    return tuple(found)

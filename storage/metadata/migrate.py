"""Brings the metadata store's schema up and down with the Alembic scripts in `migrations/`; no alembic.ini is needed.

A migration is one transaction under one lock: of two processes that start at once the second finds the work done, and a
killed migration leaves the store as it was.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text

from core.errors import InputError, PermanentError
from storage.metadata.store import MetadataStore

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
            command.upgrade(_config(tx), "head")


def downgrade(metadata: MetadataStore, revision: str) -> None:
    """Bring the schema back to `revision`; `base` removes every table and all that is in them.

    Raises:
        InputError: no script has that revision.
        PermanentError: the store's schema is newer than this code; nothing is touched.
    """
    _check_revision(revision)
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


@lru_cache(maxsize=1)
def newest() -> str:
    """Return the newest revision that this code knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    if head is None:
        raise PermanentError(f"no migration scripts in {SCRIPTS}; install Candlelake again")
    return head


def _config(tx: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = tx
    return config


def _lock(tx: Connection) -> None:
    if tx.dialect.name == "postgresql":  # SQLite holds its write lock since BEGIN IMMEDIATE
        tx.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})


def _check_known(tx: Connection) -> str | None:
    revision = MigrationContext.configure(tx).get_current_revision()
    if revision is not None and revision not in _known():
        raise PermanentError(
            f"metadata store: its schema is revision {revision}, this Candlelake knows up to {newest()}; "
            "nothing was changed; install a newer Candlelake, or restore the backup made before its upgrade")
    return revision


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    return frozenset(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _check_revision(revision: str) -> None:
    if revision == EMPTY:
        return
    try:
        found = ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError:
        found = None
    if found is None:
        raise InputError("revision", revision, [EMPTY, *sorted(_known())], "use one of the revisions allowed")

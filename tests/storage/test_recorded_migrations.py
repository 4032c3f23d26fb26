"""The stores of the tests are those of the real migrations."""

import pytest
from sqlalchemy import create_engine, inspect, text

from storage.metadata.migrate import current, newest, upgrade
from storage.metadata.store import open_metadata


def worded(row):
    """Return what the database says of one part; a condition in its words."""
    options = {name: str(value) for name, value in row.get("dialect_options", {}).items()}
    return str({**row, "dialect_options": options})


def described(url):
    """Return everything that the database says about its tables."""
    engine = create_engine(url)
    look = inspect(engine)
    asks = (look.get_columns, look.get_foreign_keys, look.get_indexes, look.get_unique_constraints, look.get_check_constraints)
    found = {name: [str(look.get_pk_constraint(name)), *(sorted(map(worded, ask(name))) for ask in asks)]
             for name in look.get_table_names()}
    with engine.connect() as tx:
        rows = {name: tx.execute(text(f"SELECT COUNT(*) FROM {name}")).scalar() for name in found}
    engine.dispose()
    return found, rows


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_store_from_the_record_is_the_one_that_the_migrations_make(kind, request, tmp_path, recorded_migrations):
    """Tables, keys, indexes, checks and first rows of a replayed store are those of the store that Alembic migrated."""
    recorded_migrations.pop(kind if kind == "sqlite" else "postgresql", None)
    urls = [request.getfixturevalue("postgres_url"), request.getfixturevalue("second_postgres_url")] if kind == "postgres" else [
        f"sqlite:///{tmp_path / name}.db" for name in ("migrated", "replayed")]
    for url in urls:
        store = open_metadata(url)
        upgrade(store)
        assert current(store) == newest()
        store.close()
    migrated, replayed = map(described, urls)
    assert migrated[0]
    assert replayed[1] == migrated[1]
    for table, said in migrated[0].items():
        assert replayed[0][table] == said


@pytest.fixture
def second_postgres_url(postgres_url, postgres_server):
    """The URL of one more empty database, dropped after the test."""
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    name = f"{postgres_url.split('/')[-1].split('?')[0]}_second"
    with engine.connect() as tx:
        tx.execute(text(f"CREATE DATABASE {name}"))
    yield engine.url.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as tx:
        tx.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()

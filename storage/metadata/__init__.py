"""The metadata store: tables, engine, migrations."""

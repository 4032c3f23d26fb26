"""Alembic scripts of the metadata store; `storage.metadata.migrate` runs them."""

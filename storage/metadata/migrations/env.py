"""Alembic's environment: runs the scripts on the connection that `storage.metadata.migrate` hands over.

The connection already holds a transaction and the lock; nothing here opens, commits or configures anything of its own.
"""

from alembic import context

import storage.metadata.tables_deliveries
import storage.metadata.tables_factors
import storage.metadata.tables_identities
import storage.metadata.tables_market
import storage.metadata.tables_people
import storage.metadata.tables_pipeline
import storage.metadata.tables_proof
import storage.metadata.tables_ticks
import storage.metadata.tables_trading  # noqa: F401  the tables join the metadata
from storage.metadata.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,  # SQLite can, too: a killed migration leaves nothing behind
    render_as_batch=True,
    compare_type=True,
    compare_server_default=True,
)
context.run_migrations()

"""The first schema: connections, credentials, series, head and manifest, ledger, leases, budgets, notifications."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
LIVE_CANDLES = sa.text("superseded_at_us IS NULL AND dataset = 'candles'")


def upgrade() -> None:
    op.create_table("connections",
        sa.Column("id", ID, nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("type", sa.String(length=10), nullable=False),
        sa.Column("provider", sa.String(length=100), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=True),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("status_reason", sa.Text(), nullable=True),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("is_admin_owned", sa.Boolean(), nullable=False),
        sa.Column("consecutive_failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_connected_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('inactive', 'active', 'error')", name=op.f("ck_connections_status")),
        sa.CheckConstraint("type IN ('fx', 'crypto')", name=op.f("ck_connections_type")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connections")),
        sa.UniqueConstraint("slug", name=op.f("uq_connections_slug")),
        sqlite_autoincrement=True
    )
    op.create_index(op.f("ix_connections_is_active_status"), "connections", ["is_active", "status"], unique=False)
    op.create_index(op.f("ix_connections_owner"), "connections", ["owner"], unique=False)
    op.create_table("leases",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases"))
    )
    op.create_table("rate_budgets",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("next_free_us", sa.BigInteger(), nullable=False),
        sa.Column("blocked_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("live_until_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_rate_budgets"))
    )
    op.create_table("connection_logs",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=True),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("action", sa.String(length=30), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('success', 'error')", name=op.f("ck_connection_logs_status")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
            name=op.f("fk_connection_logs_connection_id_connections"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connection_logs"))
    )
    op.create_index(op.f("ix_connection_logs_connection_id"), "connection_logs", ["connection_id"], unique=False)
    op.create_index(op.f("ix_connection_logs_slug_created_at_us"), "connection_logs", ["slug", "created_at_us"], unique=False)
    op.create_table("credentials",
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("field", sa.String(length=63), nullable=False),
        sa.Column("ciphertext", sa.LargeBinary(), nullable=False),
        sa.Column("key_id", sa.String(length=63), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
            name=op.f("fk_credentials_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("connection_id", "field", name=op.f("pk_credentials"))
    )
    op.create_index(op.f("ix_credentials_key_id"), "credentials", ["key_id"], unique=False)
    op.create_table("notifications",
        sa.Column("id", ID, nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("severity", sa.String(length=10), nullable=False),
        sa.Column("connection_id", ID, nullable=True),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("severity IN ('info', 'warning', 'error')", name=op.f("ck_notifications_severity")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
            name=op.f("fk_notifications_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notifications"))
    )
    op.create_index(op.f("ix_notifications_acknowledged_at_us_created_at_us"), "notifications", ["acknowledged_at_us", "created_at_us"], unique=False)
    op.create_table("series",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("symbol", sa.String(length=100), nullable=False),
        sa.Column("timeframe", sa.String(length=5), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=True),
        sa.Column("last_us", sa.BigInteger(), nullable=True),
        sa.Column("settle_seconds", sa.Float(), nullable=True),
        sa.Column("fetched_at_us", sa.BigInteger(), nullable=True),
        sa.Column("next_due_us", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
            name=op.f("fk_series_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_series")),
        sa.UniqueConstraint("connection_id", "symbol", "timeframe",
            name=op.f("uq_series_connection_id_symbol_timeframe")),
        sqlite_autoincrement=True
    )
    op.create_index(op.f("ix_series_is_active_next_due_us"), "series", ["is_active", "next_due_us"], unique=False)
    op.create_table("gaps",
        sa.Column("id", ID, nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("next_try_us", sa.BigInteger(), nullable=True),
        sa.Column("proof", sa.JSON(), nullable=False),
        sa.CheckConstraint("cause IN ('no_trade', 'market_closed', 'provider_empty', "
        "'fetch_failed', 'out_of_reach', 'before_listing', 'after_delisting', 'unknown')", name=op.f("ck_gaps_cause")),
        sa.CheckConstraint("start_us < end_us", name=op.f("ck_gaps_range")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_gaps_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gaps")),
        sa.UniqueConstraint("series_id", "start_us", name=op.f("uq_gaps_series_id_start_us"))
    )
    op.create_index(op.f("ix_gaps_next_try_us"), "gaps", ["next_try_us"], unique=False)
    op.create_table("head_candles",
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("open", sa.Float(), nullable=False),
        sa.Column("high", sa.Float(), nullable=False),
        sa.Column("low", sa.Float(), nullable=False),
        sa.Column("close", sa.Float(), nullable=False),
        sa.Column("volume", sa.Float(), nullable=False),
        sa.Column("spread", sa.Float(), nullable=True),
        sa.Column("known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(length=10), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_head_candles_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id", "ts_us", name=op.f("pk_head_candles")),
        sqlite_with_rowid=False
    )
    op.create_table("lake_files",
        sa.Column("id", ID, nullable=False),
        sa.Column("dataset", sa.String(length=12), nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("period", sa.String(length=10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at_us", sa.BigInteger(), nullable=True),
        sa.CheckConstraint("dataset IN ('candles', 'revisions', 'ticks')", name=op.f("ck_lake_files_dataset")),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_lake_files_series_id_series"), ondelete="RESTRICT"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_lake_files")),
        sa.UniqueConstraint("path", name=op.f("uq_lake_files_path"))
    )
    op.create_index(op.f("ix_lake_files_series_id_dataset_first_us"), "lake_files", ["series_id", "dataset", "first_us"], unique=False)
    op.create_index(op.f("ix_lake_files_superseded_at_us"), "lake_files", ["superseded_at_us"], unique=False)
    op.create_index("uq_lake_files_live", "lake_files", ["dataset", "series_id", "period"], unique=True, sqlite_where=LIVE_CANDLES, postgresql_where=LIVE_CANDLES)
    op.create_table("quarantine",
        sa.Column("id", ID, nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(length=60), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_quarantine_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        sa.UniqueConstraint("series_id", "digest", name=op.f("uq_quarantine_series_id_digest"))
    )
    op.create_table("revisions",
        sa.Column("id", ID, nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("old_known_at_us", sa.BigInteger(), nullable=False),
        sa.Column("old", sa.JSON(), nullable=False),
        sa.Column("new", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_revisions_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revisions")),
        sa.UniqueConstraint("series_id", "ts_us", "known_at_us",
            name=op.f("uq_revisions_series_id_ts_us_known_at_us"))
    )


def downgrade() -> None:
    op.drop_table("revisions")
    op.drop_table("quarantine")
    op.drop_index("uq_lake_files_live", table_name="lake_files", sqlite_where=LIVE_CANDLES, postgresql_where=LIVE_CANDLES)
    op.drop_index(op.f("ix_lake_files_superseded_at_us"), table_name="lake_files")
    op.drop_index(op.f("ix_lake_files_series_id_dataset_first_us"), table_name="lake_files")
    op.drop_table("lake_files")
    op.drop_table("head_candles")
    op.drop_index(op.f("ix_gaps_next_try_us"), table_name="gaps")
    op.drop_table("gaps")
    op.drop_index(op.f("ix_series_is_active_next_due_us"), table_name="series")
    op.drop_table("series")
    op.drop_index(op.f("ix_notifications_acknowledged_at_us_created_at_us"), table_name="notifications")
    op.drop_table("notifications")
    op.drop_index(op.f("ix_credentials_key_id"), table_name="credentials")
    op.drop_table("credentials")
    op.drop_index(op.f("ix_connection_logs_slug_created_at_us"), table_name="connection_logs")
    op.drop_index(op.f("ix_connection_logs_connection_id"), table_name="connection_logs")
    op.drop_table("connection_logs")
    op.drop_table("rate_budgets")
    op.drop_table("leases")
    op.drop_index(op.f("ix_connections_owner"), table_name="connections")
    op.drop_index(op.f("ix_connections_is_active_status"), table_name="connections")
    op.drop_table("connections")

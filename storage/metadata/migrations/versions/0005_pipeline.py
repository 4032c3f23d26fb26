"""The signal pipeline: definitions, versions, watermarks, executions, signals, orders, filter strategies."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table("filter_strategies",
        sa.Column("id", ID, nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_filter_strategies")),
        sa.UniqueConstraint("owner", "name", name=op.f("uq_filter_strategies_owner_name"))
    )
    op.create_table("pipelines",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("shadow_of", sa.String(length=63), nullable=True),
        sa.Column("is_live", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("running_since_us", sa.BigInteger(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("retry_at_us", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipelines")),
        sa.UniqueConstraint("name", name=op.f("uq_pipelines_name")),
    sqlite_autoincrement=True
    )
    op.create_index(op.f("ix_pipelines_is_enabled"), "pipelines", ["is_enabled"], unique=False)
    op.create_table("pipeline_versions",
        sa.Column("pipeline_id", ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("author", sa.String(length=200), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"],
            name=op.f("fk_pipeline_versions_pipeline_id_pipelines"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pipeline_id", "version", name=op.f("pk_pipeline_versions"))
    )
    op.create_table("pipeline_executions",
        sa.Column("id", ID, nullable=False),
        sa.Column("pipeline_id", ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("as_of_us", sa.BigInteger(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("stage", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("input_digest", sa.String(length=64), nullable=False),
        sa.Column("output_digest", sa.String(length=64), nullable=True),
        sa.Column("rows_in", sa.Integer(), nullable=False),
        sa.Column("rows_out", sa.Integer(), nullable=True),
        sa.Column("parts", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("execution_time_ms", sa.Float(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("stage IN ('cleaner', 'filter', 'indicator', 'signal', 'confidence', 'executor')",
            name=op.f("ck_pipeline_executions_stage")),
        sa.CheckConstraint("status IN ('ok', 'stopped', 'error')", name=op.f("ck_pipeline_executions_status")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"],
            name=op.f("fk_pipeline_executions_pipeline_id_pipelines"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_pipeline_executions_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pipeline_executions"))
    )
    op.create_index(op.f("ix_pipeline_executions_created_at_us"), "pipeline_executions", ["created_at_us"],
            unique=False)
    op.create_index(op.f("ix_pipeline_executions_pipeline_id_created_at_us"), "pipeline_executions",
            ["pipeline_id", "created_at_us"], unique=False)
    op.create_index(op.f("ix_pipeline_executions_pipeline_id_series_id_ts_us"), "pipeline_executions",
            ["pipeline_id", "series_id", "ts_us"], unique=False)
    op.create_table("pipeline_watermarks",
        sa.Column("pipeline_id", ID, nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"],
            name=op.f("fk_pipeline_watermarks_pipeline_id_pipelines"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"],
            name=op.f("fk_pipeline_watermarks_series_id_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("pipeline_id", "series_id", name=op.f("pk_pipeline_watermarks"))
    )
    op.create_index(op.f("ix_pipeline_watermarks_series_id"), "pipeline_watermarks", ["series_id"], unique=False)
    op.create_table("signals",
        sa.Column("id", ID, nullable=False),
        sa.Column("pipeline_id", ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("close_us", sa.BigInteger(), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("price", sa.Float(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("input_digest", sa.String(length=64), nullable=False),
        sa.Column("is_shadow", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("as_of_us", sa.BigInteger(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("execution", sa.String(length=10), nullable=False),
        sa.Column("execution_message", sa.Text(), nullable=True),
        sa.CheckConstraint("execution IN ('none', 'pending', 'done', 'refused')", name=op.f("ck_signals_execution")),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_signals_side")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"],
            name=op.f("fk_signals_pipeline_id_pipelines"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_signals_series_id_series"),
            ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signals")),
        sa.UniqueConstraint("pipeline_id", "version", "series_id", "ts_us",
            name=op.f("uq_signals_pipeline_id_version_series_id_ts_us"))
    )
    op.create_index(op.f("ix_signals_created_at_us"), "signals", ["created_at_us"], unique=False)
    op.create_index(op.f("ix_signals_execution"), "signals", ["execution"], unique=False)
    op.create_index(op.f("ix_signals_series_id_ts_us"), "signals", ["series_id", "ts_us"], unique=False)
    op.create_table("orders",
        sa.Column("id", ID, nullable=False),
        sa.Column("key", sa.String(length=400), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("signal_id", ID, nullable=True),
        sa.Column("pipeline_id", ID, nullable=True),
        sa.Column("pipeline", sa.String(length=63), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("connection", sa.String(length=63), nullable=False),
        sa.Column("symbol", sa.String(length=100), nullable=False),
        sa.Column("timeframe", sa.String(length=5), nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("mode", sa.String(length=5), nullable=False),
        sa.Column("side", sa.String(length=4), nullable=False),
        sa.Column("quantity", sa.Float(), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("broker_order_id", sa.String(length=100), nullable=True),
        sa.Column("price", sa.Float(), nullable=True),
        sa.Column("fill_price", sa.Float(), nullable=True),
        sa.Column("filled_quantity", sa.Float(), server_default="0", nullable=False),
        sa.Column("filled_us", sa.BigInteger(), nullable=True),
        sa.Column("commission", sa.Float(), server_default="0", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_us", sa.BigInteger(), nullable=True),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("mode IN ('paper', 'live')", name=op.f("ck_orders_mode")),
        sa.CheckConstraint("side IN ('buy', 'sell')", name=op.f("ck_orders_side")),
        sa.CheckConstraint("status IN ('new', 'sending', 'acknowledged', 'filled', 'rejected', 'cancelled', "
            "'refused')", name=op.f("ck_orders_status")),
        sa.ForeignKeyConstraint(["pipeline_id"], ["pipelines.id"],
            name=op.f("fk_orders_pipeline_id_pipelines"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["signal_id"], ["signals.id"], name=op.f("fk_orders_signal_id_signals"),
            ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
        sa.UniqueConstraint("client_id", name=op.f("uq_orders_client_id")),
        sa.UniqueConstraint("key", name=op.f("uq_orders_key")),
    sqlite_autoincrement=True
    )
    op.create_index(op.f("ix_orders_connection_symbol_created_at_us"), "orders", ["connection", "symbol",
            "created_at_us"], unique=False)
    op.create_index(op.f("ix_orders_pipeline_created_at_us"), "orders", ["pipeline", "created_at_us"], unique=False)
    op.create_index(op.f("ix_orders_status"), "orders", ["status"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_orders_status"), table_name="orders")
    op.drop_index(op.f("ix_orders_pipeline_created_at_us"), table_name="orders")
    op.drop_index(op.f("ix_orders_connection_symbol_created_at_us"), table_name="orders")
    op.drop_table("orders")
    op.drop_index(op.f("ix_signals_series_id_ts_us"), table_name="signals")
    op.drop_index(op.f("ix_signals_execution"), table_name="signals")
    op.drop_index(op.f("ix_signals_created_at_us"), table_name="signals")
    op.drop_table("signals")
    op.drop_index(op.f("ix_pipeline_watermarks_series_id"), table_name="pipeline_watermarks")
    op.drop_table("pipeline_watermarks")
    op.drop_index(op.f("ix_pipeline_executions_pipeline_id_series_id_ts_us"), table_name="pipeline_executions")
    op.drop_index(op.f("ix_pipeline_executions_pipeline_id_created_at_us"), table_name="pipeline_executions")
    op.drop_index(op.f("ix_pipeline_executions_created_at_us"), table_name="pipeline_executions")
    op.drop_table("pipeline_executions")
    op.drop_table("pipeline_versions")
    op.drop_index(op.f("ix_pipelines_is_enabled"), table_name="pipelines")
    op.drop_table("pipelines")
    op.drop_table("filter_strategies")

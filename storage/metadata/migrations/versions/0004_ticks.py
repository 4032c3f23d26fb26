"""Ticks: their series and files, the ranges in which some are lost, and the state of each stream."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table("stream_states",
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("started_at_us", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_us", sa.BigInteger(), nullable=False),
        sa.Column("last_tick_us", sa.BigInteger(), nullable=True),
        sa.Column("lag_seconds", sa.Float(), nullable=True),
        sa.Column("ticks_per_second", sa.Float(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.CheckConstraint("state IN ('connecting', 'live', 'closed', 'waiting', 'stopped', 'failed')",
                name=op.f("ck_stream_states_state")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
                name=op.f("fk_stream_states_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("connection_id", name=op.f("pk_stream_states"))
    )
    op.create_table("tick_series",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("symbol", sa.String(length=100), nullable=False),
        sa.Column("covered_until_us", sa.BigInteger(), nullable=True),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
                name=op.f("fk_tick_series_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tick_series")),
        sa.UniqueConstraint("connection_id", "symbol", name=op.f("uq_tick_series_connection_id_symbol"))
    )
    op.create_table("tick_files",
        sa.Column("id", ID, nullable=False),
        sa.Column("tick_series_id", ID, nullable=False),
        sa.Column("date", sa.String(length=10), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("rows", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.Column("superseded_at_us", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["tick_series_id"], ["tick_series.id"],
                name=op.f("fk_tick_files_tick_series_id_tick_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tick_files")),
        sa.UniqueConstraint("path", name=op.f("uq_tick_files_path"))
    )
    op.create_index(op.f("ix_tick_files_superseded_at_us"), "tick_files", ["superseded_at_us"], unique=False)
    op.create_index(op.f("ix_tick_files_tick_series_id_date"), "tick_files", ["tick_series_id", "date"], unique=False)
    op.create_table("tick_gaps",
        sa.Column("id", ID, nullable=False),
        sa.Column("tick_series_id", ID, nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=20), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.Column("healed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("proof", sa.JSON(), nullable=False),
        sa.CheckConstraint("cause IN ('not_streaming', 'killed', 'disconnected', 'stalled', 'overflow', 'sequence')",
                name=op.f("ck_tick_gaps_cause")),
        sa.CheckConstraint("start_us < end_us", name=op.f("ck_tick_gaps_range")),
        sa.ForeignKeyConstraint(["tick_series_id"], ["tick_series.id"],
                name=op.f("fk_tick_gaps_tick_series_id_tick_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tick_gaps"))
    )
    op.create_index(op.f("ix_tick_gaps_tick_series_id_start_us"), "tick_gaps", ["tick_series_id", "start_us"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_tick_gaps_tick_series_id_start_us"), table_name="tick_gaps")
    op.drop_table("tick_gaps")
    op.drop_index(op.f("ix_tick_files_tick_series_id_date"), table_name="tick_files")
    op.drop_index(op.f("ix_tick_files_superseded_at_us"), table_name="tick_files")
    op.drop_table("tick_files")
    op.drop_table("tick_series")
    op.drop_table("stream_states")

"""What is learned about a market: calendars, clock history, listings, settling."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table("calendars",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("symbol", sa.String(length=100), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("origin", sa.String(length=10), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("origin IN ('learned', 'set')", name=op.f("ck_calendars_origin")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"], name=op.f("fk_calendars_connection_id_connections"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calendars")),
        sa.UniqueConstraint("connection_id", "symbol", name=op.f("uq_calendars_connection_id_symbol")),
    )
    op.create_table("clock_history",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("offset_minutes", sa.Integer(), nullable=True),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("kind IN ('learned', 'set', 'confirmed', 'contradicted')", name=op.f("ck_clock_history_kind")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"],
                                name=op.f("fk_clock_history_connection_id_connections"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clock_history")),
    )
    op.create_index(op.f("ix_clock_history_connection_id_seen_at_us"), "clock_history", ["connection_id", "seen_at_us"],
                    unique=False)
    op.create_table("listings",
        sa.Column("id", ID, nullable=False),
        sa.Column("connection_id", ID, nullable=False),
        sa.Column("symbol", sa.String(length=100), nullable=False),
        sa.Column("asked_as", sa.String(length=100), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("market_id", sa.String(length=200), nullable=True),
        sa.Column("listed_us", sa.BigInteger(), nullable=True),
        sa.Column("missing_since_us", sa.BigInteger(), nullable=True),
        sa.Column("delisted_us", sa.BigInteger(), nullable=True),
        sa.Column("claim", sa.JSON(), nullable=True),
        sa.Column("first_seen_us", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_us", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("status IN ('listed', 'missing', 'delisted', 'conflict')", name=op.f("ck_listings_status")),
        sa.ForeignKeyConstraint(["connection_id"], ["connections.id"], name=op.f("fk_listings_connection_id_connections"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_listings")),
        sa.UniqueConstraint("connection_id", "symbol", name=op.f("uq_listings_connection_id_symbol")),
    )
    op.create_table("settle_sights",
        sa.Column("series_id", ID, nullable=False),
        sa.Column("ts_us", sa.BigInteger(), nullable=False),
        sa.Column("age_us", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_settle_sights_series_id_series"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id", "ts_us", name=op.f("pk_settle_sights")),
        sqlite_with_rowid=False,
    )
    op.create_table("settle_evidence",
        sa.Column("series_id", ID, nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False),
        sa.Column("late_us", sa.BigInteger(), nullable=False),
        sa.Column("final_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name=op.f("fk_settle_evidence_series_id_series"),
                                ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("series_id", name=op.f("pk_settle_evidence")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("settle_evidence")
    op.drop_table("settle_sights")
    op.drop_table("listings")
    op.drop_index(op.f("ix_clock_history_connection_id_seen_at_us"), table_name="clock_history")
    op.drop_table("clock_history")
    op.drop_table("calendars")

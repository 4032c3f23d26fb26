"""Two more causes of lost ticks: the journal was damaged, and REST counts more in a candle than was heard."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BEFORE = "'not_streaming', 'killed', 'disconnected', 'stalled', 'overflow', 'sequence'"
AFTER = f"{BEFORE}, 'damaged', 'unheard'"


def upgrade() -> None:
    _allow(AFTER)


def downgrade() -> None:
    op.execute("UPDATE tick_gaps SET cause = 'disconnected' WHERE cause IN ('damaged', 'unheard')")
    _allow(BEFORE)


def _allow(causes: str) -> None:
    name, rule = op.f("ck_tick_gaps_cause"), f"cause IN ({causes})"
    if op.get_bind().dialect.name != "sqlite":
        op.drop_constraint(name, "tick_gaps", type_="check")
        op.create_check_constraint(name, "tick_gaps", rule)
        return
    op.drop_index(op.f("ix_tick_gaps_tick_series_id_start_us"), table_name="tick_gaps")  # SQLite changes no constraint: a table is made anew
    op.rename_table("tick_gaps", "tick_gaps_before")
    op.create_table("tick_gaps",
        sa.Column("id", ID, nullable=False),
        sa.Column("tick_series_id", ID, nullable=False),
        sa.Column("start_us", sa.BigInteger(), nullable=False),
        sa.Column("end_us", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=20), nullable=False),
        sa.Column("seen_at_us", sa.BigInteger(), nullable=False),
        sa.Column("healed_at_us", sa.BigInteger(), nullable=True),
        sa.Column("proof", sa.JSON(), nullable=False),
        sa.CheckConstraint(rule, name=name),
        sa.CheckConstraint("start_us < end_us", name=op.f("ck_tick_gaps_range")),
        sa.ForeignKeyConstraint(["tick_series_id"], ["tick_series.id"],
                name=op.f("fk_tick_gaps_tick_series_id_tick_series"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tick_gaps"))
    )
    op.create_index(op.f("ix_tick_gaps_tick_series_id_start_us"), "tick_gaps", ["tick_series_id", "start_us"], unique=False)
    op.execute("INSERT INTO tick_gaps SELECT id, tick_series_id, start_us, end_us, cause, seen_at_us, healed_at_us, proof FROM tick_gaps_before")
    op.drop_table("tick_gaps_before")

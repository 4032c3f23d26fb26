"""Revisions by when they became known: the newest of all series, and those of a report's period."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_revisions_known_at_us"), "revisions", ["known_at_us"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_revisions_known_at_us"), table_name="revisions")

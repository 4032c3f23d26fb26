"""The audit log's head: which row is the newest, so that rows cut off at the end of the log are missed."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("audit_head",
        sa.Column("last_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chain", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("last_id", name=op.f("pk_audit_head")),
    )
    op.execute("INSERT INTO audit_head SELECT id, chain FROM audit_log ORDER BY id DESC LIMIT 1")


def downgrade() -> None:
    op.drop_table("audit_head")

"""Table of notifications on their way out: one row for each notification and channel."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from storage.metadata.tables import Id, metadata

deliveries = Table(
    "deliveries", metadata,
    Column("notification_id", Id, ForeignKey("notifications.id", ondelete="CASCADE"), primary_key=True),
    Column("channel", String(20), primary_key=True),  # email | webhook
    Column("attempts", Integer, nullable=False),
    Column("next_try_us", BigInteger),  # null: sent, or given up
    Column("sent_at_us", BigInteger),
    Column("last_error", Text),
    Index(None, "next_try_us"),
)

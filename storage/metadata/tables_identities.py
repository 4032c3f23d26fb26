"""Table of the identities at other providers by which users sign in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, String, Table

from storage.metadata.tables import Id, metadata

user_identities = Table(
    "user_identities", metadata,
    Column("issuer", String(500), primary_key=True),
    Column("subject", String(255), primary_key=True),  # what the issuer never gives to another person; an e-mail address may move on
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("linked_at_us", BigInteger, nullable=False),
    Index(None, "user_id"),
)

"""Table of second factors: an authenticator app's secret, sealed, and the digests of its recovery codes."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, LargeBinary, String, Table

from storage.metadata.tables import Id, metadata

second_factors = Table(
    "second_factors", metadata,
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key_id", String(64), nullable=False),  # of the key that seals it
    Column("ciphertext", LargeBinary, nullable=False),
    Column("confirmed_at_us", BigInteger),  # null: begun, and no code was shown yet
    Column("last_step", BigInteger, nullable=False),  # the newest time step whose code was used: each counts once
    Column("recovery", JSON, nullable=False),  # SHA-256 of the recovery codes that are left
    Index(None, "key_id"),
)

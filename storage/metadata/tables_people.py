"""Tables of people and their rights: users, permissions, sessions, tokens, one-time codes, throttles, audit log.

Nothing here lets its reader in: passwords are argon2 hashes; sessions, tokens and codes are stored as SHA-256 of random bytes.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
)

from storage.metadata.tables import Id, metadata

users = Table(
    "users", metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),  # what connections and pipelines name as their owner
    Column("role", String(20), nullable=False),
    Column("password_hash", Text),  # null: cannot sign in by password yet
    Column("email", String(254)),
    Column("is_active", Boolean, nullable=False),
    Column("is_email_verified", Boolean, nullable=False),
    Column("is_kyc_done", Boolean, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    CheckConstraint("role IN ('super_admin', 'staff_admin', 'user')", name="role"),
    sqlite_autoincrement=True,
)

user_permissions = Table(
    "user_permissions", metadata,
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("permission", String(63), primary_key=True),
)

sessions = Table(
    "sessions", metadata,
    Column("digest", String(64), primary_key=True),  # of the cookie's value
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("csrf", String(64), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
    Index(None, "user_id"),
)

api_tokens = Table(
    "api_tokens", metadata,
    Column("id", Id, primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("digest", String(64), nullable=False, unique=True),
    Column("hint", String(8), nullable=False),  # its last characters, for people
    Column("scopes", JSON, nullable=False),
    Column("expires_at_us", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("used_at_us", BigInteger),
    Column("revoked_at_us", BigInteger),
    Index(None, "user_id"),
    sqlite_autoincrement=True,
)

one_time_codes = Table(  # the first admin's, and those that let a person set a password
    "one_time_codes", metadata,
    Column("digest", String(64), primary_key=True),
    Column("purpose", String(20), nullable=False),  # setup | password
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE")),
    Column("expires_at_us", BigInteger, nullable=False),
    CheckConstraint("purpose IN ('setup', 'password')", name="purpose"),
    Index(None, "user_id"),
)

login_throttles = Table(
    "login_throttles", metadata,
    Column("key", String(200), primary_key=True),  # user:NAME or address:IP
    Column("failures", Integer, nullable=False),
    Column("last_at_us", BigInteger, nullable=False),
)

audit_log = Table(  # hash-chained: a changed or missing row is found
    "audit_log", metadata,
    Column("id", Id, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(63), nullable=False),
    Column("via", String(10), nullable=False),  # page | api | cli
    Column("action", String(63), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("outcome", String(10), nullable=False),  # done | refused | failed
    Column("detail", JSON, nullable=False),
    Column("chain", String(64), nullable=False),  # SHA-256 of the row before and this one
    Index(None, "at_us"),
    Index(None, "actor", "at_us"),
    sqlite_autoincrement=True,
)

audit_head = Table(  # one row: the newest of the log, so that rows cut off at its end are missed
    "audit_head", metadata,
    Column("last_id", BigInteger, primary_key=True, autoincrement=False),
    Column("chain", String(64), nullable=False),
)

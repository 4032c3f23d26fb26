"""The tables of the metadata store, in SQLAlchemy Core. Instants are BIGINT microseconds since 1970 UTC (`_us` columns).

One schema serves SQLite and PostgreSQL; changes go through `migrations/`, and a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.sql.type_api import TypeEngine

metadata = MetaData(naming_convention={
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
})
# SQLite gives a rowid alias only to INTEGER primary keys.
Id: TypeEngine[int] = BigInteger().with_variant(Integer, "sqlite")


def _one_of(name: str, column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(v) for v in values)})", name=name)


connections = Table(
    "connections", metadata,
    Column("id", Id, primary_key=True),
    Column("slug", String(63), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("type", String(10), nullable=False),  # fx | crypto
    Column("provider", String(100), nullable=False),  # mtapi:mt5, ccxt:kraken, ...
    Column("base_url", Text),
    Column("config", JSON, nullable=False),  # provider-specific, no secrets
    Column("settings", JSON, nullable=False),  # ours: retention_days, overlap_candles, ...
    Column("status", String(10), nullable=False),  # inactive | active | error
    Column("status_reason", Text),  # one line: why it is in this state and what to do
    Column("is_active", Boolean, nullable=False),  # what its owner wants; status is what is
    Column("owner", String(200)),
    Column("is_admin_owned", Boolean, nullable=False),
    Column("consecutive_failures", Integer, nullable=False, server_default="0"),
    Column("retry_at_us", BigInteger),  # not before this instant (back-off)
    Column("last_connected_at_us", BigInteger),
    Column("last_error", Text),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    _one_of("type", "type", ("fx", "crypto")),
    _one_of("status", "status", ("inactive", "active", "error")),
    Index(None, "owner"),
    Index(None, "is_active", "status"),
    sqlite_autoincrement=True,  # an id is never used again: ciphertexts and logs are bound to it
)

credentials = Table(
    "credentials", metadata,
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), primary_key=True),
    Column("field", String(63), primary_key=True),
    Column("ciphertext", LargeBinary, nullable=False),  # key id inside; see storage/vault.py
    Column("key_id", String(63), nullable=False),  # repeated here so that rotation finds what is left
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "key_id"),
)

connection_logs = Table(
    "connection_logs", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="SET NULL")),
    Column("slug", String(63), nullable=False),  # outlives the connection
    Column("action", String(30), nullable=False),
    Column("status", String(10), nullable=False),  # success | error
    Column("message", Text, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    _one_of("status", "status", ("success", "error")),
    Index(None, "slug", "created_at_us"),
    Index(None, "connection_id"),
)

series = Table(
    "series", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("symbol", String(100), nullable=False),
    Column("timeframe", String(5), nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("first_us", BigInteger),  # first and last stored candle
    Column("last_us", BigInteger),
    Column("settle_seconds", Float),  # learned; null means the setting
    Column("fetched_at_us", BigInteger),  # last fetch that ended well
    Column("next_due_us", BigInteger, nullable=False, server_default="0"),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("connection_id", "symbol", "timeframe"),
    Index(None, "is_active", "next_due_us"),
    sqlite_autoincrement=True,
)

head_candles = Table(  # a row is a block: what one write brought for one series; see storage/lake/blocks.py
    "head_candles", metadata,
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    Column("last_us", BigInteger, primary_key=True),  # open time of its last candle: a time lies in one block at most
    Column("first_us", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("known_at_us", BigInteger, nullable=False),
    Column("source", String(10), nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("candles", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

lake_files = Table(  # the manifest: the commit point of the lake
    "lake_files", metadata,
    Column("id", Id, primary_key=True),
    Column("dataset", String(12), nullable=False),  # candles | revisions | ticks
    Column("series_id", Id, ForeignKey("series.id", ondelete="RESTRICT"), nullable=False),
    Column("period", String(10), nullable=False),  # the partition's first day
    Column("path", Text, nullable=False, unique=True),  # below the lake's root
    Column("rows", BigInteger, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the file's bytes
    Column("generation", BigInteger, nullable=False),  # counts up per partition
    Column("created_at_us", BigInteger, nullable=False),
    Column("superseded_at_us", BigInteger),  # null: live
    _one_of("dataset", "dataset", ("candles", "revisions", "ticks")),
    Index("uq_lake_files_live", "dataset", "series_id", "period", unique=True,
          sqlite_where=text("superseded_at_us IS NULL AND dataset = 'candles'"),
          postgresql_where=text("superseded_at_us IS NULL AND dataset = 'candles'")),
    Index(None, "series_id", "dataset", "first_us"),
    Index(None, "superseded_at_us"),
)

revisions = Table(  # each change of a stored candle by its provider; the old value stays readable
    "revisions", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("ts_us", BigInteger, nullable=False),
    Column("known_at_us", BigInteger, nullable=False),  # when the new value was first stored
    Column("old_known_at_us", BigInteger, nullable=False),
    Column("old", JSON, nullable=False),  # the candle's values, source and run_id
    Column("new", JSON, nullable=False),
    UniqueConstraint("series_id", "ts_us", "known_at_us"),
    Index(None, "known_at_us"),
)

gaps = Table(  # the ledger: every slot that is expected and not stored
    "gaps", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("cause", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_seen_us", BigInteger, nullable=False),
    Column("last_seen_us", BigInteger, nullable=False),
    Column("next_try_us", BigInteger),  # null: final, not tried again
    Column("proof", JSON, nullable=False),
    UniqueConstraint("series_id", "start_us"),
    CheckConstraint("start_us < end_us", name="range"),
    _one_of("cause", "cause", ("no_trade", "market_closed", "provider_empty", "fetch_failed", "out_of_reach",
                               "before_listing", "after_delisting", "unknown")),
    Index(None, "next_try_us"),
)

quarantine = Table(  # rows that a provider sent and that may not be stored
    "quarantine", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("ts_us", BigInteger),
    Column("reason", String(60), nullable=False),
    Column("digest", String(64), nullable=False),  # of the row: the same row twice is one entry
    Column("row", JSON, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
    UniqueConstraint("series_id", "digest"),
)

leases = Table(
    "leases", metadata,
    Column("name", String(200), primary_key=True),  # e.g. connection:kraken
    Column("holder", String(100), nullable=False),
    Column("token", BigInteger, nullable=False),  # fencing: counts up with each new holder
    Column("expires_at_us", BigInteger, nullable=False),
)

rate_budgets = Table(
    "rate_budgets", metadata,
    Column("key", String(200), primary_key=True),  # venue and account or address
    Column("next_free_us", BigInteger, nullable=False),  # when the next request may start
    Column("blocked_until_us", BigInteger, nullable=False, server_default="0"),
    Column("live_until_us", BigInteger, nullable=False, server_default="0"),  # live work waits: backfills hold back
)

notifications = Table(
    "notifications", metadata,
    Column("id", Id, primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("severity", String(10), nullable=False),  # info | warning | error
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE")),
    Column("title", String(200), nullable=False),
    Column("message", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("acknowledged_at_us", BigInteger),
    _one_of("severity", "severity", ("info", "warning", "error")),
    Index(None, "acknowledged_at_us", "created_at_us"),
)

"""Tables of ticks and streams: what ticks are stored and where, which ranges of them are lost, how each stream fares."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from storage.metadata.tables import Id, metadata

tick_series = Table(  # the ticks of one symbol of a connection
    "tick_series", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("symbol", String(100), nullable=False),
    Column("covered_until_us", BigInteger),  # up to here a stream saw all; what follows until the next start is a gap
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("connection_id", "symbol"),
)

tick_files = Table(  # the manifest of the ticks dataset
    "tick_files", metadata,
    Column("id", Id, primary_key=True),
    Column("tick_series_id", Id, ForeignKey("tick_series.id", ondelete="CASCADE"), nullable=False),
    Column("date", String(10), nullable=False),  # the UTC day of its ticks
    Column("path", Text, nullable=False, unique=True),  # below the lake's root
    Column("rows", BigInteger, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the file's bytes
    Column("created_at_us", BigInteger, nullable=False),
    Column("superseded_at_us", BigInteger),  # null: live
    Index(None, "tick_series_id", "date"),
    Index(None, "superseded_at_us"),
)

tick_gaps = Table(  # ranges in which ticks may be missing
    "tick_gaps", metadata,
    Column("id", Id, primary_key=True),
    Column("tick_series_id", Id, ForeignKey("tick_series.id", ondelete="CASCADE"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("cause", String(20), nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
    Column("healed_at_us", BigInteger),  # history was fetched for it
    Column("proof", JSON, nullable=False),
    CheckConstraint("start_us < end_us", name="range"),
    CheckConstraint(
        "cause IN ('not_streaming', 'killed', 'disconnected', 'stalled', 'overflow', 'sequence', 'damaged', 'unheard')", name="cause"),
    Index(None, "tick_series_id", "start_us"),
)

stream_states = Table(  # how the stream of a connection fares; written by its run every few seconds
    "stream_states", metadata,
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("state", String(12), nullable=False),
    Column("message", Text),
    Column("started_at_us", BigInteger, nullable=False),
    Column("heartbeat_us", BigInteger, nullable=False),
    Column("last_tick_us", BigInteger),  # event time of the newest tick
    Column("lag_seconds", Float),  # from the newest tick's event to its receipt
    Column("ticks_per_second", Float),
    Column("counts", JSON, nullable=False),  # ticks, repeats, late, candles, agreed, contradicted, reconnects, lost
    CheckConstraint("state IN ('connecting', 'live', 'closed', 'waiting', 'stopped', 'failed')", name="state"),
)

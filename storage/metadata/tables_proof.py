"""Tables of the proof: which run and request brought a row, what was repaired, what retention took, named snapshots."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from storage.metadata.tables import Id, metadata

runs = Table(  # every run that changed the store; one that found nothing new has no row
    "runs", metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", String(64), nullable=False, unique=True),
    Column("kind", String(20), nullable=False),  # the run id's first word: fetch, backfill, repair, audit, ...
    Column("first_at_us", BigInteger, nullable=False),  # its first and last write
    Column("last_at_us", BigInteger, nullable=False),
    Column("stored", BigInteger, nullable=False),
    Column("revised", BigInteger, nullable=False),
    Column("quarantined", BigInteger, nullable=False),
    Column("status", String(20)),  # as the run said at its end; null: it was killed, or is at work
    Column("message", Text),
    Column("ended_at_us", BigInteger),
    Index(None, "first_at_us"),
)

requests = Table(  # the requests of one write; see storage.provenance for the bytes
    "requests", metadata,
    Column("id", Id, primary_key=True),
    Column("run_id", String(64), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("entries", LargeBinary, nullable=False),
    Index(None, "run_id", "at_us"),
)

repairs = Table(  # booked ranges that were filled in the end
    "repairs", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("cause", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_seen_us", BigInteger, nullable=False),
    Column("repaired_at_us", BigInteger, nullable=False),
    Index(None, "series_id", "repaired_at_us"),
)

retentions = Table(  # what retention took: nothing below `before_us` can be read as of an earlier time any more
    "retentions", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("before_us", BigInteger, nullable=False),
    Column("applied_at_us", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Index(None, "series_id"),
)

retired_gaps = Table(  # the ledger's entries below a retention's boundary: kept, but nothing is expected there any more
    "retired_gaps", metadata,
    Column("id", Id, primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False),
    Column("start_us", BigInteger, nullable=False),
    Column("end_us", BigInteger, nullable=False),
    Column("cause", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("first_seen_us", BigInteger, nullable=False),
    Column("last_seen_us", BigInteger, nullable=False),
    Column("proof", JSON, nullable=False),
    Column("retired_at_us", BigInteger, nullable=False),
    Index(None, "series_id", "start_us"),
)

derivations = Table(  # timeframes that somebody reads derived: retention must not take their only source
    "derivations", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("symbol", String(100), nullable=False),
    Column("timeframe", String(10), nullable=False),
    Column("derive_from", String(5), nullable=False),
    Column("anchor", String(20), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("connection_id", "symbol", "timeframe", "anchor"),
)

snapshots = Table(
    "snapshots", metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("note", Text, nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of `manifest`
    Column("manifest", Text, nullable=False),  # canonical JSON
    Column("created_at_us", BigInteger, nullable=False),
)

snapshot_files = Table(  # pinned: no sweep deletes them
    "snapshot_files", metadata,
    Column("snapshot_id", Id, ForeignKey("snapshots.id", ondelete="CASCADE"), primary_key=True),
    Column("path", Text, primary_key=True),
    Index(None, "path"),
    sqlite_with_rowid=False,
)

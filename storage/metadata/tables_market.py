"""Tables of what is learned about a market: its calendars, its broker's clock, its listings, how late its candles settle."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    UniqueConstraint,
)

from storage.metadata.tables import Id, metadata

calendars = Table(  # when a market is open; see core.calendar.MarketCalendar.from_spec
    "calendars", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("symbol", String(100), nullable=False),  # empty: all symbols of the connection without one of their own
    Column("spec", JSON, nullable=False),
    Column("origin", String(10), nullable=False),  # learned | set
    Column("evidence", JSON, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    UniqueConstraint("connection_id", "symbol"),
    CheckConstraint("origin IN ('learned', 'set')", name="origin"),
)

clock_history = Table(  # what was seen of a broker's wall clock, and which rules were in force from then on
    "clock_history", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(12), nullable=False),  # learned | set | confirmed | contradicted
    Column("rules", JSON, nullable=False),
    Column("offset_minutes", Integer),  # as measured then
    Column("evidence", JSON, nullable=False),
    Column("seen_at_us", BigInteger, nullable=False),
    Column("last_seen_us", BigInteger, nullable=False),  # the same again, without a row for each time
    CheckConstraint("kind IN ('learned', 'set', 'confirmed', 'contradicted')", name="kind"),
    Index(None, "connection_id", "seen_at_us"),
)

listings = Table(  # the life of a symbol at its provider; a used-again ticker is another row with its own series
    "listings", metadata,
    Column("id", Id, primary_key=True),
    Column("connection_id", Id, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("symbol", String(100), nullable=False),  # the name of our series
    Column("asked_as", String(100), nullable=False),  # the provider's present spelling
    Column("generation", Integer, nullable=False),
    Column("status", String(10), nullable=False),  # listed | missing | delisted | conflict
    Column("market_id", String(200)),
    Column("listed_us", BigInteger),
    Column("missing_since_us", BigInteger),
    Column("delisted_us", BigInteger),
    Column("claim", JSON),  # what the provider shows under this name now, while a person has not decided
    Column("first_seen_us", BigInteger, nullable=False),
    Column("last_seen_us", BigInteger, nullable=False),
    UniqueConstraint("connection_id", "symbol"),
    CheckConstraint("status IN ('listed', 'missing', 'delisted', 'conflict')", name="status"),
)

settle_sights = Table(  # candles seen before they counted as closed, to be compared with what they became
    "settle_sights", metadata,
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    Column("ts_us", BigInteger, primary_key=True),
    Column("age_us", BigInteger, nullable=False),  # how long after its close it was seen
    Column("digest", String(64)),  # null: it was not there yet
    sqlite_with_rowid=False,
)

settle_evidence = Table(
    "settle_evidence", metadata,
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    Column("judged", Integer, nullable=False),  # candles compared since the last surprise
    Column("late_us", BigInteger, nullable=False),  # greatest age at which one was not final yet
    Column("final_us", BigInteger, nullable=False),  # greatest age among those that were final when seen early
    Column("updated_at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

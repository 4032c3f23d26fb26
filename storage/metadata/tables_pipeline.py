"""Tables of the signal pipeline: definitions and their versions, watermarks, executions, signals, orders, filter strategies."""

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
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from storage.metadata.tables import Id, metadata


def _pipeline() -> Column[int]:
    return Column("pipeline_id", Id, ForeignKey("pipelines.id", ondelete="CASCADE"), nullable=False)


def _series() -> Column[int]:
    return Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), nullable=False)


pipelines = Table(
    "pipelines", metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("owner", String(200), nullable=False),
    Column("version", Integer, nullable=False),  # the one in force; pipeline_versions has it
    Column("is_enabled", Boolean, nullable=False),
    Column("shadow_of", String(63)),  # a challenger names its champion: it sees the same input and never trades
    Column("is_live", Boolean, nullable=False, server_default=text("false")),  # its owner allows real orders
    Column("running_since_us", BigInteger),  # set while a process runs it: what stays behind tells of a crash
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("retry_at_us", BigInteger),  # not before this instant (back-off)
    Column("last_error", Text),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "is_enabled"),
    sqlite_autoincrement=True,  # an id is never used again: signals and orders are bound to it
)

pipeline_versions = Table(  # a version never changes: what ran can be run again
    "pipeline_versions", metadata,
    Column("pipeline_id", Id, ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("definition", JSON, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("author", String(200), nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
)

pipeline_watermarks = Table(  # the last candle of a series that a pipeline has judged
    "pipeline_watermarks", metadata,
    Column("pipeline_id", Id, ForeignKey("pipelines.id", ondelete="CASCADE"), primary_key=True),
    Column("series_id", Id, ForeignKey("series.id", ondelete="CASCADE"), primary_key=True),
    Column("seen_us", BigInteger, nullable=False),  # its open time
    Column("updated_at_us", BigInteger, nullable=False),
    Index(None, "series_id"),
)

pipeline_executions = Table(  # one row for each stage of each judged candle
    "pipeline_executions", metadata,
    Column("id", Id, primary_key=True),
    _pipeline(),
    Column("version", Integer, nullable=False),
    _series(),
    Column("ts_us", BigInteger, nullable=False),  # open time of the candle
    Column("as_of_us", BigInteger, nullable=False),  # what was known then was what the stages saw
    Column("run_id", String(64), nullable=False),
    Column("stage", String(12), nullable=False),
    Column("status", String(10), nullable=False),  # ok | stopped (nothing to go on with) | error
    Column("input_digest", String(64), nullable=False),
    Column("output_digest", String(64)),
    Column("rows_in", Integer, nullable=False),
    Column("rows_out", Integer),
    Column("parts", JSON, nullable=False),  # each plug-in: name, plugin, ms
    Column("error", Text),
    Column("execution_time_ms", Float, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    CheckConstraint("stage IN ('cleaner', 'filter', 'indicator', 'signal', 'confidence', 'executor')", name="stage"),
    CheckConstraint("status IN ('ok', 'stopped', 'error')", name="status"),
    Index(None, "pipeline_id", "series_id", "ts_us"),
    Index(None, "pipeline_id", "created_at_us"),
    Index(None, "created_at_us"),
)

signals = Table(
    "signals", metadata,
    Column("id", Id, primary_key=True),
    _pipeline(),
    Column("version", Integer, nullable=False),
    _series(),
    Column("ts_us", BigInteger, nullable=False),
    Column("close_us", BigInteger, nullable=False),
    Column("side", String(4), nullable=False),
    Column("price", Float, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("reason", Text, nullable=False),
    Column("values", JSON, nullable=False),  # every indicator at this candle
    Column("input_digest", String(64), nullable=False),
    Column("is_shadow", Boolean, nullable=False),
    Column("run_id", String(64), nullable=False),
    Column("as_of_us", BigInteger, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("execution", String(10), nullable=False),  # none | pending | done | refused
    Column("execution_message", Text),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint("execution IN ('none', 'pending', 'done', 'refused')", name="execution"),
    UniqueConstraint("pipeline_id", "version", "series_id", "ts_us"),
    Index(None, "execution"),
    Index(None, "created_at_us"),
    Index(None, "series_id", "ts_us"),
)

orders = Table(  # an order is written down before it is sent; its key lets it exist once
    "orders", metadata,
    Column("id", Id, primary_key=True),
    Column("key", String(400), nullable=False, unique=True),  # pipeline, version, series, candle
    Column("client_id", String(64), nullable=False, unique=True),  # goes to the broker with the order: by it we find it again
    Column("signal_id", Id, ForeignKey("signals.id", ondelete="SET NULL")),
    Column("pipeline_id", Id, ForeignKey("pipelines.id", ondelete="SET NULL")),  # orders outlive what made them
    Column("pipeline", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("connection", String(63), nullable=False),
    Column("symbol", String(100), nullable=False),
    Column("timeframe", String(5), nullable=False),
    Column("ts_us", BigInteger, nullable=False),
    Column("mode", String(5), nullable=False),  # paper | live
    Column("side", String(4), nullable=False),
    Column("quantity", Float, nullable=False),
    Column("status", String(12), nullable=False),
    Column("broker_order_id", String(100)),
    Column("price", Float),  # wanted: the signal's
    Column("fill_price", Float),
    Column("filled_quantity", Float, nullable=False, server_default="0"),
    Column("filled_us", BigInteger),
    Column("commission", Float, nullable=False, server_default="0"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("error", Text),
    Column("detail", JSON, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("sent_at_us", BigInteger),
    Column("updated_at_us", BigInteger, nullable=False),
    CheckConstraint("mode IN ('paper', 'live')", name="mode"),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint(
        "status IN ('new', 'sending', 'acknowledged', 'filled', 'rejected', 'cancelled', 'refused')", name="status"),
    Index(None, "status"),
    Index(None, "pipeline", "created_at_us"),
    Index(None, "connection", "symbol", "created_at_us"),
    sqlite_autoincrement=True,
)

filter_strategies = Table(  # expressions that people wrote; a pipeline's version keeps a copy
    "filter_strategies", metadata,
    Column("id", Id, primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("name", String(63), nullable=False),
    Column("expression", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("updated_at_us", BigInteger, nullable=False),
    UniqueConstraint("owner", "name"),
)

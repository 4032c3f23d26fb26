"""Tables around orders and models: the kill switch, and what is known of each trained model file."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Boolean, Column, Integer, String, Table, Text, UniqueConstraint

from storage.metadata.tables import Id, metadata

trading_switch = Table(  # one row; live orders lock it, so that limits are counted one order at a time
    "trading_switch", metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("is_halted", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("changed_at_us", BigInteger, nullable=False),
)

models = Table(  # a model file is loaded only when its digest is the one written here by our own training
    "models", metadata,
    Column("id", Id, primary_key=True),
    Column("name", String(63), nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("path", Text, nullable=False),  # below the home
    Column("connection", String(63), nullable=False),
    Column("symbol", String(100), nullable=False),
    Column("timeframe", String(5), nullable=False),
    Column("start_us", BigInteger, nullable=False),  # candles it was trained on
    Column("end_us", BigInteger, nullable=False),
    Column("report", JSON, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    UniqueConstraint("name", "version"),
)

"""Trades of an exchange as a tick frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from core.candles import TS
from core.clock import LATEST_US
from core.errors import BadPayloadError
from core.ticks import TICK_SCHEMA, empty_ticks

TRADES: Final = 1000  # asked for in one page; exchanges that give fewer cut it themselves


def read_trades(trades: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return ccxt's unified trades as a frame of TICK_SCHEMA, oldest first.

    Raises:
        BadPayloadError: a trade without time, price or amount, or a time outside 1970 to 2100.
    """
    if not isinstance(trades, list):
        raise BadPayloadError("no list of trades came; nothing of the answer is used")
    if not trades:
        return empty_ticks()
    for trade in trades:
        stamp = trade.get("timestamp")
        if not isinstance(stamp, int) or not 0 <= stamp <= LATEST_US // 1000:
            raise BadPayloadError("a trade has no time from 1970 to 2100; nothing of the answer is used")
        if trade.get("price") is None or trade.get("amount") is None:
            raise BadPayloadError("a trade has no price or no amount; nothing of the answer is used")
    frame = pl.DataFrame({
        "ts": pl.Series([trade["timestamp"] * 1000 for trade in trades], dtype=pl.Int64).cast(TS),
        "kind": ["trade"] * len(trades),
        "bid": pl.Series([None] * len(trades), dtype=pl.Float64),
        "ask": pl.Series([None] * len(trades), dtype=pl.Float64),
        "price": pl.Series([float(trade["price"]) for trade in trades], dtype=pl.Float64),
        "size": pl.Series([float(trade["amount"]) for trade in trades], dtype=pl.Float64),
        "side": pl.Series([trade.get("side") for trade in trades], dtype=pl.String),
        "trade_id": pl.Series([None if trade.get("id") is None else str(trade["id"]) for trade in trades], dtype=pl.String),
    })
    return frame.cast(TICK_SCHEMA).sort("ts", maintain_order=True)

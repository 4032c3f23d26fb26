"""Tick frames: quotes (bid, ask) and trades (price, size, side, id) of one symbol."""

from __future__ import annotations

from typing import Final

import polars as pl

from core.candles import TS

TICK_SCHEMA: Final = pl.Schema({
    "ts": TS,  # the provider's event time
    "kind": pl.String(),  # quote | trade
    "bid": pl.Float64(),
    "ask": pl.Float64(),
    "price": pl.Float64(),
    "size": pl.Float64(),
    "side": pl.String(),  # buy | sell, by the taker; null when unknown
    "trade_id": pl.String(),
})


def empty_ticks() -> pl.DataFrame:
    """Return a tick frame without rows."""
    return pl.DataFrame(schema=TICK_SCHEMA)

"""Ticks: quotes (bid, ask) and trades (price, size, side, id) of one symbol, one by one and as frames.

A tick's key is its event time and, for a trade, its id; without an id all of its values. A second tick of the same key is
a repeat: venues send their last ticks again after every reconnect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from typing import Final, NamedTuple

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
STORED_TICK_SCHEMA: Final = pl.Schema({
    **TICK_SCHEMA,
    "received_at": TS,  # when it reached us
    "source": pl.String(),  # stream | backfill
    "run_id": pl.String(),
})
TICK_SOURCES: Final = ("stream", "backfill")
RECENT_KEYS: Final = 20_000


class Tick(NamedTuple):
    """One tick as it came. A quote has `bid` and `ask`, a trade `price`, `size`, and `side` and `trade_id` where told."""

    symbol: str
    ts_us: int
    received_us: int
    bid: float | None = None
    ask: float | None = None
    price: float | None = None
    size: float | None = None
    side: str | None = None
    trade_id: str | None = None

    @property
    def key(self) -> Hashable:
        """What makes a second tick of this symbol a repeat of this one."""
        if self.trade_id is not None:
            return self.ts_us, self.trade_id
        return self.ts_us, self.bid, self.ask, self.price, self.size, self.side


class Recent:
    """The keys last seen of one symbol, `limit` at most: tells a repeat from news in bounded memory."""

    def __init__(self, limit: int = RECENT_KEYS) -> None:
        self._limit = limit
        self._seen: set[Hashable] = set()
        self._order: deque[Hashable] = deque()

    def is_new(self, key: Hashable) -> bool:
        """Take note of a key; False when it was seen before."""
        if key in self._seen:
            return False
        self._seen.add(key)
        self._order.append(key)
        if len(self._order) > self._limit:
            self._seen.discard(self._order.popleft())
        return True

    def news(self, ticks: Iterable[Tick]) -> list[Tick]:
        """Return the ticks that are none of those seen before, in their order, and take note of them."""
        seen, order, out = self._seen, self._order, []
        for tick in ticks:
            key = tick.key if tick.trade_id is None else (tick.ts_us, tick.trade_id)
            if key not in seen:
                seen.add(key)
                order.append(key)
                out.append(tick)
        while len(order) > self._limit:
            seen.discard(order.popleft())
        return out


def empty_ticks() -> pl.DataFrame:
    """Return a tick frame without rows."""
    return pl.DataFrame(schema=TICK_SCHEMA)


def frame_of(ticks: Sequence[Tick], source: str, run_id: str) -> pl.DataFrame:
    """Return ticks in their order, as a frame of `symbol` and STORED_TICK_SCHEMA."""
    symbols, ts, received, bids, asks, prices, sizes, sides, ids = zip(*ticks, strict=True) if ticks else ((),) * 9
    return pl.DataFrame({
        "symbol": pl.Series(symbols, dtype=pl.String),
        "ts": pl.Series(ts, dtype=pl.Int64).cast(TS),
        "kind": pl.Series(["quote" if price is None else "trade" for price in prices], dtype=pl.String),
        "bid": pl.Series(bids, dtype=pl.Float64), "ask": pl.Series(asks, dtype=pl.Float64),
        "price": pl.Series(prices, dtype=pl.Float64), "size": pl.Series(sizes, dtype=pl.Float64),
        "side": pl.Series(sides, dtype=pl.String), "trade_id": pl.Series(ids, dtype=pl.String),
        "received_at": pl.Series(received, dtype=pl.Int64).cast(TS),
    }).with_columns(source=pl.lit(source), run_id=pl.lit(run_id))


def ticks_of(frame: pl.DataFrame, symbol: str, received_us: int) -> list[Tick]:
    """Return the rows of a frame of TICK_SCHEMA as ticks, in their order."""
    columns = frame.select(
        pl.col("ts").dt.epoch("us"), "bid", "ask", "price", "size", "side", "trade_id").rows()
    return [Tick(symbol, ts, received_us, *rest) for ts, *rest in columns]


def without_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of one symbol without repeats: of each key the first stays, the order is kept."""
    return frame.with_columns(key_columns()).unique(KEYS, keep="first", maintain_order=True).drop(KEYS)


KEYS: Final = ["_ts", "_id", "_values"]


def key_columns() -> list[pl.Expr]:
    """Return the expressions of the key of a row, named as in KEYS: equal keys are the same tick."""
    has_id = pl.col("trade_id").is_not_null()
    values = pl.struct("bid", "ask", "price", "size", "side").hash(seed=11)
    return [
        pl.col("ts").dt.epoch("us").alias("_ts"),
        pl.col("trade_id").fill_null("").alias("_id"),
        pl.when(has_id).then(pl.lit(0, pl.UInt64)).otherwise(values).alias("_values"),
    ]


def without_known(ticks: pl.DataFrame, known: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Return `ticks` that are in none of `known`, in their order; all frames have the columns of a tick."""
    if not known:
        return ticks
    held = pl.concat([frame.select(key_columns()) for frame in known])
    return ticks.with_columns(key_columns()).join(held, on=KEYS, how="anti", maintain_order="left").drop(KEYS)

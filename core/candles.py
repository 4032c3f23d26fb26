"""Candle frames: their schema, and the rules that decide which rows may be stored.

A candle frame is a Polars frame with the columns of `CANDLE_SCHEMA`, sorted by `ts` and unique on it. Prices are in the
quote currency, volume in the provider's own unit (its Capabilities say which), spread in price units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import polars as pl

from core.clock import LATEST_US, MINUTE_US, to_datetime
from core.interval import Interval
from core.timeframe import Grid

TS: Final = pl.Datetime("us", "UTC")
CANDLE_SCHEMA: Final = pl.Schema({
    "ts": TS,  # open time
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "spread": pl.Float64(),  # null where the provider gives none
})
VALUES: Final = ("open", "high", "low", "close", "volume", "spread")
STORED_SCHEMA: Final = pl.Schema({
    **CANDLE_SCHEMA,
    "known_at": TS,  # when this value was first stored
    "source": pl.String(),  # rest | stream | backfill | import
    "run_id": pl.String(),
})
SOURCES: Final = ("rest", "stream", "backfill", "import")
AHEAD_US: Final = 15 * MINUTE_US  # a provider's clock is read now and then: what opens this far past it never happened
PRICE_LIMIT: Final = 1e15  # beyond it a price is a broken payload, not a market


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` made of a raw frame. `rejected` has the columns of CANDLE_SCHEMA and `reason`."""

    candles: pl.DataFrame
    rejected: pl.DataFrame


def empty_candles() -> pl.DataFrame:
    """Return a candle frame without rows."""
    return pl.DataFrame(schema=CANDLE_SCHEMA)


def check(raw: pl.DataFrame, grid: Grid, asked: Interval, closed_before_us: int, present_us: int | None = None) -> Checked:
    """Split a provider's rows into storable candles and rejected ones with a reason each.

    Args:
        raw: frame with the columns of CANDLE_SCHEMA, in any order of rows, duplicates allowed.
        grid: the series' open times.
        asked: rows outside it are dropped without a word: providers may answer with more than was asked.
        closed_before_us: candles that close after it are still open and dropped without a word.
        present_us: the provider's present; rows that open a quarter of an hour after it or later are rejected, asked for or not.

    Returns:
        Storable candles, sorted and unique on `ts`; and the rejected rows with `reason`, one of `not finite`,
        `high below low`, `open or close outside high and low`, `price not positive`, `price out of range`,
        `negative volume`, `negative spread`, `off the grid`, `time missing`, `in the future`, `two values for one time`.
    """
    frame = raw.select(list(CANDLE_SCHEMA)).cast(CANDLE_SCHEMA).unique(maintain_order=True)
    missing = frame.filter(pl.col("ts").is_null())
    ahead = frame.filter(pl.col("ts") >= to_datetime(min((present_us or LATEST_US) + AHEAD_US, LATEST_US)))
    frame = frame.filter(pl.col("ts").is_between(to_datetime(asked.start), to_datetime(asked.end), closed="left"))
    frame = frame.sort("ts", maintain_order=True)
    frame = _only_closed(frame, grid, closed_before_us)
    judged = frame.with_columns(reason=_reason(frame, grid))
    bad = judged.filter(pl.col("reason").is_not_null())
    rejected = pl.concat([missing.with_columns(reason=pl.lit("time missing")), ahead.with_columns(reason=pl.lit("in the future")), bad])
    good = judged.filter(pl.col("reason").is_null()).drop("reason")
    return Checked(good.sort("ts"), rejected)


def _only_closed(frame: pl.DataFrame, grid: Grid, closed_before_us: int) -> pl.DataFrame:
    open_from = grid.floor(closed_before_us)  # the candle that begins here closes later
    return frame.filter(pl.col("ts") < to_datetime(open_from))


def _reason(frame: pl.DataFrame, grid: Grid) -> pl.Series:
    prices = [pl.col(name) for name in ("open", "high", "low", "close")]
    finite = pl.all_horizontal(column.is_finite().fill_null(value=False) for column in (*prices, pl.col("volume")))
    finite &= pl.col("spread").is_finite().fill_null(value=True)
    top, bottom = pl.max_horizontal("open", "close"), pl.min_horizontal("open", "close")
    rules = (
        (~finite, "not finite"),
        (pl.any_horizontal(column <= 0 for column in prices), "price not positive"),
        (pl.any_horizontal(column > PRICE_LIMIT for column in prices), "price out of range"),
        (pl.col("high") < pl.col("low"), "high below low"),
        ((pl.col("high") < top) | (pl.col("low") > bottom), "open or close outside high and low"),
        (pl.col("volume") < 0, "negative volume"),
        (pl.col("spread") < 0, "negative spread"),
        (~_on_grid(frame["ts"], grid), "off the grid"),
        (pl.col("ts").is_duplicated(), "two values for one time"),
    )
    expression = pl.lit(None, dtype=pl.String)
    for broken, reason in reversed(rules):
        expression = pl.when(broken).then(pl.lit(reason)).otherwise(expression)
    return frame.select(reason=expression)["reason"]


def _on_grid(ts: pl.Series, grid: Grid) -> pl.Series:
    us = ts.dt.epoch("us")
    if grid.is_even:
        first = grid.floor(0)
        return (us - first) % grid.timeframe.length_us == 0
    return pl.Series([grid.is_on(value) for value in us.to_list()], dtype=pl.Boolean)

"""From bars on the server's wall clock to candles in UTC, and from hours to the longer candles that we cut ourselves.

The bridge cuts candles above an hour from wherever its answer begins, so we ask for hours and cut days, weeks and 4h
candles at the server's own midnight. A longer candle is only as good as its hours: one bad hour makes it rejected.
"""

from __future__ import annotations

import itertools

import polars as pl

from core.candles import CANDLE_SCHEMA, TS, VALUES, check
from core.clock import DAY_US, LATEST_US, isoformat
from core.errors import BadPayloadError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import Grid
from providers.mtapi.clock import changes


def local_range(clock: ServerClock, interval: Interval) -> tuple[int, int]:
    """Return the wall-clock readings between which every instant of `interval` lies, both ends included."""
    readings = [clock.from_utc_us(interval.start), clock.from_utc_us(interval.end)]
    for at, before, after in changes(clock, interval.start, interval.end + 1):
        readings += [at + before, at + after]
    return min(readings), max(readings)


def to_utc(bars: pl.DataFrame, clock: ServerClock) -> pl.DataFrame:
    """Return bars (LOCAL_SCHEMA) as candles (CANDLE_SCHEMA), ascending where the answer was ordered either way.

    In the hour that the clock shows twice, the answer's own order tells the passes apart; readings that come once
    belong to the second pass, as everywhere in Candlelake.

    Raises:
        BadPayloadError: a bar inside the hour that the clock skips: the clock's rule is not the server's.
    """
    if bars.is_empty():
        return pl.DataFrame(schema=CANDLE_SCHEMA)
    if bars["local_us"][0] > bars["local_us"][-1]:
        bars = bars.reverse()
    bars = bars.unique(maintain_order=True)
    local = bars["local_us"].to_list()
    low, high = max(min(local) - 2 * DAY_US, 0), min(max(local) + 2 * DAY_US, LATEST_US)
    steps = changes(clock, low, high)
    offset = pl.lit(clock.offset_us(low), dtype=pl.Int64)
    for at, _, after in steps:
        offset = pl.when(pl.col("local_us") >= at + after).then(pl.lit(after, dtype=pl.Int64)).otherwise(offset)
    frame = bars.with_columns(utc_us=pl.col("local_us") - offset)
    for at, before, after in steps:
        if after > before and any(at + before <= value < at + after for value in local):
            raise BadPayloadError(
                f"bars inside the hour that the server's clock skips at {isoformat(at)}: its rule is wrong; "
                "set the connection's config server_clock")
        if after < before:
            frame = _first_pass(frame, local, at, before, after)
    ts = pl.col("utc_us").cast(TS).alias("ts")
    return frame.select(ts, *VALUES).cast(CANDLE_SCHEMA)


def _first_pass(frame: pl.DataFrame, local: list[int], at: int, before: int, after: int) -> pl.DataFrame:
    """Move the readings of the doubled hour's first pass to where they belong."""
    doubled = [row for row, value in enumerate(local) if at + after <= value < at + before]
    turn = next((now for was, now in itertools.pairwise(doubled) if local[now] <= local[was]), None)
    if turn is None:
        return frame
    first = set(doubled[: doubled.index(turn)])
    utc = [value - (before - after) if row in first else value for row, value in enumerate(frame["utc_us"].to_list())]
    return frame.with_columns(utc_us=pl.Series(utc, dtype=pl.Int64))


def aggregate(base: pl.DataFrame, base_grid: Grid, grid: Grid, asked: Interval) -> pl.DataFrame:
    """Cut longer candles from shorter ones: those that open in `asked`, which holds them whole.

    Open of the first, close of the last, highest, lowest, sum of volumes, widest spread. A candle that holds a row
    which `core.candles.check` would reject gets no values, so that it is rejected in its turn.
    """
    checked = check(base, base_grid, asked, LATEST_US)
    rows = checked.candles.with_columns(is_bad=False)
    if not checked.rejected.is_empty():
        bad = checked.rejected.filter(pl.col("ts").is_not_null()).drop("reason").with_columns(is_bad=True)
        rows = pl.concat([rows, bad]).sort("ts", maintain_order=True)
    slots = pl.DataFrame({"slot": pl.Series(grid.slots(asked), dtype=pl.Int64).cast(TS)})
    placed = rows.join_asof(slots, left_on="ts", right_on="slot", strategy="backward").drop_nulls("slot")
    if placed.is_empty():
        return pl.DataFrame(schema=CANDLE_SCHEMA)
    is_bad = pl.col("is_bad").any()
    values = {
        "open": pl.col("open").first(), "high": pl.col("high").max(), "low": pl.col("low").min(),
        "close": pl.col("close").last(), "volume": pl.col("volume").sum(), "spread": pl.col("spread").max(),
    }
    cut = placed.group_by("slot", maintain_order=True).agg(
        *(pl.when(is_bad).then(None).otherwise(value).alias(name) for name, value in values.items()))
    return cut.rename({"slot": "ts"}).select(list(CANDLE_SCHEMA)).cast(CANDLE_SCHEMA)

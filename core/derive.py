"""Candles of a longer timeframe made from shorter ones, at any anchor: UTC, the server's midnight, New York 17:00.

What is derived is never stored. A candle says of how many parts it was made and how many there should be: a part that the
provider never traded, or that lies in closed time, is not missing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.candles import TS
from core.clock import DAY_US, HOUR_US, MINUTE_US
from core.errors import InputError
from core.interval import Interval, merge
from core.server_clock import ServerClock
from core.timeframe import NAMES, Grid, Timeframe

Times = NDArray[np.int64]
ANCHORS: Final = ("utc", "server", "new_york")
NEW_YORK_17: Final = ServerClock.fixed(120, "us")  # a wall clock whose midnight is 17:00 in New York
QUARTER_US: Final = 15 * MINUTE_US
_MONDAY_US: Final = 4 * DAY_US
_LENGTH = re.compile(r"([1-9]\d{0,3})([mhdw])")
_UNITS = {"m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
DERIVED_SCHEMA: Final = pl.Schema({
    "ts": TS, "open": pl.Float64(), "high": pl.Float64(), "low": pl.Float64(), "close": pl.Float64(), "volume": pl.Float64(),
    "spread": pl.Float64(),  # of the last part
    "known_at": TS,  # when the last of its parts became known
    "source": pl.String(),  # derived
    "parts": pl.Int64(),  # of how many stored candles it is made
    "parts_expected": pl.Int64(),  # how many there should be: without closed time and proved silence
    "is_complete": pl.Boolean(),
    "derived_from": pl.String(),
    "anchor": pl.String(),
})


@dataclass(frozen=True, slots=True)
class Derivation:
    """How to derive: from which timeframe, to which, and what cuts the longer candles."""

    base: Timeframe
    target: Timeframe
    anchor: str = "utc"
    clock: ServerClock | None = None  # of the anchor; None is UTC

    def open_times(self, times: Times) -> Times:
        """Return the open time of the derived candle that holds each of `times` (ascending microseconds)."""
        return _floor(times, self.target, self.clock)

    def close_of(self, opens: Times) -> Times:
        """Return when the derived candles that open at `opens` close."""
        grid = Grid(self.target, self.clock)
        if self.target.is_month or (self.clock is not None and self.target.length_us > HOUR_US):
            return np.asarray([grid.next(int(us)) for us in opens], dtype=np.int64)
        return opens + self.target.length_us

    def whole(self, interval: Interval) -> Interval:
        """Return the range of parts that the derived candles opening in `interval` are made of."""
        ends = np.asarray([interval.start, max(interval.start, interval.end - 1)], dtype=np.int64)
        first, last = self.open_times(ends)
        start = int(first) if int(first) >= interval.start else int(self.close_of(np.asarray([first]))[0])
        return Interval(min(start, interval.end), max(start, int(self.close_of(np.asarray([last]))[0])))


def derived_timeframe(text: str) -> Timeframe:
    """Return the timeframe called `text`: any of the stored ones, or a number of minutes that divides a day, e.g. 45m.

    Raises:
        InputError: not such a length.
    """
    if text in {*NAMES, "1M"}:
        return Timeframe.parse(text)
    found = _LENGTH.fullmatch(text)
    length = 0 if found is None else int(found[1]) * _UNITS[found[2]]
    if not length or (DAY_US % length if length < DAY_US else length % DAY_US) or length > 366 * DAY_US:
        raise InputError("timeframe", text, "a length that divides a day (e.g. 7 is no such number of minutes, 45 is), whole days, weeks, 1mo",
                         "e.g. 10m, 45m, 4h, 1d, 1w, 1mo")
    return Timeframe(length, text)


def derivation(base: str, target: str, anchor: str = "utc", server: ServerClock | None = None) -> Derivation:
    """Return how to derive `target` from `base`.

    Raises:
        InputError: an anchor that is none, `server` without a broker's clock, or a base that does not divide the target.
    """
    if anchor not in ANCHORS:
        raise InputError("anchor", anchor, ANCHORS, "server is the broker's midnight, new_york is 17:00 there")
    if anchor == "server" and server is None:
        raise InputError("anchor", anchor, "utc, new_york", "this connection has no broker's clock (config server_clock)")
    short, long = Timeframe.parse(base), derived_timeframe(target)
    if short.is_month or short.length_us > DAY_US or short.length_us >= long.length_us or long.length_us % short.length_us:
        raise InputError("derive_from", base, f"a timeframe that divides {target}", "1m divides all of them")
    return Derivation(short, long, anchor, {"utc": None, "server": server, "new_york": NEW_YORK_17}[anchor])


def derive(parts: pl.DataFrame, how: Derivation, explained: Sequence[Interval] = ()) -> pl.DataFrame:
    """Aggregate candles; there is a candle wherever there is a part.

    Args:
        parts: ts, open, high, low, close, volume, spread, known_at; ascending and unique on ts.
        how: from what to what.
        explained: ranges in which no part is missing: closed time, proved silence.

    Returns:
        DERIVED_SCHEMA, ascending.
    """
    if parts.is_empty():
        return pl.DataFrame(schema=DERIVED_SCHEMA)
    times = parts["ts"].dt.epoch("us").to_numpy()
    opens = how.open_times(times)
    grouped = parts.with_columns(bucket=pl.Series(opens)).group_by("bucket", maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum(),
        pl.col("spread").last(), pl.col("known_at").max(), parts=pl.len().cast(pl.Int64))
    starts = grouped["bucket"].to_numpy()
    closes = how.close_of(starts)
    length = how.base.length_us
    excused = (_covered_below(closes, explained) - _covered_below(starts, explained)) // length
    expected = (closes - starts) // length - excused
    return grouped.with_columns(
        ts=pl.from_epoch("bucket", time_unit="us").dt.replace_time_zone("UTC"), source=pl.lit("derived"),
        parts_expected=pl.max_horizontal(pl.Series(expected), pl.col("parts")),
        derived_from=pl.lit(how.base.name), anchor=pl.lit(how.anchor),
    ).with_columns(is_complete=pl.col("parts") >= pl.col("parts_expected")).select(list(DERIVED_SCHEMA)).cast(DERIVED_SCHEMA)


def _floor(times: Times, target: Timeframe, clock: ServerClock | None) -> Times:
    if target.is_month:
        grid = Grid(target, clock)
        hours, where = np.unique(times // HOUR_US, return_inverse=True)
        return np.asarray([grid.floor(int(hour) * HOUR_US) for hour in hours], dtype=np.int64)[where]
    length = target.length_us
    origin = _MONDAY_US if length % (7 * DAY_US) == 0 else 0
    if clock is None:
        return times - (times - origin) % length
    quarters, where = np.unique(times // QUARTER_US, return_inverse=True)
    offsets = np.asarray([clock.offset_us(int(quarter) * QUARTER_US) for quarter in quarters], dtype=np.int64)[where]
    local = times + offsets
    floors = local - (local - origin) % length
    if length <= HOUR_US:  # the clock moves by whole hours: the cut is the same before and after
        return floors - offsets
    cuts, back = np.unique(floors, return_inverse=True)
    return np.asarray([clock.to_utc_us(int(cut)) for cut in cuts], dtype=np.int64)[back]


def _covered_below(times: Times, ranges: Sequence[Interval]) -> Times:
    """Return, for each instant, how many microseconds of the ranges lie below it."""
    whole = merge(ranges)
    if not whole:
        return np.zeros(len(times), dtype=np.int64)
    starts = np.asarray([item.start for item in whole], dtype=np.int64)
    ends = np.asarray([item.end for item in whole], dtype=np.int64)
    sums = np.concatenate([[0], np.cumsum(ends - starts)])
    place = np.searchsorted(starts, times, side="right")
    inside = np.where(place > 0, np.minimum(times, ends[place - 1]) - starts[place - 1], 0)
    return np.asarray(np.where(place > 0, sums[np.maximum(place - 1, 0)] + inside, 0), dtype=np.int64)

"""Bars of a series as TradingView dates them.

Up to half a day a bar's time is its open. A day, week or month is dated 00:00 UTC of its (first) trading day, not when its session
starts: a broker's Monday opens on Sunday evening.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from console import readings
from console.trading_hours import TradingHours
from core.clock import DAY_US, HOUR_US, SECOND_US, isoformat
from feed.context import Feed
from storage.series import SeriesRow

SECONDS_MAX: Final = 4_102_444_800  # 2100
_DAY: Final = DAY_US // SECOND_US
_MOVED: Final = 8 * _DAY  # seconds that a date lies from its bar's open, at most: half a day, and up to the week's first trading day
_THURSDAY: Final = 3  # the weekday of 1970-01-01


class Bars:
    """The bars of one series; `t` is their date in seconds since 1970, beside the lake's columns."""

    def __init__(self, feed: Feed, row: SeriesRow, hours: TradingHours) -> None:
        self._feed, self._row = feed, row
        length_us = row.series.timeframe.length_us
        self._is_dated, self._is_longer = length_us >= 24 * HOUR_US, length_us > 24 * HOUR_US
        self._ahead = np.array([next(ahead for ahead in range(7) if (day + ahead) % 7 in hours.days) for day in range(7)])  # by weekday

    def between(self, start: int, end: int) -> pl.DataFrame:
        """Return the bars dated in [start, end) seconds, oldest first, the newest 10,000 of them."""
        slack = _MOVED if self._is_dated else 0
        series, since, until = self._row.series, max(0, start - slack), min(SECONDS_MAX, end + slack)
        where = (series.connection, series.symbol, series.timeframe.name)
        if start >= end or since >= until:
            return self._dated(self._feed.lake.latest(*where, 1).clear())
        found = self._feed.lake.candles(*where, start=isoformat(since * SECOND_US), end=isoformat(until * SECOND_US))
        return self._dated(found).filter(pl.col("t").is_between(start, end, closed="left")).tail(readings.CANDLES_MAX)

    def before(self, end: int, count: int) -> pl.DataFrame:
        """Return the `count` newest bars dated before `end`; looks further back only while gaps make it necessary."""
        row, slack = self._row, _MOVED if self._is_dated else 0
        first = end if row.first_us is None else row.first_us // SECOND_US - slack
        span = max(1, count * row.series.timeframe.length_us // SECOND_US)
        until = end if row.last_us is None else min(end, row.last_us // SECOND_US + slack + 1)
        while True:
            since = until - span
            found = self.between(max(since, 0), until)
            if found.height >= count or since <= first:
                return found.tail(count)
            span *= 4

    def _dated(self, frame: pl.DataFrame) -> pl.DataFrame:
        opened = frame["ts"].dt.epoch("s").to_numpy()
        if not self._is_dated:
            return frame.with_columns(t=pl.Series(opened, dtype=pl.Int64))
        days = (opened + _DAY // 2) // _DAY
        if self._is_longer:
            days = days + self._ahead[(days + _THURSDAY) % 7]
        return frame.with_columns(t=pl.Series(days * _DAY, dtype=pl.Int64))

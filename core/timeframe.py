"""Timeframes and the grid of open times that each one lays over UTC.

A timeframe is a length with a name: `1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1mo`. Weeks open on Monday, months on
the 1st. Grids longer than an hour may be cut at a broker's midnight instead of UTC's: they then carry its `ServerClock`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, to_datetime, to_us
from core.errors import InputError
from core.interval import Interval
from core.server_clock import ServerClock

_UNIT_US = {"s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US}
_MONDAY_US = 4 * DAY_US  # 1970-01-05 was the first Monday of the epoch
NAMES = ("1s", "1m", "3m", "5m", "10m", "15m", "30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1mo")


@dataclass(frozen=True, slots=True, order=True)
class Timeframe:
    """A candle's length. `length_us` is nominal for months (30 days); `name` is canonical."""

    length_us: int
    name: str

    @staticmethod
    def parse(text: str) -> Timeframe:
        """Return the timeframe called `text`; `1M` is accepted for `1mo`.

        Raises:
            InputError: when no timeframe has that name.
        """
        name = "1mo" if text == "1M" else text
        if name not in NAMES:
            raise InputError("timeframe", text, NAMES, "use one of the names allowed")
        return _timeframe(name)

    @property
    def is_month(self) -> bool:
        """Whether the candles follow calendar months."""
        return self.name == "1mo"

    @property
    def minutes(self) -> int:
        """Length in whole minutes (0 below a minute)."""
        return self.length_us // MINUTE_US

    def __str__(self) -> str:
        return self.name


@lru_cache
def _timeframe(name: str) -> Timeframe:
    if name == "1mo":
        return Timeframe(30 * DAY_US, name)
    return Timeframe(int(name[:-1]) * _UNIT_US[name[-1]], name)


@dataclass(frozen=True, slots=True)
class Grid:
    """The open times of one series. `server` is the broker's clock that cuts days and hours; None is UTC.

    Up to 1h they lie evenly, whatever the summer time: only a clock that is off UTC by a part of an hour moves them.
    """

    timeframe: Timeframe
    server: ServerClock | None = None

    def floor(self, us: int) -> int:
        """Return the last open time at or before `us`."""
        if self.timeframe.is_month:
            if self.server is None:
                return _month_floor(us)
            return self.server.to_utc_us(_month_floor(self.server.from_utc_us(us)))
        length = self.timeframe.length_us
        anchor = _MONDAY_US if self.timeframe.name.endswith("w") else 0
        if self.server is None:
            return us - (us - anchor) % length
        if length <= HOUR_US:  # of a broker that moved by a part of an hour, the newest clock counts
            return us - (us + self.server.rules[-1].offset_minutes * MINUTE_US) % length
        local = self.server.from_utc_us(us)
        return self.server.to_utc_us(local - (local - anchor) % length)

    def next(self, us: int) -> int:
        """Return the first open time after `us`; for an open time, its candle's close."""
        start = self.floor(us)
        if self.timeframe.is_month:
            return self.floor(start + 33 * DAY_US)  # past the longest month by more than a clock change
        step = start + self.timeframe.length_us
        if self.server is None or self.timeframe.length_us <= HOUR_US:
            return step
        # Across a change of the broker's clock a candle is an hour longer or shorter than its name.
        local = self.server.from_utc_us(start)
        return self.server.to_utc_us(local + self.timeframe.length_us)

    def ceil(self, us: int) -> int:
        """Return the first open time at or after `us`."""
        start = self.floor(us)
        return us if start == us else self.next(start)

    def is_on(self, us: int) -> bool:
        """Whether `us` is an open time."""
        return self.floor(us) == us

    def slots(self, interval: Interval) -> list[int]:
        """Return every open time in `interval`, ascending."""
        first = self.ceil(interval.start)
        if self.is_even:
            return list(range(first, interval.end, self.timeframe.length_us))
        out = []
        while first < interval.end:
            out.append(first)
            first = self.next(first)
        return out

    def count(self, interval: Interval) -> int:
        """Return how many open times lie in `interval`."""
        if not self.is_even:
            return len(self.slots(interval))
        first = self.ceil(interval.start)
        return max(0, -(-(interval.end - first) // self.timeframe.length_us))

    def align(self, interval: Interval) -> Interval:
        """Return the interval grown to whole candles: the slots that begin in it, up to the last one's close."""
        return Interval(self.ceil(interval.start), max(self.ceil(interval.start), self.ceil(interval.end)))

    @property
    def is_even(self) -> bool:
        """Whether all open times lie exactly one length apart."""
        return not self.timeframe.is_month and (self.server is None or self.timeframe.length_us <= HOUR_US)


def _month_floor(us: int) -> int:
    moment = to_datetime(us)
    return to_us(datetime(moment.year, moment.month, 1, tzinfo=UTC))

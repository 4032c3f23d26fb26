"""When a market is open. Completeness and freshness count open time only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from core.clock import DAY_US, to_datetime, to_us
from core.interval import Interval, subtract

NEW_YORK = ZoneInfo("America/New_York")
FX_CLOSE_HOUR = 17  # the FX week ends Friday 17:00 and begins Sunday 17:00, New York time
_FRIDAY, _SUNDAY = 4, 6


class Calendar(Protocol):
    """The closed time of a market."""

    def closed(self, interval: Interval) -> list[Interval]:
        """Return the closed parts of `interval`, sorted and disjoint."""


@dataclass(frozen=True, slots=True)
class AlwaysOpen:
    """Crypto: never closed."""

    def closed(self, interval: Interval) -> list[Interval]:  # noqa: ARG002  the protocol gives it
        """Return nothing: the market is never closed."""
        return []


@dataclass(frozen=True, slots=True)
class FxWeek:
    """FX: closed from Friday 17:00 to Sunday 17:00 New York time, and on `holidays` (whole intervals)."""

    holidays: tuple[Interval, ...] = ()

    def closed(self, interval: Interval) -> list[Interval]:
        """Return weekends and holidays inside `interval`."""
        out = [h for h in self.holidays if h.intersect(interval)]
        day = to_datetime(max(0, interval.start - 3 * DAY_US)).date()
        last = to_datetime(interval.end).date()
        while day <= last:
            if day.weekday() == _FRIDAY:
                out.append(Interval(_new_york(day.year, day.month, day.day), _weekend_end(day.year, day.month, day.day)))
            day += timedelta(days=1)
        clipped = [part for item in out if (part := item.intersect(interval))]
        return subtract(clipped, [])


def open_parts(calendar: Calendar, interval: Interval) -> list[Interval]:
    """Return the open parts of `interval`, sorted and disjoint."""
    return subtract([interval], calendar.closed(interval))


def _new_york(year: int, month: int, day: int) -> int:
    return to_us(datetime(year, month, day, FX_CLOSE_HOUR, tzinfo=NEW_YORK).astimezone(UTC))


def _weekend_end(year: int, month: int, day: int) -> int:
    sunday = datetime(year, month, day, tzinfo=UTC) + timedelta(days=2)
    return _new_york(sunday.year, sunday.month, sunday.day)

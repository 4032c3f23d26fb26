"""The one clock. Instants inside Candlelake are whole microseconds since 1970 UTC (`int`, suffix `_us`)."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

from core.errors import InputError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US = 0
LATEST_US = 4_102_444_800 * SECOND_US  # 2100-01-01: nothing that we store lies beyond


class Clock(Protocol):
    """Where the present comes from; injected wherever the present matters."""

    def now_us(self) -> int:
        """Return the present, in microseconds since 1970 UTC."""


class SystemClock:
    """The machine's clock, plus a fixed shift for replays."""

    def __init__(self, shift_us: int = 0) -> None:
        self.shift_us = shift_us

    def now_us(self) -> int:
        """Return the present, in microseconds since 1970 UTC."""
        return time.time_ns() // 1_000 + self.shift_us


class ManualClock:
    """A clock that moves when it is told to: the shipped fake for tests and replays."""

    def __init__(self, now: datetime | int) -> None:
        self._now_us = now if isinstance(now, int) else to_us(now)

    def now_us(self) -> int:
        """Return the present, in microseconds since 1970 UTC."""
        return self._now_us

    def advance(self, step: timedelta) -> None:
        """Move the present by `step`."""
        self._now_us += round(step.total_seconds() * SECOND_US)

    def set(self, now: datetime | int) -> None:
        """Move the present to `now`."""
        self._now_us = now if isinstance(now, int) else to_us(now)


def has_come(at_us: int, now_us: int, longest_us: int) -> bool:
    """Whether an instant that is waited for has come; one further ahead than the longest wait there is was noted by a clock that was wrong, and counts as come."""
    return at_us <= now_us or at_us > now_us + longest_us


def to_us(moment: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 UTC; a naive one is an InputError."""
    if moment.tzinfo is None:
        raise InputError("time", moment.isoformat(), "a time with its offset", "add Z for UTC")
    return (moment - EPOCH) // timedelta(microseconds=1)


def to_datetime(us: int) -> datetime:
    """Return microseconds since 1970 UTC as an aware UTC datetime."""
    return EPOCH + timedelta(microseconds=us)


def isoformat(us: int) -> str:
    """Return microseconds since 1970 UTC as ISO 8601 with Z; fractions only when there are some."""
    return to_datetime(us).isoformat().replace("+00:00", "Z")


_DATE_ONLY = re.compile(r"\d{4}-\d{2}-\d{2}")


def parse_instant(text: str, what: str = "time") -> int:
    """Parse ISO 8601 from a person, UTC when it has no offset, to microseconds; 1970 to 2100 only.

    Raises:
        InputError: when it is not ISO 8601 or lies outside 1970 to 2100.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise InputError(what, text, "ISO 8601, e.g. 2026-01-31 or 2026-01-31T09:30Z", "UTC when no offset") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        us = to_us(moment)
    except OverflowError:
        us = -1
    if not EARLIEST_US <= us <= LATEST_US:
        raise InputError(what, text, "1970-01-01 to 2100-01-01", "check the year")
    return us

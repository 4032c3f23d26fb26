"""A market's week as TradingView writes it: `session` and `timezone` of a symbol.

Bars outside a session are not drawn there, so a week that cannot be written down is told as always open: nothing is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from core.calendar import NEW_YORK, WEEK_MINUTES, WEEKEND, Calendar, FxWeek, MarketCalendar, WeeklyClosure

DAY: Final = 1440
ALWAYS: Final = "24x7"
UTC_ZONE: Final = "Etc/UTC"
ALL_DAYS: Final = frozenset(range(7))
# The zones that the charting library knows; a calendar in another one is told in one of these with the same clock.
ZONES: Final = (
    UTC_ZONE, "America/New_York", "Europe/London", "Europe/Athens", "Europe/Berlin", "Europe/Moscow", "Europe/Istanbul", "America/Chicago",
    "America/Los_Angeles", "America/Toronto", "America/Sao_Paulo", "America/Bogota", "America/Phoenix", "Asia/Tokyo", "Asia/Hong_Kong",
    "Asia/Singapore", "Asia/Shanghai", "Asia/Seoul", "Asia/Taipei", "Asia/Kolkata", "Asia/Dubai", "Asia/Jakarta", "Asia/Bangkok", "Asia/Karachi",
    "Asia/Kathmandu", "Asia/Almaty", "Asia/Tehran", "Asia/Jerusalem", "Asia/Riyadh", "Australia/Sydney", "Australia/Brisbane", "Australia/Perth",
    "Australia/Adelaide", "Pacific/Auckland", "Pacific/Honolulu", "Africa/Johannesburg", "Africa/Cairo", "Africa/Lagos", "Atlantic/Reykjavik",
)


@dataclass(frozen=True, slots=True)
class TradingHours:
    """`session` in TradingView's words, the zone of its times, and the trading days (Monday is 0)."""

    session: str
    timezone: str
    days: frozenset[int]


OPEN_ALWAYS: Final = TradingHours(ALWAYS, UTC_ZONE, ALL_DAYS)


def hours_of(calendar: Calendar, now: datetime) -> TradingHours:
    """Return the trading hours of every week; holidays and what was closed once are not part of them."""
    if isinstance(calendar, FxWeek):
        return _hours((WEEKEND,), str(NEW_YORK))
    if isinstance(calendar, MarketCalendar) and (zone := _known_zone(calendar.zone, now.year)):
        return _hours(calendar.weekly, zone)
    return OPEN_ALWAYS


@lru_cache(maxsize=256)
def _hours(closures: tuple[WeeklyClosure, ...], zone: str) -> TradingHours:
    closed = _minutes(closures)
    if not any(closed) or all(closed):
        return OPEN_ALWAYS
    sessions = _by_day(closed)
    return TradingHours("|".join(_grouped(sessions)), zone, frozenset(sessions))


@lru_cache(maxsize=64)
def _known_zone(name: str, year: int) -> str | None:
    """Return the zone of `ZONES` whose clock shows the same the year round, None when there is none."""
    if name in ZONES:
        return name
    wanted = _offsets(name, year)
    return next((zone for zone in ZONES if _offsets(zone, year) == wanted), None)


def _offsets(name: str, year: int) -> list[timedelta | None]:
    zone = ZoneInfo(name)
    return [datetime(year, month, day, tzinfo=zone).utcoffset() for month in range(1, 13) for day in (1, 15, 28)]


def _minutes(closures: Sequence[WeeklyClosure]) -> list[bool]:
    """Return for each minute of the week, from Monday 00:00, whether it is closed."""
    closed = [False] * WEEK_MINUTES
    for rule in closures:
        for minute in range(rule.start, rule.end):
            closed[minute % WEEK_MINUTES] = True
    return closed


def _by_day(closed: Sequence[bool]) -> dict[int, list[tuple[int, int]]]:
    """Return the open times of each trading day, in minutes from its midnight; they may begin on the evening before."""
    cut = _cut(closed)
    first = cut - DAY if cut >= DAY // 2 else cut
    out = {}
    for day in range(7):
        times = list(_open_times(closed, day * DAY + first, day * DAY + first + DAY))
        if times:
            out[day] = [(start - day * DAY, end - day * DAY) for start, end in times]
    return out


def _cut(closed: Sequence[bool]) -> int:
    """Return the minute of the day at which trading days end: where the fewest are cut in two, the closest to the end of the week."""
    week_end = _longest_pause(closed) % DAY

    def price(minute: int) -> tuple[int, int]:
        split = sum(not closed[day * DAY + minute - 1] and not closed[day * DAY + minute] for day in range(7))
        away = abs(minute - week_end)
        return split, min(away, DAY - away)

    return min(range(DAY), key=price)


def _longest_pause(closed: Sequence[bool]) -> int:
    """Return the minute of the week at which its longest pause begins."""
    best, begins, length = 0, 0, 0
    for minute in range(2 * WEEK_MINUTES):  # twice around: a pause may go on past Sunday
        length = length + 1 if closed[minute % WEEK_MINUTES] else 0
        if length > best:
            best, begins = length, minute + 1 - length
    return begins


def _open_times(closed: Sequence[bool], start: int, end: int) -> Iterator[tuple[int, int]]:
    began = None
    for minute in range(start, end + 1):
        is_open = minute < end and not closed[minute % WEEK_MINUTES]
        if is_open and began is None:
            began = minute
        elif not is_open and began is not None:
            yield began, minute
            began = None


def _grouped(sessions: dict[int, list[tuple[int, int]]]) -> Iterator[str]:
    """Yield each kind of day once, with the numbers of its days: 1 is Sunday."""
    kinds: dict[str, list[int]] = {}
    for day, times in sessions.items():
        kinds.setdefault(",".join(_text(start, end) for start, end in times), []).append((day + 1) % 7 + 1)
    for text, days in kinds.items():
        yield f"{text}:{''.join(str(day) for day in sorted(days))}"


def _text(start: int, end: int) -> str:
    """Write one session of a day; the library takes one that starts later than it ends for one of the evening before, `F` says it outright."""
    if end < 0:
        return f"{_time(start + DAY)}F-{_time(end + DAY)}F"
    if start < 0:
        return f"{_time(start + DAY)}-{_time(end)}"
    return "0000-0000" if (start, end) == (0, DAY) else f"{_time(start)}-{_time(end)}"


def _time(minutes: int) -> str:
    return f"{minutes // 60:02}{minutes % 60:02}"

"""A market's week in TradingView's words: what its documents say of sessions, days and zones, tried on calendars."""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from console.trading_hours import OPEN_ALWAYS, ZONES, hours_of
from core.calendar import AlwaysOpen, FxWeek, MarketCalendar
from core.clock import DAY_US, MINUTE_US, parse_instant
from core.interval import Interval

NOW = datetime(2026, 1, 5, tzinfo=UTC)
PART = re.compile(r"(\d{2})(\d{2})(F?)-(\d{2})(\d{2})(F?)")
BROKER = {"zone": "EET", "weekly": [{"from": "Fri 23:57", "to": "Mon 00:02"}, *(
    {"from": f"{day} 23:59", "to": f"{after} 00:02"} for day, after in (("Mon", "Tue"), ("Tue", "Wed"), ("Wed", "Thu"), ("Thu", "Fri")))]}
FUTURES = {"zone": "America/Chicago", "weekly": [{"from": "Fri 16:00", "to": "Sun 17:00"}, *(
    {"from": f"{day} 16:00", "to": f"{day} 17:00"} for day in ("Mon", "Tue", "Wed", "Thu"))]}
SHARES = {"zone": "America/New_York", "weekly": [{"from": "Fri 16:00", "to": "Mon 09:30"}, *(
    {"from": f"{day} 16:00", "to": f"{after} 09:30"} for day, after in (("Mon", "Tue"), ("Tue", "Wed"), ("Wed", "Thu"), ("Thu", "Fri")))]}
LEARNED = {"zone": "America/New_York", "weekly": [{"from": "Fri 16:55", "to": "Sun 17:15"}, *(
    {"from": f"{day} 17:00", "to": f"{day} 17:05"} for day in ("Mon", "Tue", "Wed", "Thu"))]}
SUNDAYS = {"zone": "UTC", "weekly": [{"from": "Mon 00:00", "to": "Sun 10:00"}, {"from": "Sun 12:00", "to": "Mon 00:00"}]}


@pytest.mark.parametrize(("spec", "session", "zone"), [
    ({"base": "fx"}, "1700-1700:23456", "America/New_York"),
    (BROKER, "0002-2359:2345|0002-2357:6", "Europe/Athens"),
    (FUTURES, "1700-1600:23456", "America/Chicago"),
    (SHARES, "0930-1600:23456", "America/New_York"),
    (LEARNED, "1715-1700:2|1705-1700:345|1705-1655:6", "America/New_York"),
    (SUNDAYS, "1000-1200:1", "Etc/UTC"),
    ({"base": "always"}, "24x7", "Etc/UTC"),
    ({"zone": "UTC", "weekly": [{"from": "Sat 00:00", "to": "Mon 00:00"}]}, "0000-0000:23456", "Etc/UTC"),
    ({"zone": "Pacific/Marquesas", "weekly": [{"from": "Sat 00:00", "to": "Mon 00:00"}]}, "24x7", "Etc/UTC")])
def test_a_week_is_written_as_the_library_reads_it(spec, session, zone):
    """FX by New York, a broker's server time, futures with their daily break, shares, a learned week, one day alone; a zone that the library lacks hides nothing."""
    hours = hours_of(MarketCalendar.from_spec(spec), NOW)
    assert (hours.session, hours.timezone) == (session, zone)
    assert zone in ZONES


def test_what_is_known_of_no_broker_is_the_week_of_its_market():
    """FX closes for New York's weekend, crypto never."""
    assert hours_of(FxWeek(), NOW).session == "1700-1700:23456"
    assert hours_of(FxWeek(), NOW).days == frozenset(range(5))
    assert hours_of(AlwaysOpen(), NOW) == OPEN_ALWAYS


@pytest.mark.parametrize("spec", [{"base": "fx"}, BROKER, FUTURES, SHARES, LEARNED, SUNDAYS])
@pytest.mark.parametrize("month", [1, 3, 7, 10])
def test_the_session_read_by_its_rules_is_the_calendars_open_time(spec, month):
    """Minute by minute of two weeks, across changes of summer time too: a reader of the written rules finds open what the calendar calls open."""
    calendar = MarketCalendar.from_spec(spec)
    hours = hours_of(calendar, NOW)
    start = parse_instant(f"2026-{month:02}-20")
    interval = Interval(start, start + 14 * DAY_US)
    closed = {minute for part in calendar.closed(interval) for minute in range(part.start // MINUTE_US, part.end // MINUTE_US)}
    wanted = set(range(interval.start // MINUTE_US, interval.end // MINUTE_US)) - closed
    found = {minute for minute in _open(hours, interval) if interval.start // MINUTE_US <= minute < interval.end // MINUTE_US}
    assert found == wanted


def _open(hours, interval):
    """Read a session string by the rules of its documents; return the open minutes since 1970 around an interval."""
    zone, out = ZoneInfo(hours.timezone), set()
    for kind in hours.session.split("|"):
        times, _, days = kind.partition(":")
        for part in times.split(","):
            h1, m1, before1, h2, m2, before2 = PART.fullmatch(part).groups()
            start, end = int(h1) * 60 + int(m1), int(h2) * 60 + int(m2)
            if start == end == 0:
                end = 1440
            elif not before1 and start >= end:
                start -= 1440
            start, end = start - 1440 * bool(before1), end - 1440 * bool(before2)
            first = (datetime.fromtimestamp(interval.start / 1e6, UTC) - timedelta(days=2)).date()
            for ahead in range(20):
                day = first + timedelta(days=ahead)
                if str(day.isoweekday() % 7 + 1) in days:
                    midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001  a wall clock's
                    opens, shuts = ((midnight + timedelta(minutes=at)).replace(tzinfo=zone) for at in (start, end))
                    out |= set(range(int(opens.timestamp()) // 60, int(shuts.timestamp()) // 60))
    return out

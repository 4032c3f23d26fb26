"""core.calendar.MarketCalendar: what is closed, why, and its spec as a person writes it."""

import itertools
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import FxWeek, MarketCalendar, holidays_of, open_parts
from core.clock import HOUR_US, MINUTE_US, parse_instant
from core.errors import InputError
from core.interval import Interval

GOLD = {
    "base": "fx",
    "weekly": [{"from": f"{day} 17:00", "to": f"{day} 18:00", "why": "daily break"} for day in ("Mon", "Tue", "Wed", "Thu")],
    "holidays": [{"calendar": "country:US", "names": ["Christmas Day"], "from": "-1 17:00", "to": "17:00"}],
    "closed": [{"start": "2024-03-05T10:00Z", "end": "2024-03-05T12:00Z", "why": "outage"}],
    "open": [{"start": "2024-03-09T10:00Z", "end": "2024-03-09T11:00Z"}],
}
times = st.integers(parse_instant("2015-01-01") // MINUTE_US, parse_instant("2026-01-01") // MINUTE_US)


def test_a_daily_break_follows_the_brokers_zone() -> None:
    """Gold's hour at 17:00 New York is 22:00 UTC in winter and 21:00 in summer; weekend, outage and opening are as said."""
    calendar = MarketCalendar.from_spec(GOLD)
    why = [(str(part), name) for part, name in calendar.why(Interval.parse("2024-03-04", "2024-03-13"))]
    assert why == [
        ("[2024-03-04T22:00:00Z, 2024-03-04T23:00:00Z)", "daily break"),
        ("[2024-03-05T10:00:00Z, 2024-03-05T12:00:00Z)", "outage"),
        ("[2024-03-05T22:00:00Z, 2024-03-05T23:00:00Z)", "daily break"),
        ("[2024-03-06T22:00:00Z, 2024-03-06T23:00:00Z)", "daily break"),
        ("[2024-03-07T22:00:00Z, 2024-03-07T23:00:00Z)", "daily break"),
        ("[2024-03-08T22:00:00Z, 2024-03-09T10:00:00Z)", "weekend"),
        ("[2024-03-09T11:00:00Z, 2024-03-10T21:00:00Z)", "weekend"),
        ("[2024-03-11T21:00:00Z, 2024-03-11T22:00:00Z)", "daily break"),
        ("[2024-03-12T21:00:00Z, 2024-03-12T22:00:00Z)", "daily break"),
    ]


def test_a_holiday_closes_its_trading_day() -> None:
    """Christmas of the library closes from the evening before to 17:00 New York, every year, also on a weekday."""
    calendar = MarketCalendar.from_spec({"zone": "America/New_York", "holidays": GOLD["holidays"]})
    for year in (2023, 2024):
        (part, name), = calendar.why(Interval.parse(f"{year}-12-20", f"{year}-12-31"))
        assert (str(part), name) == (f"[{year}-12-24T22:00:00Z, {year}-12-25T22:00:00Z)", "Christmas Day")
    assert (date(2024, 12, 25), "Christmas Day") in holidays_of("country:US", 2024)


@given(times, st.integers(1, 60 * 24 * 20))
def test_reasons_cover_exactly_the_closed_time(start: int, minutes: int) -> None:
    """Reasons are disjoint, add up to the closed time, and closed and open time make the whole."""
    calendar = MarketCalendar.from_spec(GOLD)
    interval = Interval(start * MINUTE_US, (start + minutes) * MINUTE_US)
    closed, why = calendar.closed(interval), calendar.why(interval)
    assert sum(part.end - part.start for part, _ in why) == sum(part.end - part.start for part in closed)
    assert all(left.end <= right.start for (left, _), (right, _) in itertools.pairwise(why))
    opened = open_parts(calendar, interval)
    assert sum(part.end - part.start for part in opened + closed) == interval.end - interval.start


@given(times, st.integers(1, 60 * 24 * 20))
def test_the_fx_base_is_the_fx_week(start: int, minutes: int) -> None:
    """`{"base": "fx"}` closes exactly when FxWeek does."""
    interval = Interval(start * MINUTE_US, (start + minutes) * MINUTE_US)
    assert MarketCalendar.from_spec({"base": "fx"}).closed(interval) == FxWeek().closed(interval)
    assert [name for _, name in FxWeek().why(interval)] == ["weekend"] * len(FxWeek().closed(interval))


def test_a_spec_survives_the_round_trip() -> None:
    """What `as_spec` writes `from_spec` reads as the same calendar."""
    calendar = MarketCalendar.from_spec(GOLD)
    assert MarketCalendar.from_spec(calendar.as_spec()) == calendar
    late = MarketCalendar.from_spec({"weekly": [{"from": "Sun 22:00", "to": "Mon 01:00"}]})
    assert MarketCalendar.from_spec(late.as_spec()) == late
    monday = parse_instant("2024-03-04")
    assert late.closed(Interval(monday, monday + 3 * HOUR_US)) == [Interval(monday, monday + HOUR_US)]


@pytest.mark.parametrize("spec", [
    [], {"weeekly": []}, {"base": "stocks"}, {"zone": "Mars/Phobos"}, {"weekly": {}}, {"weekly": [{"from": "Fri 17:00"}]},
    {"weekly": [{"from": "Friday 17:00", "to": "Sun 17:00"}]}, {"holidays": [{"calendar": "country:XX"}]},
    {"holidays": [{"calendar": "moon"}]}, {"holidays": [{"calendar": "country:US", "from": "18:00", "to": "17:00"}]},
    {"closed": [{"start": "2024-01-02", "end": "2024-01-01"}]}, {"closed": [{"start": "x", "end": "y"}]},
    {"open": [{"start": "2024-01-01"}]}, {"closed": [{"start": "2024-01-01", "end": "2024-01-02", "why": "a\nb"}]},
])
def test_a_bad_spec_is_refused_in_one_line(spec: object) -> None:
    """Whatever is wrong with a spec, the error is one line that names the part."""
    with pytest.raises(InputError, match=r"calendar|range|start|end") as caught:
        MarketCalendar.from_spec(spec)
    assert "\n" not in str(caught.value)

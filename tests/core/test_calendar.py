"""core.calendar: open time of FX and crypto."""

from hypothesis import given
from hypothesis import strategies as st

from core.calendar import AlwaysOpen, FxWeek, open_parts
from core.clock import DAY_US, HOUR_US, parse_instant
from core.interval import Interval


def test_crypto_never_closes() -> None:
    """All time is open time."""
    week = Interval.parse("2024-01-01", "2024-01-08")
    assert open_parts(AlwaysOpen(), week) == [week]


def test_the_fx_week_follows_new_york() -> None:
    """Closed from Friday 17:00 to Sunday 17:00 New York: 22:00 UTC in winter, 21:00 in summer."""
    assert [str(i) for i in FxWeek().closed(Interval.parse("2024-01-01", "2024-01-08"))] == [
        "[2024-01-05T22:00:00Z, 2024-01-07T22:00:00Z)"]
    assert [str(i) for i in FxWeek().closed(Interval.parse("2024-07-01", "2024-07-08"))] == [
        "[2024-07-05T21:00:00Z, 2024-07-07T21:00:00Z)"]
    change = FxWeek().closed(Interval.parse("2024-03-04", "2024-03-12"))  # the clock goes forward in the weekend
    assert (change[0].end - change[0].start) == 47 * HOUR_US


@given(st.integers(0, 20_000), st.integers(1, 30 * 24))
def test_open_and_closed_make_the_whole(day: int, hours: int) -> None:
    """Open and closed parts never overlap and add up to the interval, wherever it is cut."""
    interval = Interval(day * DAY_US, day * DAY_US + hours * HOUR_US)
    closed = FxWeek().closed(interval)
    opened = open_parts(FxWeek(), interval)
    assert sum(i.end - i.start for i in closed + opened) == interval.end - interval.start


def test_holidays_close_too() -> None:
    """A broker's holidays are closed time."""
    christmas = Interval.parse("2024-12-24T22:00", "2024-12-25T22:00")
    assert christmas in FxWeek((christmas,)).closed(Interval.parse("2024-12-23", "2024-12-27"))
    assert FxWeek((christmas,)).closed(Interval(parse_instant("2024-12-26"), parse_instant("2024-12-27"))) == []

"""core.timeframe: names, and grids of open times in UTC and on a broker's clock."""

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_US, HOUR_US, isoformat, parse_instant, to_datetime
from core.errors import InputError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import NAMES, Grid, Timeframe

EET = ServerClock.fixed(120, "eu")
names = st.sampled_from([name for name in NAMES if name != "1s"])
servers = st.sampled_from([None, EET, ServerClock.fixed(120, "us"), ServerClock.fixed(0),
                           ServerClock.fixed(330), ServerClock.fixed(-165, "us")])
instants = st.integers(parse_instant("2000-01-01"), parse_instant("2040-01-01"))


@given(names, servers, instants)
def test_floor_next_and_ceil_agree(name: str, server: ServerClock | None, us: int) -> None:
    """Floor <= us < next, both on the grid, floor is idempotent, ceil is us or the next slot."""
    grid = Grid(Timeframe.parse(name), server)
    start, after = grid.floor(us), grid.next(us)
    assert start <= us < after
    assert grid.is_on(start)
    assert grid.is_on(after)
    assert grid.floor(after - 1) == start
    assert grid.ceil(us) == (us if start == us else after)


@given(names, servers, instants, st.integers(0, 40))
def test_slots_follow_each_other(name: str, server: ServerClock | None, us: int, days: int) -> None:
    """Slots are exactly the open times in the interval, and count counts them."""
    grid = Grid(Timeframe.parse(name), server)
    interval = Interval(us, us + days * (DAY_US if grid.timeframe.length_us >= HOUR_US else HOUR_US))
    slots = grid.slots(interval)
    assert grid.count(interval) == len(slots)
    assert all(slot in interval and grid.is_on(slot) for slot in slots)
    assert all(grid.next(a) == b for a, b in itertools.pairwise(slots))
    if slots:
        assert grid.ceil(interval.start) == slots[0]
        assert grid.next(slots[-1]) >= interval.end


def test_months_follow_the_calendar_and_weeks_begin_on_monday() -> None:
    """1mo opens on the 1st, 1w on Monday; 1M is accepted for 1mo."""
    month, week = Grid(Timeframe.parse("1M")), Grid(Timeframe.parse("1w"))
    assert month.timeframe.name == "1mo"
    assert month.timeframe.is_month
    us = parse_instant("2024-02-29T13:00")
    assert isoformat(month.floor(us)) == "2024-02-01T00:00:00Z"
    assert isoformat(month.next(us)) == "2024-03-01T00:00:00Z"
    assert to_datetime(week.floor(us)).weekday() == 0


def test_days_are_cut_at_the_brokers_midnight() -> None:
    """A day at a UTC+2/+3 broker opens at 22:00 or 21:00 UTC, and is 23 or 25 hours long at a change."""
    grid = Grid(Timeframe.parse("1d"), EET)
    assert isoformat(grid.floor(parse_instant("2024-01-10T12:00"))) == "2024-01-09T22:00:00Z"
    assert isoformat(grid.floor(parse_instant("2024-07-10T12:00"))) == "2024-07-09T21:00:00Z"
    spring = grid.floor(parse_instant("2024-03-31T12:00"))
    assert (grid.next(spring) - spring) == 23 * HOUR_US


@given(st.sampled_from(["1m", "5m", "10m", "15m", "30m", "1h"]), st.integers(-56, 56), st.sampled_from(["none", "eu", "us"]), instants)
def test_short_candles_open_where_the_brokers_clock_says(name: str, quarters: int, rule: str, us: int) -> None:
    """On a clock that is off UTC by any quarter hours, candles up to 1h open at whole lengths of its own time, evenly, all year."""
    server = ServerClock.fixed(15 * quarters, rule)
    grid = Grid(Timeframe.parse(name), server)
    assert grid.is_even
    assert server.from_utc_us(grid.floor(us)) % grid.timeframe.length_us == 0
    assert grid.next(us) - grid.floor(us) == grid.timeframe.length_us


def test_an_unknown_name_lists_the_names() -> None:
    """A wrong timeframe says what is allowed."""
    with pytest.raises(InputError, match=r"timeframe: received '7m'; allowed: .*1m, 3m"):
        Timeframe.parse("7m")


def test_minutes_and_order() -> None:
    """Timeframes sort by length and know their minutes."""
    assert Timeframe.parse("4h").minutes == 240
    assert min(Timeframe.parse(n) for n in ("1d", "1m", "1h")).name == "1m"
    assert str(Timeframe.parse("1h")) == "1h"


def test_align_grows_to_whole_candles() -> None:
    """Align holds the slots that begin inside, up to the close of the last one."""
    grid = Grid(Timeframe.parse("1h"))
    got = grid.align(Interval.of(datetime(2024, 1, 1, 0, 30, tzinfo=UTC), datetime(2024, 1, 1, 2, 30, tzinfo=UTC)))
    assert str(got) == "[2024-01-01T01:00:00Z, 2024-01-01T03:00:00Z)"

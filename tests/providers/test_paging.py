"""Pages of whole candles."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_US
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import NAMES, Grid, Timeframe
from providers.paging import pages

GRIDS = st.builds(
    Grid,
    st.sampled_from([Timeframe.parse(name) for name in NAMES if name != "1s"]),
    st.sampled_from([None, ServerClock.fixed(120, "eu"), ServerClock.fixed(-300, "us")]),
)


@given(GRIDS, st.integers(0, 20_000), st.integers(0, 400), st.integers(1, 50), st.integers(0, DAY_US))
def test_pages_hold_every_candle_once_in_order(grid, first_day, candles, limit, jitter):
    """Pages are adjacent, at most `limit` candles long, and hold exactly the slots of the interval."""
    start = first_day * DAY_US + jitter
    end = start + min(candles * grid.timeframe.length_us, 800 * DAY_US)
    interval = Interval(start, end)
    found = list(pages(interval, grid, limit))
    assert [slot for page in found for slot in grid.slots(page)] == grid.slots(interval)
    assert all(0 < grid.count(page) <= limit for page in found)
    assert all(left.end == right.start for left, right in itertools.pairwise(found))
    assert all(grid.is_on(page.start) and grid.is_on(page.end) for page in found)


def test_a_limit_below_one_is_refused():
    """A page of no candles would never end."""
    with pytest.raises(ValueError, match="limit"):
        list(pages(Interval(0, DAY_US), Grid(Timeframe.parse("1h")), 0))

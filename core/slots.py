"""The slots of a grid, as arrays of open times: all of them, and those at which a market is open."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.calendar import Calendar
from core.interval import Interval
from core.timeframe import Grid

Slots = npt.NDArray[np.int64]  # open times, microseconds since 1970 UTC


def grid_slots(grid: Grid, interval: Interval) -> Slots:
    """Return every open time in `interval`, ascending."""
    if grid.is_even:
        return np.arange(grid.ceil(interval.start), interval.end, grid.timeframe.length_us, dtype=np.int64)
    return np.asarray(grid.slots(interval), dtype=np.int64)


def expected_slots(grid: Grid, calendar: Calendar, interval: Interval) -> Slots:
    """Return the open times in `interval` at which the market is open, ascending."""
    slots = grid_slots(grid, interval)
    is_open = np.ones(len(slots), dtype=bool)
    for closed in calendar.closed(interval):
        first, last = np.searchsorted(slots, [closed.start, closed.end])
        while last > first and grid.next(int(slots[last - 1])) > closed.end:
            last -= 1  # this candle reaches into open time
        is_open[first:last] = False
    return slots[is_open]

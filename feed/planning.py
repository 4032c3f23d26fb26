"""What to ask for: expected slots that are neither stored nor booked as final. Computed from the store's contents."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, has_come
from core.interval import Interval, merge
from core.slots import Slots
from core.timeframe import Grid
from storage.ledger import Gap

# A gap that a provider may still fill is asked for again after these waits, by how often it was tried.
RETRY_WAITS_US = (10 * MINUTE_US, HOUR_US, 6 * HOUR_US, DAY_US, 7 * DAY_US, 30 * DAY_US)
# Two sights of an empty slot must lie this far apart before it counts as proved.
OBSERVATIONS_APART_US = 9 * MINUTE_US
STANDING_US = 10 * SECOND_US  # a clock that differs by no more stands: it is measured over the wire
STANDING_APART_US = 3 * DAY_US  # by our clock, where the provider's stands: longer than a weekend, in which a bridge may be stale


def without(slots: Slots, holes: Sequence[Interval]) -> Slots:
    """Return the slots that lie in none of `holes`."""
    keep = np.ones(len(slots), dtype=bool)
    for hole in merge(holes):
        first, last = np.searchsorted(slots, [hole.start, hole.end])
        keep[first:last] = False
    return slots[keep]


def within(slots: Slots, parts: Sequence[Interval]) -> Slots:
    """Return the slots that lie in one of `parts`."""
    return not_in(slots, without(slots, parts))


def grown(parts: Sequence[Interval], grid: Grid) -> list[Interval]:
    """Return parts of time grown to the left, so that they hold the open time of every candle that reaches into them."""
    longest = grid.timeframe.length_us if grid.is_even else grid.timeframe.length_us + (2 * DAY_US if grid.timeframe.is_month else HOUR_US)
    return [Interval(max(0, part.start - longest + 1), part.end) for part in parts]


def not_in(slots: Slots, held: Slots) -> Slots:
    """Return the slots that are not in `held`, which is ascending: a look at each, however much is held."""
    if len(slots) == 0 or len(held) == 0:
        return slots
    near = np.minimum(np.searchsorted(held, slots), len(held) - 1)
    kept: Slots = slots[held[near] != slots]
    return kept


def missing_slots(expected: Slots, stored: Slots, booked: Sequence[Gap], now_us: int) -> Slots:
    """Return the expected slots that are not stored and not booked, or booked and due for another try.

    What was booked as closed time and is expected all the same has another calendar now: it is asked for.
    """
    left = not_in(expected, stored)
    settled = [gap.interval for gap in booked
               if (gap.next_try_us is None or not is_due(gap.next_try_us, now_us)) and gap.cause != "market_closed"]
    return without(left, settled)


def is_due(next_try_us: int, now_us: int) -> bool:
    """Whether a gap is due for another try."""
    return has_come(next_try_us, now_us, RETRY_WAITS_US[-1])


def slot_runs(slots: Sequence[int] | Slots, grid: Grid) -> list[Interval]:
    """Group ascending slots that follow each other on the grid into intervals, each ending at its last slot's close."""
    if len(slots) == 0:
        return []
    values = np.asarray(slots, dtype=np.int64)
    if grid.is_even:
        length = grid.timeframe.length_us
        breaks = np.flatnonzero(np.diff(values) != length)
        starts = values[np.concatenate(([0], breaks + 1))]
        ends = values[np.concatenate((breaks, [len(values) - 1]))] + length
        return [Interval(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return merge(Interval(int(slot), grid.next(int(slot))) for slot in values)


def page_from(cursor: int, grid: Grid, limit: int, end: int) -> Interval:
    """Return the page that begins at the slot `cursor`: at most `limit` candles, not past `end`."""
    if grid.is_even:
        return Interval(cursor, min(end, cursor + limit * grid.timeframe.length_us))
    stop = cursor
    for _ in range(limit):
        if stop >= end:
            break
        stop = grid.next(stop)
    return Interval(cursor, min(stop, end))


def next_try_us(attempts: int, now_us: int) -> int:
    """Return when a gap that was tried `attempts` times is due again."""
    return now_us + RETRY_WAITS_US[min(attempts, len(RETRY_WAITS_US)) - 1]

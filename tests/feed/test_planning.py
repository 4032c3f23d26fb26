"""feed.planning: which slots to ask for, against plain sets."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import AlwaysOpen, FxWeek
from core.clock import DAY_US, HOUR_US, MINUTE_US, isoformat
from core.interval import Interval
from core.server_clock import ServerClock
from core.slots import expected_slots
from core.timeframe import Grid, Timeframe
from feed.planning import grown, missing_slots, next_try_us, not_in, page_from, slot_runs, within, without
from storage.ledger import Gap

MINUTE = Grid(Timeframe.parse("1m"))
slot_sets = st.sets(st.integers(0, 80)).map(lambda s: np.array(sorted(s), dtype=np.int64) * MINUTE_US)
spans = st.lists(st.tuples(st.integers(0, 80), st.integers(1, 20)).map(
    lambda p: Interval(p[0] * MINUTE_US, (p[0] + p[1]) * MINUTE_US)), max_size=4)


@given(slot_sets, slot_sets, spans, st.booleans())
def test_missing_is_expected_without_stored_and_booked(expected, stored, booked, is_due) -> None:
    """A slot is asked for when it is expected, not stored, and not booked, or booked and due."""
    gaps = [Gap(1, span, "provider_empty", next_try_us=5 if is_due else 50) for span in booked]
    got = set(missing_slots(expected, stored, gaps, now_us=10).tolist())
    hidden = set() if is_due else {s for span in booked for s in range(span.start, span.end, MINUTE_US)}
    assert got == set(expected.tolist()) - set(stored.tolist()) - hidden


@given(slot_sets, slot_sets)
def test_not_in_keeps_what_is_not_held(slots, held) -> None:
    """not_in keeps exactly the slots that are not held, in their order, also where either is empty."""
    assert not_in(slots, held).tolist() == [slot for slot in slots.tolist() if slot not in set(held.tolist())]


@given(slot_sets, spans)
def test_without_leaves_out_the_holes(slots, holes) -> None:
    """Without drops exactly the slots inside a hole."""
    assert set(without(slots, holes).tolist()) == {s for s in slots.tolist() if not any(s in hole for hole in holes)}


@given(slot_sets)
def test_runs_hold_exactly_the_slots(slots) -> None:
    """slot_runs groups neighbours and loses none."""
    found = slot_runs(slots, MINUTE)
    assert [s for run in found for s in range(run.start, run.end, MINUTE_US)] == slots.tolist()
    assert all(a.end < b.start for a, b in itertools.pairwise(found))


def test_runs_on_an_uneven_grid() -> None:
    """Months join across their different lengths."""
    grid = Grid(Timeframe.parse("1mo"))
    months = grid.slots(Interval.parse("2024-01-01", "2024-06-01"))
    assert [str(run) for run in slot_runs(months[:2] + months[3:], grid)] == [
        "[2024-01-01T00:00:00Z, 2024-03-01T00:00:00Z)", "[2024-04-01T00:00:00Z, 2024-06-01T00:00:00Z)"]


def test_a_final_booking_is_never_due() -> None:
    """Without a next try a booked slot is left alone for ever."""
    gap = Gap(1, Interval(0, MINUTE_US), "out_of_reach")
    assert missing_slots(np.array([0]), np.array([], dtype=np.int64), [gap], now_us=10**18).size == 0


def test_weekends_are_not_expected_of_fx() -> None:
    """An FX week of minutes is five days; crypto's is seven; a broker's daily candles leave the weekend out."""
    week = Interval.parse("2024-01-01", "2024-01-08")
    assert len(expected_slots(MINUTE, AlwaysOpen(), week)) == 7 * 1440
    assert len(expected_slots(MINUTE, FxWeek(), week)) == 5 * 1440
    days = Grid(Timeframe.parse("1d"), ServerClock.fixed(120, "us"))
    opens = expected_slots(days, FxWeek(), Interval.parse("2024-01-01T22:00", "2024-01-08T22:00"))
    assert [isoformat(int(s))[:13] for s in opens] == [f"2024-01-0{d}T22" for d in (1, 2, 3, 4, 7)]


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(0, 100))
def test_a_page_holds_at_most_its_limit(first: int, limit: int, more: int) -> None:
    """A page begins at its cursor, has at most `limit` slots and does not pass the end."""
    cursor = first * MINUTE_US
    page = page_from(cursor, MINUTE, limit, cursor + more * MINUTE_US)
    assert MINUTE.count(page) == min(limit, more)
    assert page.start == cursor


def test_pages_of_months() -> None:
    """Pages of an uneven grid count slots, not time."""
    grid = Grid(Timeframe.parse("1mo"))
    whole = Interval.parse("2024-01-01", "2030-01-01")
    assert grid.count(page_from(whole.start, grid, 7, whole.end)) == 7


def test_retries_are_graduated() -> None:
    """Each attempt waits longer, up to a month."""
    waits = [next_try_us(n, 0) for n in range(1, 8)]
    assert waits == sorted(waits)
    assert (waits[0], waits[1], waits[-1]) == (10 * MINUTE_US, HOUR_US, 30 * DAY_US)


@given(st.lists(st.tuples(st.integers(0, 700), st.integers(1, 90)), max_size=4), st.sampled_from(["3m", "15m", "1h", "4h"]))
def test_withheld_candles_are_those_that_reach_into_a_stretch(parts: list[tuple[int, int]], timeframe: str) -> None:
    """A candle's slot lies in the grown stretches when any part of the candle lies in one of them, and else in none."""
    grid = Grid(Timeframe.parse(timeframe))
    doubted = [Interval(begin * MINUTE_US, (begin + length) * MINUTE_US) for begin, length in parts]
    slots = np.array(grid.slots(Interval(0, 900 * MINUTE_US)), dtype=np.int64)
    inside = within(slots, grown(doubted, grid)).tolist()
    assert inside == [slot for slot in slots.tolist() if any(Interval(slot, grid.next(slot)).intersect(part) for part in doubted)]
    assert sorted([*inside, *without(slots, grown(doubted, grid)).tolist()]) == slots.tolist()

"""core.interval: set algebra over half-open intervals, against plain sets of integers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.interval import Interval, intersect, merge, runs, subtract

bounds = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)
intervals = st.lists(bounds.map(lambda b: Interval(b[0], b[1])), max_size=8)


def points(items: list[Interval]) -> set[int]:
    return {point for item in items for point in range(item.start, item.end)}


def is_canonical(items: list[Interval]) -> bool:
    return all(not i.is_empty for i in items) and all(a.end < b.start for a, b in itertools.pairwise(items))


@given(intervals)
def test_merge_keeps_the_points_and_is_canonical(items: list[Interval]) -> None:
    """Merge holds exactly the same points, sorted, disjoint and not touching."""
    assert points(merge(items)) == points(items)
    assert is_canonical(merge(items))


@given(intervals, intervals)
def test_subtract_is_set_difference(whole: list[Interval], holes: list[Interval]) -> None:
    """Subtract holds the points of the whole that no hole holds."""
    out = subtract(whole, holes)
    assert points(out) == points(whole) - points(holes)
    assert all(a.end <= b.start for a, b in itertools.pairwise(out))


@given(intervals, intervals)
def test_intersect_is_set_intersection(left: list[Interval], right: list[Interval]) -> None:
    """Intersect holds the points that both hold."""
    assert points(intersect(left, right)) == points(left) & points(right)


@given(st.sets(st.integers(0, 50)), st.integers(1, 3))
def test_runs_cover_exactly_the_slots(slots: set[int], step: int) -> None:
    """Runs groups slots that follow each other; no slot is lost or added."""
    opens = sorted(slot * step for slot in slots)
    found = list(runs(opens, step))
    assert [s for run in found for s in range(run.start, run.end, step)] == opens
    assert all(a.end < b.start for a, b in itertools.pairwise(found))


def test_a_reversed_range_is_refused_in_one_line() -> None:
    """A start after its end says what came, what is allowed and what to do."""
    with pytest.raises(InputError, match=r"range: received .*; allowed: a start before its end; swap the two"):
        Interval.parse("2024-02-01", "2024-01-01")


def test_an_empty_range_from_a_person_is_refused() -> None:
    """START equal to END selects nothing and is a mistake."""
    with pytest.raises(InputError, match="the end is exclusive"):
        Interval.parse("2024-01-01", "2024-01-01")


def test_parts_and_text() -> None:
    """Ends read back as UTC, containment is half-open."""
    interval = Interval.parse("2024-01-01", "2024-01-02T00:00+00:00")
    assert str(interval) == "[2024-01-01T00:00:00Z, 2024-01-02T00:00:00Z)"
    assert interval.start in interval
    assert interval.end not in interval
    assert Interval.of(interval.start_at, interval.end_at) == interval

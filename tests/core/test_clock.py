"""core.clock: instants in and out of text, and the clocks."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import LATEST_US, ManualClock, SystemClock, has_come, isoformat, parse_instant, to_us
from core.errors import InputError


@given(st.integers(0, LATEST_US))
def test_text_round_trip(us: int) -> None:
    """Every storable instant survives its text."""
    assert parse_instant(isoformat(us)) == us


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "0001-01-01", "9999-12-31", "1969-12-31", "12", "2024-01-01T25:00"])
def test_bad_times_are_refused_in_one_line(text: str) -> None:
    """What is not ISO 8601 or lies outside 1970 to 2100 is named with what is allowed."""
    with pytest.raises(InputError) as caught:
        parse_instant(text, "start")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("start: received ")


def test_waits_that_nobody_sets_were_noted_by_a_wrong_clock() -> None:
    """An instant has come when it is past, or lies further ahead than anybody is ever made to wait."""
    assert [has_come(at, 100, 10) for at in (0, 100, 101, 110, 111, LATEST_US)] == [True, True, False, False, True, True]


def test_offsets_are_honoured_and_naive_is_utc() -> None:
    """An offset counts; without one the text is UTC."""
    assert parse_instant("2024-01-01T02:00+02:00") == parse_instant("2024-01-01") == parse_instant("2024-01-01T00:00Z")


def test_a_naive_datetime_is_refused() -> None:
    """Code may not pass naive datetimes."""
    with pytest.raises(InputError, match="add Z for UTC"):
        to_us(datetime(2024, 1, 1))  # noqa: DTZ001  the point of the test


def test_manual_clock_moves_when_told() -> None:
    """The fake clock stands still until it is moved."""
    clock = ManualClock(datetime(2024, 1, 1, tzinfo=UTC))
    clock.advance(timedelta(seconds=1.5))
    assert isoformat(clock.now_us()) == "2024-01-01T00:00:01.500000Z"
    clock.set(datetime(2025, 1, 1, tzinfo=UTC))
    assert clock.now_us() == ManualClock(clock.now_us()).now_us()


def test_system_clock_is_shifted() -> None:
    """A replay's clock runs beside the machine's, by a fixed shift."""
    assert SystemClock(-10**12).now_us() < SystemClock().now_us()

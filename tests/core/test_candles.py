"""core.candles.check: what may be stored, and why the rest may not."""

import math
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.candles import CANDLE_SCHEMA, check, empty_candles
from core.clock import MINUTE_US, parse_instant, to_datetime
from core.interval import Interval
from core.timeframe import Grid, Timeframe

START = parse_instant("2024-01-01")
GRID = Grid(Timeframe.parse("1m"))
ASKED = Interval(START, START + 60 * MINUTE_US)
GOOD = {"open": 2.0, "high": 3.0, "low": 1.0, "close": 2.5, "volume": 10.0, "spread": None}


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    complete = [{"ts": to_datetime(START), **GOOD, **row} for row in rows]
    return pl.DataFrame(complete, schema=CANDLE_SCHEMA)


@pytest.mark.parametrize(("change", "reason"), [
    ({"high": 0.5}, "high below low"),
    ({"open": math.nan}, "not finite"),
    ({"close": math.inf}, "not finite"),
    ({"volume": None}, "not finite"),
    ({"spread": math.nan}, "not finite"),
    ({"low": 0.0}, "price not positive"),
    ({"high": 1e16}, "price out of range"),
    ({"open": 5.0}, "open or close outside high and low"),
    ({"volume": -1.0}, "negative volume"),
    ({"spread": -0.1}, "negative spread"),
    ({"ts": to_datetime(START + 1)}, "off the grid"),
])
def test_a_bad_row_is_rejected_with_its_reason(change: dict[str, object], reason: str) -> None:
    """Each broken rule has its name, and the good row beside it is kept."""
    checked = check(frame(change, {"ts": to_datetime(START + MINUTE_US)}), GRID, ASKED, ASKED.end)
    assert checked.rejected["reason"].to_list() == [reason]
    assert len(checked.candles) == 1


def test_two_values_for_one_time_are_both_rejected() -> None:
    """Contradicting rows are not chosen between; an exact copy is one row."""
    checked = check(frame({}, {"close": 2.0}), GRID, ASKED, ASKED.end)
    assert checked.rejected["reason"].to_list() == ["two values for one time"] * 2
    assert check(frame({}, {}), GRID, ASKED, ASKED.end).candles.height == 1


def test_open_candles_and_rows_outside_are_dropped_without_a_word() -> None:
    """A candle is closed when the given instant is past its close; rows that were not asked for do not count."""
    rows = frame(*({"ts": to_datetime(START) + timedelta(minutes=m)} for m in (-1, 0, 1, 2, 60)))
    checked = check(rows, GRID, ASKED, START + 2 * MINUTE_US)
    assert checked.candles["ts"].dt.epoch("us").to_list() == [START, START + MINUTE_US]
    assert checked.rejected.is_empty()


def test_rows_of_the_future_are_rejected_wherever_they_lie() -> None:
    """What opens well after the provider's present never happened: set aside with its reason; what is merely open is not."""
    present = START + 2 * MINUTE_US
    rows = frame(*({"ts": to_datetime(START) + timedelta(minutes=m)} for m in (0, 1, 2, 16, 17, 40, 600, 500_000)))
    checked = check(rows, GRID, ASKED, present, present)
    assert checked.candles["ts"].dt.epoch("us").to_list() == [START, START + MINUTE_US]
    assert checked.rejected["reason"].to_list() == ["in the future"] * 4
    assert checked.rejected["ts"].dt.epoch("us").to_list() == [START + m * MINUTE_US for m in (17, 40, 600, 500_000)]


@given(st.lists(st.tuples(st.integers(-5, 70), st.floats(), st.floats(), st.floats(), st.floats(), st.floats()), max_size=30))
def test_whatever_comes_only_good_rows_pass(rows: list[tuple[int, float, float, float, float, float]]) -> None:
    """Storable rows are sorted, unique, on the grid, inside what was asked, closed, finite and in order of price."""
    raw = pl.DataFrame(
        [(to_datetime(START + m * MINUTE_US), *values, None) for m, *values in rows], schema=CANDLE_SCHEMA, orient="row")
    good = check(raw, GRID, ASKED, START + 30 * MINUTE_US).candles
    ts = good["ts"].dt.epoch("us").to_list()
    assert ts == sorted(set(ts))
    assert all(t in ASKED and GRID.is_on(t) and t + MINUTE_US <= START + 30 * MINUTE_US for t in ts)
    for row in good.iter_rows(named=True):
        assert 0 < row["low"] <= min(row["open"], row["close"]) <= max(row["open"], row["close"]) <= row["high"]
        assert math.isfinite(row["high"])
        assert row["volume"] >= 0


def test_an_empty_frame_is_fine() -> None:
    """Nothing in, nothing out."""
    checked = check(empty_candles(), GRID, ASKED, ASKED.end)
    assert checked.candles.is_empty()
    assert checked.rejected.is_empty()


def test_months_are_checked_against_the_calendar() -> None:
    """Uneven grids are checked slot by slot."""
    grid = Grid(Timeframe.parse("1mo"))
    asked = Interval.parse("2024-01-01", "2024-06-01")
    rows = frame({"ts": to_datetime(parse_instant("2024-02-01"))}, {"ts": to_datetime(parse_instant("2024-03-02"))})
    checked = check(rows, grid, asked, asked.end)
    assert checked.candles.height == 1
    assert checked.rejected["reason"].to_list() == ["off the grid"]

"""core.clock_days: days of recorded MetaTrader files at another hour than their weeks show, told by a reference on UTC."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sandbox
from core.clock import DAY_US, HOUR_US, parse_instant
from core.clock_days import Doubt, Hourly, doubts
from core.interval import Interval
from core.server_clock import ServerClock

SANDBOX, HERE = Path(sandbox.__file__).parent / "data", Path(__file__).parent / "data"
FILES = {"GBPUSD": SANDBOX, "AUDUSD": HERE, "USDJPY": HERE}
WEEKLY = ServerClock.from_config({"server_clock": [
    {"offset_minutes": 60, "dst": "eu"}, {"since": "2014-11-22T22:00:00Z", "offset_minutes": 120, "dst": "eu"}]})
# Then its clock stood an hour further on, by its own reading: the moves against the euro, and the opens that leave closes behind.
TRUE_INSTEAD = [("2013-06-06T00", "2013-06-14T00"), ("2013-06-27T00", "2013-06-29T00"), ("2017-10-30T00", "2017-11-02T18")]


def hourly(path: Path, clock: ServerClock | None = None) -> Hourly:
    frame = pl.read_parquet(path).sort("ts")
    us = frame["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_numpy()
    if clock is not None:
        us = np.array([clock.to_utc_us(value) for value in us.tolist()], dtype=np.int64)
    us, first = np.unique(us, return_index=True)
    return us, frame["close"].to_numpy()[first]


@pytest.fixture(scope="module")
def reference() -> Hourly:
    return hourly(SANDBOX / "oanda_EURUSD_H1.parquet")


@pytest.fixture(scope="module")
def witnesses() -> list[Hourly]:
    assert WEEKLY is not None
    return [hourly(folder / f"mt5_{name}_H1_brokertime.parquet", WEEKLY) for name, folder in FILES.items()]


def found(clock: ServerClock | None, witnesses: list[Hourly], reference: Hourly) -> list[Doubt]:
    assert clock is not None
    return doubts(clock, witnesses, reference)


def test_the_recorded_servers_three_odd_stretches_are_found_and_no_other(witnesses: list[Hourly], reference: Hourly) -> None:
    """Six years of three pairs: each hour that the weekly rules put an hour late lies in a stretch, and few others do."""
    told = found(WEEKLY, witnesses, reference)
    assert [doubt.shown_us - doubt.ruled_us for doubt in told] == [HOUR_US] * 3
    for doubt, (first, end) in zip(told, TRUE_INSTEAD, strict=True):
        late = Interval(parse_instant(first) - doubt.ruled_us, parse_instant(end) - doubt.ruled_us)
        assert doubt.interval.start <= late.start
        assert late.end <= doubt.interval.end
        assert doubt.interval.end - doubt.interval.start - (late.end - late.start) <= 5 * DAY_US  # with the weekends beside it


@pytest.mark.parametrize(("first", "days"), [("2015-05-12T15", 5), ("2016-05-12T15", 12), ("2018-05-12T15", 5)])
@pytest.mark.parametrize("shift", [-HOUR_US, HOUR_US])
def test_days_at_another_hour_are_found_wherever_they_lie(
    witnesses: list[Hourly], reference: Hourly, first: str, days: int, shift: int,
) -> None:
    """Hours moved for some days in a quiet year, either way and from any hour on: all of them lie in one stretch more."""
    moved = Interval(parse_instant(first), parse_instant(first) + days * DAY_US)
    altered = []
    for us, close in witnesses:
        inside = (us >= moved.start) & (us < moved.end)
        times, order = np.unique(np.where(inside, us - shift, us), return_index=True)
        altered.append((times, close[order]))
    more = [doubt for doubt in found(WEEKLY, altered, reference) if doubt.interval.intersect(moved) is not None]
    assert len(more) == 1
    assert more[0].shown_us - more[0].ruled_us == -shift
    for us, _ in witnesses:
        inside = us[(us >= moved.start) & (us < moved.end)] - shift
        assert ((inside >= more[0].interval.start) & (inside < more[0].interval.end)).all()


def test_the_same_instrument_shows_two_days_already(reference: Hourly) -> None:
    """Held against its own pair, a series whose clock was wrong from Tuesday noon to Thursday noon is found out."""
    moved = Interval(parse_instant("2017-05-16T12"), parse_instant("2017-05-18T12"))
    us, close = reference
    times, order = np.unique(np.where((us >= moved.start) & (us < moved.end), us + HOUR_US, us), return_index=True)
    told = doubts(ServerClock.fixed(0), [(times, close[order])], reference)
    assert [moved.intersect(doubt.interval) == moved for doubt in told] == [True]


def test_a_right_clock_and_silence_raise_no_doubt(reference: Hourly) -> None:
    """A series held against itself, one without a common hour, and an empty one: no stretch is doubted."""
    clock = ServerClock.fixed(0)
    nothing = np.array([], dtype=np.int64), np.array([])
    assert doubts(clock, [reference], reference) == []
    assert doubts(clock, [(reference[0] + 100 * 365 * DAY_US, reference[1])], reference) == []
    assert doubts(clock, [nothing], reference) == doubts(clock, [reference], nothing) == []

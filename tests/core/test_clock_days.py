"""core.clock_days: days of recorded MetaTrader files at another hour than their weeks show, told by a reference and by their rhythm."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import sandbox
from core.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant
from core.clock_days import Doubt, Hourly, Hours, judge_days
from core.interval import Interval
from core.server_clock import ServerClock

SANDBOX, HERE = Path(sandbox.__file__).parent / "data", Path(__file__).parent / "data"
FILES = {"GBPUSD": SANDBOX, "AUDUSD": HERE, "USDJPY": HERE}
WEEKLY = ServerClock.from_config({"server_clock": [
    {"offset_minutes": 60, "dst": "eu"}, {"since": "2014-11-22T22:00:00Z", "offset_minutes": 120, "dst": "eu"}]})
# Then its clock stood an hour further on, by its own reading: the moves against the euro, and the opens that leave closes behind.
TRUE_INSTEAD = [("2013-06-06T00", "2013-06-14T00"), ("2013-06-27T00", "2013-06-29T00"), ("2017-10-30T00", "2017-11-02T18")]


def hours(path: Path, clock: ServerClock | None = None) -> Hours:
    frame = pl.read_parquet(path).sort("ts")
    us = frame["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_numpy()
    if clock is not None:
        us = np.array([clock.to_utc_us(value) for value in us.tolist()], dtype=np.int64)
    us, first = np.unique(us, return_index=True)
    return Hours(us, frame["close"].to_numpy()[first], frame["volume"].cast(pl.Float64).to_numpy()[first])


def moved(series: Hours, part: Interval, by_us: int) -> Hours:
    """Return the series with the hours of `part` written `by_us` later."""
    inside = (series.times >= part.start) & (series.times < part.end)
    times, order = np.unique(np.where(inside, series.times + by_us, series.times), return_index=True)
    return Hours(times, series.close[order], None if series.volume is None else series.volume[order])


def without_ticks(series: Hours) -> Hours:
    return series._replace(volume=None)


@pytest.fixture(scope="module")
def reference() -> Hourly:
    return hours(SANDBOX / "oanda_EURUSD_H1.parquet")[:2]


@pytest.fixture(scope="module")
def witnesses() -> list[Hours]:
    assert WEEKLY is not None
    return [hours(folder / f"mt5_{name}_H1_brokertime.parquet", WEEKLY) for name, folder in FILES.items()]


def found(clock: ServerClock | None, witnesses: list[Hours], reference: Hourly | None = None) -> Sequence[Doubt]:
    assert clock is not None
    return judge_days(clock, witnesses, reference).doubts


@pytest.mark.parametrize("by", ["returns beside a reference", "rhythm alone", "both"])
def test_the_recorded_servers_three_odd_stretches_are_found_and_no_other(witnesses: list[Hours], reference: Hourly, by: str) -> None:
    """Nine years of three pairs: each hour that the weekly rules put an hour late lies in a stretch, and few others do.

    Each way alone suffices; the rhythm also reaches beyond the reference's end, and raises no doubt there.
    """
    given = [without_ticks(one) for one in witnesses] if by.startswith("returns") else witnesses
    told = found(WEEKLY, given, None if by == "rhythm alone" else reference)
    assert [doubt.shown_us - doubt.ruled_us for doubt in told] == [HOUR_US] * 3
    for doubt, (first, end) in zip(told, TRUE_INSTEAD, strict=True):
        late = Interval(parse_instant(first) - doubt.ruled_us, parse_instant(end) - doubt.ruled_us)
        assert doubt.interval.start <= late.start
        assert late.end <= doubt.interval.end
        assert doubt.interval.end - doubt.interval.start - (late.end - late.start) <= 5 * DAY_US  # with the weekends beside it


@pytest.mark.parametrize("place", range(len(FILES)))
def test_one_pairs_rhythm_raises_no_false_doubt_in_nine_years(witnesses: list[Hours], place: int) -> None:
    """One pair alone: what is doubted lies where the server's clock did stand elsewhere, holidays and summer times included."""
    truly = [Interval(parse_instant(first), parse_instant(end)) for first, end in TRUE_INSTEAD]
    judged = judge_days(WEEKLY, [witnesses[place]]) if WEEKLY is not None else None
    assert judged is not None
    assert (judged.half_days or {})["rhythm"] > 4_500
    assert all(any(doubt.interval.intersect(part) is not None for part in truly) for doubt in judged.doubts)


@pytest.mark.parametrize("first", ["2016-02-16T05", "2018-08-14T09", "2019-05-14T15", "2020-09-08T03", "2021-10-12T20"])
@pytest.mark.parametrize("shift", [-HOUR_US, HOUR_US])
def test_two_days_at_another_hour_are_found_without_a_reference(witnesses: list[Hours], first: str, shift: int) -> None:
    """Two days moved in a quiet time of which no reference tells: three pairs' ticks show them, and all of them are doubted."""
    part = Interval(parse_instant(first), parse_instant(first) + 2 * DAY_US)
    around = Interval(part.start - 100 * DAY_US, part.end + 100 * DAY_US)
    near = [(one.times >= around.start) & (one.times < around.end) for one in witnesses]
    altered = [moved(Hours(one.times[now], one.close[now], one.volume[now]), part, -shift)
               for one, now in zip(witnesses, near, strict=True) if one.volume is not None]
    told = found(WEEKLY, altered)
    assert [doubt.shown_us - doubt.ruled_us for doubt in told] == [-shift]
    assert told[0].interval.intersect(Interval(part.start - shift, part.end - shift)) == Interval(part.start - shift, part.end - shift)


@pytest.mark.parametrize(("first", "days"), [("2015-05-12T15", 5), ("2016-05-12T15", 12), ("2018-05-12T15", 5)])
@pytest.mark.parametrize("shift", [-HOUR_US, HOUR_US])
def test_days_at_another_hour_are_found_wherever_they_lie(
    witnesses: list[Hours], reference: Hourly, first: str, days: int, shift: int,
) -> None:
    """Hours moved for some days in a quiet year, either way and from any hour on: returns alone put all of them in one stretch more."""
    part = Interval(parse_instant(first), parse_instant(first) + days * DAY_US)
    altered = [moved(without_ticks(one), part, -shift) for one in witnesses]
    more = [doubt for doubt in found(WEEKLY, altered, reference) if doubt.interval.intersect(part) is not None]
    assert len(more) == 1
    assert more[0].shown_us - more[0].ruled_us == -shift
    for one in witnesses:
        inside = one.times[(one.times >= part.start) & (one.times < part.end)] - shift
        assert ((inside >= more[0].interval.start) & (inside < more[0].interval.end)).all()


def test_the_same_instrument_shows_two_days_already(reference: Hourly) -> None:
    """Held against its own pair, a series whose clock was wrong from Tuesday noon to Thursday noon is found out."""
    part = Interval(parse_instant("2017-05-16T12"), parse_instant("2017-05-18T12"))
    told = found(ServerClock.fixed(0), [moved(Hours(*reference), part, HOUR_US)], reference)
    assert [part.intersect(doubt.interval) == part for doubt in told] == [True]


def test_a_right_clock_and_silence_raise_no_doubt(reference: Hourly) -> None:
    """A series held against itself, one without a common hour, one whose ticks are not counted, an empty one: nothing is doubted."""
    clock = ServerClock.fixed(0)
    times, close = reference
    nothing = Hours(np.array([], dtype=np.int64), np.array([]), np.array([]))
    assert not found(clock, [Hours(times, close)], reference)
    assert not found(clock, [Hours(times + 100 * 365 * DAY_US, close)], reference)
    assert not found(clock, [Hours(times, close, np.ones(len(times)))])
    assert not found(clock, [nothing], reference)
    assert not found(clock, [nothing])
    assert not found(clock, [Hours(times, close)], (nothing.times, nothing.close))
    judged = judge_days(clock, [Hours(times, close)], reference)
    assert list(judged.half_days or ()) == ["reference"]


@pytest.mark.parametrize("every", [7, 13, 97, 1000])
def test_ticks_that_are_no_markets_raise_no_doubt(every: int) -> None:
    """Counts that repeat after some number of hours or minutes, as made candles have them, look like hours moved: they tell nothing."""
    assert WEEKLY is not None
    start = parse_instant("2026-01-05")
    times = start + np.arange(84 * 24) * HOUR_US
    times = times[(times - start) % (7 * DAY_US) < 5 * DAY_US]
    close = 1.1 + np.cumsum(np.random.default_rng(3).normal(0, 1e-4, len(times)))
    counted = times // HOUR_US if every < 50 else times // MINUTE_US
    for ticks in (counted % every + 1.0, np.arange(len(times)) % every + 1.0, counted * 2654435761 % 1000 + 1.0):
        assert judge_days(WEEKLY, [Hours(times, close, ticks)]).doubts == ()

"""core.clock_fit: a broker's clock and its history, read off its own candles, against candles whose times are known."""

import itertools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
from core.calendar import FxWeek
from core.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant
from core.clock_fit import Reading, contradictions, fit, lag_readings, stamp_readings, strength, week_readings
from core.interval import Interval
from core.server_clock import ClockRule, ServerClock, dst_bounds_us

DATA = Path(sandbox.__file__).parent / "data"
WEEK_US = 7 * DAY_US


def recorded(name: str, folder: Path = DATA) -> tuple[np.ndarray, np.ndarray]:
    """Return times and closes of a recorded file; times as the file says, whatever clock that is."""
    frame = pl.read_parquet(folder / f"{name}.parquet").sort("ts")
    return frame["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_numpy(), frame["close"].to_numpy()


def open_hours(first: str, last: str) -> list[int]:
    """Return the hours of FX weeks in UTC."""
    whole = Interval.parse(first, last)
    closed = FxWeek().closed(whole)
    hours = np.arange(whole.start, whole.end, HOUR_US)
    for part in closed:
        hours = hours[(hours < part.start) | (hours >= part.end)]
    return [int(us) for us in hours]


@settings(max_examples=8)
@given(st.integers(-10, 13), st.sampled_from(["none", "eu", "us"]), st.integers(2008, 2022))
def test_any_clock_is_found_from_its_week_ends(hours: int, dst: str, year: int) -> None:
    """Two years of hours on any clock of whole hours give a clock that shows the same time in every open hour."""
    truth = ServerClock.fixed(hours * 60, dst)  # type: ignore[arg-type]
    utc = open_hours(f"{year}-01-01", f"{year + 2}-01-01")
    found = fit(week_readings(np.array([truth.from_utc_us(us) for us in utc])))
    assert found is not None
    assert found.unexplained == ()
    assert [found.clock.offset_us(us) for us in utc] == [truth.offset_us(us) for us in utc]


def test_a_change_of_the_rule_is_found_and_dated_to_its_weekend() -> None:
    """A broker that moves from UTC+1/+2 to UTC+2/+3 in one weekend: both rules are found, and the weekend between them."""
    change = parse_instant("2019-03-03")
    truth = ServerClock((ClockRule(0, 60, "eu"), ClockRule(change, 120, "us")))
    utc = open_hours("2017-01-01", "2021-01-01")
    readings = week_readings(np.array([truth.from_utc_us(us) for us in utc]))
    found = fit(readings)
    assert found is not None
    assert [found.clock.offset_us(us) for us in utc] == [truth.offset_us(us) for us in utc]
    wrong = contradictions(ServerClock.fixed(120, "us"), readings)
    assert len(wrong) > 100
    assert max(item.at_us for item in wrong) < change


def test_holidays_that_end_weeks_early_prove_nothing() -> None:
    """Weeks cut short by holidays neither change the rules found nor contradict right ones."""
    truth = ServerClock.fixed(120, "us")
    utc = [us for us in open_hours("2018-01-01", "2020-01-01")
           if not any(part[0] <= us < part[1] for part in (
               (parse_instant("2018-03-30T12:00"), parse_instant("2018-04-01T12:00")),
               (parse_instant("2018-12-21T17:00"), parse_instant("2018-12-23T12:00")),
               (parse_instant("2018-12-28T17:00"), parse_instant("2018-12-30T12:00"))))]
    readings = week_readings(np.array([truth.from_utc_us(us) for us in utc]))
    assert contradictions(truth, readings) == []


def test_too_few_weeks_say_nothing() -> None:
    """Three weekends are no evidence."""
    assert fit(week_readings(np.array(open_hours("2024-01-01", "2024-01-20")))) is None


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([-60, 60, 120, 180]), st.booleans()), min_size=4, max_size=40))
def test_one_week_never_has_two_rules(shown: list[tuple[int, int, bool]]) -> None:
    """Readings that contradict each other, also within one week: the rules found begin one after the other, none at once."""
    readings = [Reading(parse_instant("2019-01-04T22:00") + week * WEEK_US, minutes * MINUTE_US, hard) for week, minutes, hard in shown]
    found = fit(readings)
    assert found is not None
    since = [rule.since_us for rule in found.clock.rules]
    assert all(left < right for left, right in itertools.pairwise(since))


@settings(max_examples=20)
@given(st.sampled_from(["none", "eu", "us"]), st.integers(-10, 12), st.lists(st.integers(0, 100), min_size=8, max_size=40, unique=True))
def test_orders_that_tell_both_clocks_show_the_rule(dst: str, hours: int, weeks: list[int]) -> None:
    """Orders of two years at any times, stamped to the second by both clocks: the offset of each week that has one is found."""
    truth = ServerClock.fixed(hours * 60, dst)  # type: ignore[arg-type]
    at = [parse_instant("2021-01-04T00:00:07") + (week * 7 + week % 5) * DAY_US for week in weeks]
    readings = stamp_readings([(us, truth.from_utc_us(us)) for us in at])
    found = fit(readings)
    assert found is not None
    assert [found.clock.offset_us(us) for us in at] == [truth.offset_us(us) for us in at]
    told = strength(readings)
    assert (told["strength"], told["proved_by"]) == ("strong", ["order stamp"])


def test_a_monday_after_a_change_is_of_the_new_week() -> None:
    """Orders of a Friday, and of the Sunday evening and Monday after Europe's change: each is a reading of its own week's end."""
    friday, sunday, monday = (parse_instant(text) for text in ("2021-03-26T20:59", "2021-03-28T21:05", "2021-03-29T00:10"))
    readings = stamp_readings([(friday, friday + 2 * HOUR_US), (sunday, sunday + 3 * HOUR_US), (monday, monday + 3 * HOUR_US)])
    ends = [parse_instant("2021-03-26T21:00"), parse_instant("2021-04-02T21:00")]
    assert [(item.at_us, item.offset_us) for item in readings] == [(ends[0], 2 * HOUR_US), (ends[1], 3 * HOUR_US)]


def test_a_stamp_that_slipped_says_nothing() -> None:
    """A stamp seven minutes off any quarter of an hour, or a day away, is no reading."""
    at = parse_instant("2021-06-02T09:00")
    assert stamp_readings([(at, at + 2 * HOUR_US + 7 * MINUTE_US), (at, at + 25 * HOUR_US)]) == []
    assert [item.offset_us for item in stamp_readings([(at, at + 2 * HOUR_US), (at + 60, at + 2 * HOUR_US)])] == [2 * HOUR_US]


def test_a_recorded_brokers_clock_is_found_with_its_change() -> None:
    """The recorded MT5 file ran on UTC+1/+2 until late 2014 and on UTC+2/+3 since: found from week ends and correlation.

    On UTC then: no hour doubled, none off its order; week by week the returns move with a UTC reference at lag 0, around
    every change of summer time too; and in the years without a reference weeks end on Friday 17:00 New York.
    """
    local, close = recorded("mt5_GBPUSD_H1_brokertime")
    utc, reference = recorded("oanda_EURUSD_H1")
    ends, lags = week_readings(local), lag_readings(local, close, utc, reference)
    found = fit([*ends, *lags])
    assert found is not None
    rules = found.clock.rules
    assert (rules[-1].offset_minutes, rules[-1].dst) == (120, "eu")
    assert (rules[-2].offset_minutes, rules[-2].dst) == (60, "eu")
    assert "2014-11" <= str(np.datetime64(rules[-1].since_us, "us"))[:7] <= "2015-01"
    turned = np.array([found.clock.to_utc_us(int(us)) for us in local])
    assert (np.diff(turned) > 0).all()
    assert (turned % HOUR_US == 0).all()
    known = turned > parse_instant("2013-03-24")
    still = lag_readings(turned[known], close[known], utc, reference)
    assert len(still) > 150
    odd = [str(np.datetime64(item.at_us, "us"))[:10] for item in still if item.offset_us]
    assert odd == ["2013-06-14"]  # one week of the file itself, far from any change
    for year in range(2013, 2019):
        for rule in ("eu", "us"):
            for bound in dst_bounds_us(rule, year):
                assert not [item for item in still if abs(item.at_us - bound) < 2 * WEEK_US and item.offset_us]
    late = week_readings(turned[turned > parse_instant("2015-01-01")])
    assert sum(item.offset_us == 0 for item in late) > 0.97 * len(late) > 350
    assert contradictions(found.clock, [*ends, *lags]) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mt5_AUDUSD_H1_brokertime", "mt5_USDJPY_H1_brokertime"])
def test_other_pairs_of_the_server_show_the_same_clock(name: str) -> None:
    """The Australian dollar and the yen, each alone, give the pound's two rules and its weekend of change; no hour is doubled on UTC."""
    local, close = recorded(name, Path(__file__).parent / "data")
    utc, reference = recorded("oanda_EURUSD_H1")
    found = fit([*week_readings(local), *lag_readings(local, close, utc, reference)])
    assert found is not None
    assert [(rule.offset_minutes, rule.dst) for rule in found.clock.rules] == [(60, "eu"), (120, "eu")]
    assert str(np.datetime64(found.clock.rules[-1].since_us, "us"))[:10] == "2014-11-22"
    turned = np.array([found.clock.to_utc_us(int(us)) for us in local])
    assert (np.diff(turned) > 0).all()
    still = [item for item in lag_readings(turned, close, utc, reference) if item.offset_us]
    assert len(still) <= 2  # single weeks of the files, months away from any change
    bounds = [bound for year in range(2013, 2019) for rule in ("eu", "us") for bound in dst_bounds_us(rule, year)]
    assert not [item for item in still if any(abs(item.at_us - bound) < 2 * WEEK_US for bound in bounds)]


def test_a_fixed_offset_is_contradicted_by_the_recorded_weeks() -> None:
    """UTC+2/+3 for all time, the usual guess, is refuted by the weeks of 2013 and 2014 and by no later one."""
    local, close = recorded("mt5_GBPUSD_H1_brokertime")
    utc, reference = recorded("oanda_EURUSD_H1")
    wrong = contradictions(ServerClock.fixed(120, "eu"), [*week_readings(local), *lag_readings(local, close, utc, reference)])
    assert len(wrong) > 80
    assert max(item.at_us for item in wrong) < parse_instant("2015-01-01")


def test_gold_is_told_by_its_moves_alone() -> None:
    """Gold's week ends at hours of its own; its moves against the euro still show one clock, on UTC+2/+3, through all years."""
    local, close = recorded("mt5_XAUUSD_H1_brokertime")
    utc, reference = recorded("oanda_EURUSD_H1")
    found = fit(lag_readings(local, close, utc, reference))
    assert found is not None
    assert [(rule.offset_minutes, rule.dst) for rule in found.clock.rules] == [(120, "eu")]

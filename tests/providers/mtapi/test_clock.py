"""The broker's wall clock: measuring, inferring, holding it to its rule, and turning bars to UTC."""

from __future__ import annotations

from functools import cache

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import FxWeek
from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, to_datetime
from core.errors import BadPayloadError, ClockSkewError, InputError
from core.interval import Interval
from core.server_clock import ClockRule, ServerClock
from providers.mtapi.candles import local_range, to_utc
from providers.mtapi.clock import Measured, agree, changes, from_config, infer, measure, rule_of, verify, week_ends
from providers.mtapi.parse import LOCAL_SCHEMA
from tests.providers.mtapi.bridge import at

CLOCKS = st.builds(ServerClock.fixed, st.sampled_from([-300, 0, 60, 120, 180, 330]), st.sampled_from(["none", "eu", "us"]))
INSTANTS = st.integers(at("2005-01-01T00:00"), at("2030-01-01T00:00"))


def bars(local: list[int]) -> pl.DataFrame:
    """Return bars at these wall-clock readings."""
    rows = {"local_us": local, **{name: [float(n) for n in range(len(local))] for name in list(LOCAL_SCHEMA)[1:]}}
    return pl.DataFrame(rows, schema=LOCAL_SCHEMA)


@given(CLOCKS, INSTANTS, st.integers(1, 60), st.sampled_from([MINUTE_US * 15, HOUR_US, HOUR_US * 24]), st.booleans())
def test_bars_come_back_to_the_instant_they_left(clock, start, count, step, backwards):
    """UTC to wall clock to UTC is the identity for a whole run of bars, across any change, in either order."""
    start = start // HOUR_US * HOUR_US
    instants = [start + n * step for n in range(count)]
    if any(at < start + step * 2 and at > start - 2 * HOUR_US for at, *_ in changes(clock, start - DAY_US, start + DAY_US)):
        instants = [start + n * step for n in range(-24, count)]  # a run that begins inside the doubled hour is the next test's
    local = [clock.from_utc_us(us) for us in instants]
    if step > HOUR_US and len(set(local)) < len(local):
        return
    found = to_utc(bars(local[::-1] if backwards else local), clock)
    turned = found["ts"].dt.epoch("us").to_list()
    ends_in_doubled = any(before > after and at + after <= local[-1] < at + before for at, before, after in changes(
        clock, instants[0] - DAY_US, instants[-1] + DAY_US))
    if ends_in_doubled or step > HOUR_US:
        assert [clock.from_utc_us(us) for us in turned] == local
    else:
        assert turned == instants


@given(CLOCKS, INSTANTS)
def test_a_single_bar_is_read_as_core_reads_it(clock, instant):
    """One reading alone gives the same instant as ServerClock.to_utc_us, outside skipped hours."""
    local = clock.from_utc_us(instant // MINUTE_US * MINUTE_US)
    assert to_utc(bars([local]), clock)["ts"].dt.epoch("us").to_list() == [clock.to_utc_us(local)]


@given(CLOCKS, INSTANTS, st.integers(0, 40 * 24))
def test_the_range_asked_holds_every_instant(clock, start, hours):
    """Whatever the clock does in between, from and to enclose the wall-clock reading of every instant asked."""
    interval = Interval(start, start + hours * HOUR_US)
    low, high = local_range(clock, interval)
    for us in range(interval.start, interval.end, HOUR_US):
        assert low <= clock.from_utc_us(us) <= high


def test_the_skipped_hour_holds_no_bar():
    """A bar at a reading the clock never shows is refused."""
    with pytest.raises(BadPayloadError, match="server_clock"):
        to_utc(bars([at("2021-03-28T03:15")]), ServerClock.fixed(120, "eu"))
    assert to_utc(bars([]), ServerClock.fixed(120, "eu")).is_empty()


def test_a_changed_rule_is_history():
    """A broker that moved keeps its old hours: each candle is read by the rule of its own time."""
    clock = from_config({"server_clock": [{"offset_minutes": 60, "dst": "eu"}, {"since": "2015-01-01", "offset_minutes": 120, "dst": "eu"}]})
    assert clock == ServerClock((ClockRule(0, 60, "eu"), ClockRule(at("2015-01-01T00:00"), 120, "eu")))
    local = [at("2014-12-30T10:00"), at("2015-01-05T10:00")]
    assert to_utc(bars(local), clock)["ts"].to_list() == [to_datetime(at("2014-12-30T09:00")), to_datetime(at("2015-01-05T08:00"))]


@pytest.mark.parametrize("given", [
    [], "EET", {"offset_minutes": 7}, {"offset_minutes": True}, {"offset_minutes": 2000}, {"offset_minutes": 120, "dst": "uk"},
    {"offset": 120}, [{"offset_minutes": 0}, {"offset_minutes": 60}], {"offset_minutes": 0, "since": "x"},
    [{"offset_minutes": 0, "since": "2020-01-01"}, {"offset_minutes": 0, "since": "2019-01-01"}],
])
def test_bad_clock_config_is_an_input_error(given):
    """Every wrong shape of server_clock is told with what is allowed."""
    with pytest.raises(InputError, match="server_clock"):
        from_config({"server_clock": given})
    assert from_config({}) is None


def test_measuring_takes_off_half_the_round_trip():
    """The offset is a quarter hour's multiple; what is left is the server clock's own error."""
    now = at("2021-05-05T10:00")
    reading = now + 2 * SECOND_US + 3 * HOUR_US
    assert measure(reading, now, now + 4 * SECOND_US) == Measured(3 * HOUR_US, 0)
    assert measure(reading + 20 * SECOND_US, now, now + 4 * SECOND_US) == Measured(3 * HOUR_US, 20 * SECOND_US)
    assert measure(now - 30 * MINUTE_US - 5 * HOUR_US, now, now).offset_us == -(5 * HOUR_US + 30 * MINUTE_US)
    for wrong in (7 * MINUTE_US, 20 * HOUR_US, -400 * DAY_US):
        with pytest.raises(ClockSkewError, match="clock"):
            measure(now + wrong, now, now)


def test_witnesses():
    """A zone without or with summer time agrees; an order that knows both times outweighs a zone that does not."""
    measured = Measured(3 * HOUR_US, 0)
    assert agree(measured, None, [])
    assert agree(measured, 3 * HOUR_US, [])
    assert agree(measured, 2 * HOUR_US, [])
    assert not agree(measured, 5 * HOUR_US, [])
    assert agree(measured, 5 * HOUR_US, [3 * HOUR_US + SECOND_US])


def hours_of(clock: ServerClock, start: str, end: str, opens_at_midnight: bool) -> list[int]:
    """Return the wall-clock hours of FX weeks."""
    local = map(clock.from_utc_us, open_hours(start, end))
    return [us for us in local if not (opens_at_midnight and to_datetime(us).weekday() == 6)]


@cache
def open_hours(start: str, end: str) -> list[int]:
    """Return the UTC hours of FX weeks."""
    week = FxWeek()
    return [us for us in range(at(start), at(end), HOUR_US) if not week.closed(Interval(us, us + 1))]


@pytest.mark.parametrize("rule", ["none", "eu", "us"])
@pytest.mark.parametrize("offset", [0, 120, -300])
@pytest.mark.parametrize("opens_at_midnight", [False, True])
@pytest.mark.parametrize(("start", "end"), [("2020-06-01T00:00", "2021-04-20T00:00"), ("2020-12-05T00:00", "2021-10-05T00:00")])
def test_week_ends_tell_the_rule(rule, offset, opens_at_midnight, start, end):
    """Ten months of hours tell EU from US summer time and from none, even where weeks open at server midnight."""
    clock = ServerClock.fixed(offset, rule)
    measured = Measured(clock.offset_us(at(end)), 0)
    assert infer(measured, at(end), hours_of(clock, start, end, opens_at_midnight)) == clock


def test_without_evidence_only_the_likely_is_assumed():
    """UTC stays UTC in winter, UTC+2/+3 follows New York; anything else is for a person to say."""
    summer, winter = at("2021-07-01T00:00"), at("2021-01-05T00:00")
    assert infer(Measured(0, 0), winter, []) == ServerClock.fixed(0)
    assert infer(Measured(3 * HOUR_US, 0), summer, []) == ServerClock.fixed(120, "us")
    assert infer(Measured(2 * HOUR_US, 0), winter, []) == ServerClock.fixed(120, "us")
    for offset, now in ((3 * HOUR_US, winter), (2 * HOUR_US, summer), (0, summer)):
        with pytest.raises(InputError, match="server_clock"):
            infer(Measured(offset, 0), now, [])


@pytest.mark.parametrize(("ends", "rule"), [
    ({}, None), ({"winter": 120, "summer": 120}, None), ({"between": 119}, None), ({"between": 119, "summer": 120}, "eu"),
    ({"between": 120, "summer": 120}, None), ({"between": 120, "winter": 120}, "us"), ({"between": 119, "winter": 120}, None),
    ({"between": 117, "winter": 120, "summer": 120}, None), ({"between": 119, "winter": 120, "summer": 118}, None),
    ({"between": 120, "winter": 120, "summer": 119}, None),
])
def test_thin_or_odd_evidence_decides_nothing(ends, rule):
    """Seasons that are missing or contradict every rule leave the question open."""
    assert rule_of(ends) == rule


def test_holes_in_history_are_no_weekends():
    """Only breaks of a weekend's length count as week ends."""
    assert week_ends([at("2021-01-04T00:00"), at("2021-01-20T00:00")], 0) == {}


def test_a_rule_is_held_to_every_measurement():
    """An hour's difference stops the connection; the minute of a change does not."""
    clock = ServerClock.fixed(120, "eu")
    verify(clock, Measured(2 * HOUR_US, 0), at("2021-03-28T00:59"))
    verify(clock, Measured(3 * HOUR_US, 0), at("2021-03-28T00:59"))
    verify(clock, Measured(2 * HOUR_US, 0), at("2021-03-28T01:01"))
    for now in ("2021-03-28T01:30", "2021-07-01T00:00"):
        with pytest.raises(InputError, match="by its rule"):
            verify(clock, Measured(2 * HOUR_US, 0), at(now))

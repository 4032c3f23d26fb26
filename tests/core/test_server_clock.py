"""core.server_clock: a MetaTrader server's wall clock, both ways, across summer time."""

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from core.clock import HOUR_US, SECOND_US, parse_instant, to_datetime
from core.server_clock import ClockRule, ServerClock, dst_bounds_us

instants = st.integers(parse_instant("2000-01-01"), parse_instant("2037-12-31"))


@given(instants, st.sampled_from(["none", "eu", "us"]), st.integers(-12, 14))
def test_utc_survives_the_round_trip_outside_the_doubled_hour(us: int, dst: str, hours: int) -> None:
    """UTC to wall clock and back is the identity, except in the first pass of the hour that is shown twice."""
    clock = ServerClock.fixed(hours * 60, dst)  # type: ignore[arg-type]
    is_first_pass = clock.offset_us(us) != clock.offset_us(us + HOUR_US)
    is_doubled = is_first_pass and clock.offset_us(us) > clock.offset_us(us + HOUR_US)
    back = clock.to_utc_us(clock.from_utc_us(us))
    assert back == (us + HOUR_US if is_doubled else us)


@given(instants)
def test_the_eu_rule_is_athens_and_the_us_rule_new_york(us: int) -> None:
    """The rules agree with the time zone database (Athens for EU; New York for US since 2007)."""
    moment = to_datetime(us - us % SECOND_US)
    athens = moment.astimezone(ZoneInfo("Europe/Athens")).utcoffset()
    assert athens is not None
    assert ServerClock.fixed(120, "eu").offset_us(us) == athens.total_seconds() * SECOND_US
    if moment.year >= 2007:
        summer = moment.astimezone(ZoneInfo("America/New_York")).dst()
        assert summer is not None
        assert ServerClock.fixed(120, "us").offset_us(us) == 2 * HOUR_US + summer.total_seconds() * SECOND_US


def test_a_rule_holds_from_its_instant_on() -> None:
    """A changed rule changes nothing before it."""
    change = parse_instant("2015-01-01")
    clock = ServerClock((ClockRule(0, 60, "eu"), ClockRule(change, 120, "eu")))
    assert clock.offset_us(change - 1) == HOUR_US
    assert clock.offset_us(change) == 2 * HOUR_US


def test_us_bounds_before_2007() -> None:
    """Until 2006 the US rule began in April and ended in October."""
    start, end = dst_bounds_us("us", 2006)
    assert (to_datetime(start).isoformat(), to_datetime(end).isoformat()) == (
        "2006-04-02T07:00:00+00:00", "2006-10-29T06:00:00+00:00")

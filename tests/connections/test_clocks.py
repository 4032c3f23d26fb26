"""A broker's clock as it is seen: confirmations, changes, the alarm, and health that counts a market's own open time."""

import pytest
from sqlalchemy import select

from connections.clocks import history, is_learned, note_clock, replace_clock, unproved
from connections.health import check_health
from core.calendar import MarketCalendar
from core.clock import HOUR_US, MINUTE_US, parse_instant
from core.errors import ClockRuleError
from core.interval import Interval
from core.server_clock import ServerClock
from providers.base import Priority
from storage.calendars import put_calendar
from storage.listings import put_listing
from storage.metadata.tables import connections, notifications, series

RULES = ServerClock.fixed(120, "eu")


def lines(service):
    with service.lake.metadata.read() as tx:
        return history(tx, "small")


def told(service):
    with service.lake.metadata.read() as tx:
        return list(tx.execute(select(notifications.c.kind).order_by(notifications.c.id)).scalars())


def test_confirmations_are_one_line_and_a_new_offset_another(service, given, clock):
    """The same offset again moves the last sight; another one is another line: that is the clock's history."""
    row = service.create(given())
    for hours in (0, 2, 4, 6):
        with service.lake.metadata.write() as tx:
            note_clock(tx, row, "confirmed", RULES, 2 * HOUR_US, clock.now_us() + hours * HOUR_US)
    (line,) = lines(service)
    assert (line.offset_minutes, line.last_seen_us - line.seen_at_us) == (120, 6 * HOUR_US)
    with service.lake.metadata.write() as tx:
        note_clock(tx, row, "confirmed", RULES, 3 * HOUR_US, clock.now_us() + 8 * HOUR_US)
    assert [line.offset_minutes for line in lines(service)] == [180, 120]


def test_other_rules_are_kept_told_and_known_as_learned(service, given, clock):
    """Replaced rules are in the config, in the history and in a notification; a person's rules are never ours."""
    row = service.create(given())
    with service.lake.metadata.write() as tx:
        replace_clock(tx, row, RULES, "learned", clock.now_us(), {"from_us": 0, "to_us": 10 * HOUR_US})
    assert service.get("small").config["server_clock"] == RULES.as_config()
    assert told(service) == ["clock_learned"]
    assert is_learned(lines(service), RULES)
    assert not is_learned(lines(service), ServerClock.fixed(120, "us"))
    assert unproved(lines(service), RULES, Interval(0, 12 * HOUR_US)) == [Interval(10 * HOUR_US, 12 * HOUR_US)]
    assert unproved(lines(service), ServerClock.fixed(0), Interval(0, HOUR_US)) == [Interval(0, HOUR_US)]


async def test_a_clock_that_breaks_its_rule_raises_one_alarm(service, given, venue):
    """A contradiction at login: nothing can be fetched, people are told once, and the history has it."""
    service.create(given(config={"server_clock": {"offset_minutes": 120, "dst": "us"}}))
    venue.fault = ClockRuleError("server clock", "UTC+2 h now", "UTC+3 h by its rule", "set it")
    for _ in range(3):
        with pytest.raises(ClockRuleError):
            async with service.open_provider("small", Priority.LIVE):
                pass
    assert told(service) == ["clock_changed"]
    (line,) = lines(service)
    assert (line.kind, line.rules) == ("contradicted", [{"offset_minutes": 120, "dst": "us"}])


def test_a_daily_break_and_a_holiday_are_no_staleness_a_frozen_feed_is(service, given, clock):
    """Health counts the symbol's own open time: its break and its holiday raise no alarm, a silent open market does."""
    monday = parse_instant("2024-01-08T21:59Z")
    clock.set(monday - HOUR_US)
    row = service.create(given())
    gold = MarketCalendar.from_spec({
        "base": "fx", "weekly": [{"from": "Mon 17:00", "to": "Mon 20:00", "why": "long break"}],
        "closed": [{"start": "2024-01-09T01:00Z", "end": "2024-01-09T10:00Z", "why": "holiday"}]})
    with service.lake.metadata.write() as tx:
        tx.execute(connections.update().values(type="fx"))
        tx.execute(series.update().values(first_us=0, last_us=monday))
        put_calendar(tx, row.id, "BTC/USD", gold, origin="set", now_us=1)
    assert check_health(service.lake, monday + 2 * HOUR_US)[0].status == "ok"
    with service.lake.metadata.write() as tx:
        tx.execute(series.update().values(last_us=parse_instant("2024-01-09T00:59Z")))
    assert check_health(service.lake, parse_instant("2024-01-09T09:30Z"))[0].status == "ok"
    (late,) = check_health(service.lake, parse_instant("2024-01-09T10:30Z"))
    assert (late.status, late.lag_seconds) == ("stale", 29 * 60.0)


def test_a_delisted_symbol_makes_nobody_stale(service, given, clock):
    """What has left the provider's list is expected no more."""
    row = service.create(given())
    with service.lake.metadata.write() as tx:
        tx.execute(series.update().values(first_us=0, last_us=clock.now_us()))
        put_listing(tx, row.id, "BTC/USD", status="delisted", delisted_us=clock.now_us(), first_seen_us=0, last_seen_us=0)
    assert check_health(service.lake, clock.now_us() + 500 * MINUTE_US)[0].status == "ok"

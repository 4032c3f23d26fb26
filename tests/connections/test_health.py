"""Health of connections as data: stale by open-market time, told once."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from connections.health import (
    BACKOFF_MAX,
    backoff_seconds,
    check_health,
    counts_as_failure,
    is_ready,
    read_health,
    record_failure,
)
from core.clock import HOUR_US, MINUTE_US, parse_instant
from core.errors import (
    CredentialsRefusedError,
    LeaseHeldError,
    NetworkError,
    RateLimitedError,
    StoreBusyError,
    StoreFullError,
    UnknownSymbolError,
)
from core.interval import Interval
from storage.ledger import Gap, book_gaps
from storage.metadata.tables import connections, notifications, series
from storage.series import list_series

FRIDAY_CLOSE = parse_instant("2024-01-05T22:00Z")


@pytest.fixture
def lake(service):
    return service.lake


def _last(service, us):
    with service.lake.metadata.write() as tx:
        tx.execute(series.update().values(first_us=0, last_us=us))


def _kinds(lake):
    with lake.metadata.read() as tx:
        return list(tx.execute(select(notifications.c.kind).order_by(notifications.c.id)).scalars())


def test_stale_is_told_once_and_fresh_once(service, lake, given, clock):
    """A crypto series without a new candle for long is stale: one notification, then one when it has caught up."""
    service.create(given())
    now = clock.now_us()
    _last(service, now - 2 * MINUTE_US)
    (row,) = check_health(lake, now)
    assert (row.status, row.last_candle_us, row.lag_seconds) == ("ok", now - 2 * MINUTE_US, 0.0)
    for _ in range(3):
        (row,) = check_health(lake, now + 3 * HOUR_US)
        assert (row.slug, row.status) == ("small", "stale")
        assert "BTC/USD 1m" in row.reason
        assert row.lag_seconds == 3 * 3600.0  # since the next candle closed
    assert _kinds(lake) == ["stale"]
    _last(service, now + 3 * HOUR_US)
    assert check_health(lake, now + 3 * HOUR_US)[0].status == "ok"
    assert check_health(lake, now + 9 * HOUR_US)[0].status == "stale"
    assert _kinds(lake) == ["stale", "fresh", "stale"]


def test_what_is_final_counts_as_no_gap(service, lake, given):
    """Health counts the booked ranges that are still asked for again: a weekend or a proved silence is none of them."""
    service.create(given())
    with lake.metadata.write() as tx:
        (row,) = list_series(tx, "small")
        book_gaps(tx, [
            Gap(row.id, Interval(0, MINUTE_US), "market_closed"),
            Gap(row.id, Interval(5 * MINUTE_US, 6 * MINUTE_US), "provider_empty", next_try_us=HOUR_US),
        ], 1)
    assert [item.gaps for item in read_health(lake, HOUR_US)] == [1]


def test_reading_health_writes_nothing_and_waits_for_no_writer(service, lake, given, clock):
    """Readers see what a check sees, also while somebody writes; they tell nobody: the scheduled check does."""
    service.create(given())
    later = clock.now_us() + 3 * HOUR_US
    with lake.metadata.write():  # a reader that wanted to write would wait here for ever
        (row,) = read_health(lake, later)
    assert row.status == "stale"
    assert _kinds(lake) == []
    assert check_health(lake, later) == [row]
    assert _kinds(lake) == ["stale"]


def test_a_weekend_makes_no_fx_connection_stale(service, lake, given, clock):
    """FX counts open time only: nothing is stale on Sunday morning, and it is an hour after the week has opened."""
    clock.set(FRIDAY_CLOSE - 10 * HOUR_US)
    service.create(given())
    with lake.metadata.write() as tx:
        tx.execute(connections.update().values(type="fx"))
    _last(service, FRIDAY_CLOSE - MINUTE_US)
    assert check_health(lake, FRIDAY_CLOSE + 40 * HOUR_US)[0].status == "ok"
    assert check_health(lake, FRIDAY_CLOSE + 49 * HOUR_US)[0].status == "stale"


def test_states_come_before_staleness(service, lake, given, clock):
    """Inactive, error and failing connections say so, with the reason."""
    service.create(given())
    clock.advance(timedelta(days=1))
    for values, status, word in (
        ({"is_active": False}, "inactive", "off"),
        ({"is_active": True, "status": "error", "status_reason": "login refused"}, "error", "refused"),
    ):
        with lake.metadata.write() as tx:
            tx.execute(connections.update().values(**values))
        (row,) = check_health(lake, clock.now_us())
        assert row.status == status
        assert word in row.reason
    assert _kinds(lake) == []
    _last(service, clock.now_us())
    with lake.metadata.write() as tx:
        tx.execute(connections.update().values(status="active", consecutive_failures=2, last_error="no route"))
    (row,) = check_health(lake, clock.now_us())
    assert (row.status, row.reason) == ("failing", "2 failures in a row: no route")


def test_no_series_is_said(service, lake, given, clock):
    """A connection that keeps no series is fine and says that it has none."""
    service.create(given(symbols=[], timeframes=[]))
    (row,) = check_health(lake, clock.now_us())
    assert (row.status, row.lag_seconds, row.last_candle_us) == ("ok", None, None)
    assert "no series" in row.reason


def test_backoff_grows_to_an_hour():
    """Waits double with jitter up to an hour, and are never shorter than the provider asked for, nor longer than an hour."""
    bounds = [(5 * 2**n / 2, 5 * 2**n) for n in range(9)]
    for failures, (least, most) in enumerate(bounds, 1):
        assert least <= backoff_seconds(failures) <= most
    assert BACKOFF_MAX / 2 <= backoff_seconds(10_000) <= BACKOFF_MAX
    assert backoff_seconds(1, RateLimitedError("slow", retry_after=600)) == 600
    assert backoff_seconds(1, RateLimitedError("slow", retry_after=1e9)) == BACKOFF_MAX


def test_a_failure_noted_by_a_wrong_clock_keeps_nobody_waiting(service, given, clock):
    """Backing off since the clock was a month ahead ends when it is right; a refused login waits for a person whatever the clock says."""
    service.create(given())
    clock.advance(timedelta(days=30))
    record_failure(service, "small", NetworkError("no route"))
    assert not is_ready(service.get("small"), clock.now_us())
    clock.advance(-timedelta(days=30))
    assert is_ready(service.get("small"), clock.now_us())
    record_failure(service, "small", CredentialsRefusedError("no"))
    assert not is_ready(service.get("small"), clock.now_us())


@pytest.mark.parametrize(("error", "counts"), [
    (NetworkError("x"), True), (CredentialsRefusedError("x"), True), (LeaseHeldError("x"), False),
    (StoreBusyError("x"), False), (StoreFullError("x"), False), (UnknownSymbolError("x"), False),
])
def test_what_counts(error, counts):
    """Only what speaks against the connection itself is counted."""
    assert counts_as_failure(error) is counts

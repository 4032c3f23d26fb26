"""storage.ledger.book_gaps: slot by slot the ledger says what a plain dictionary of slots would."""

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import MINUTE_US
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from storage import Lake, open_lake
from storage.ledger import Gap, book_gaps, booked_in, clear_stored, list_gaps
from storage.series import ensure_series

MINUTE = Grid(Timeframe.parse("1m"))


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = open_lake(tmp_path_factory.mktemp("home"))
    with lake.metadata.write() as tx:
        tx.exec_driver_sql(
            "INSERT INTO connections (slug, name, type, provider, config, settings, status, is_active, is_admin_owned,"
            " created_at_us, updated_at_us) VALUES ('c','c','crypto','replay','{}','{}','active',1,1,0,0)")
    yield lake
    lake.close()


spans = st.tuples(st.integers(0, 30), st.integers(1, 8)).map(
    lambda p: Interval(p[0] * MINUTE_US, (p[0] + p[1]) * MINUTE_US))
steps = st.lists(st.one_of(
    st.tuples(st.just("book"), spans, st.sampled_from(["provider_empty", "no_trade", "fetch_failed"])),
    st.tuples(st.just("store"), spans, st.none()),
), max_size=12)
COUNTER = iter(range(10**9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps)
def test_the_ledger_is_a_dictionary_of_slots(lake: Lake, plan) -> None:
    """Cause, attempts and first sight of every slot survive any sequence of bookings and stored candles."""
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        row = ensure_series(tx, number, f"S{next(COUNTER)}", "1m")
    model: dict[int, tuple[str, int, int]] = {}
    for now, (what, span, cause) in enumerate(plan, 1):
        slots = MINUTE.slots(span)
        with lake.metadata.write() as tx:
            if what == "book":
                book_gaps(tx, [Gap(row.id, span, cause, next_try_us=now)], now)
            else:
                clear_stored(tx, row.id, slots, MINUTE)
        for slot in slots:
            before = model.pop(slot, None)
            if what == "book":
                same = before is not None and before[0] == cause
                model[slot] = (cause, before[1] + 1, before[2]) if same else (cause, 1, now)
    with lake.metadata.read() as tx:
        rows = list_gaps(tx, "c", row.series.symbol)
        everything = booked_in(tx, row.id, Interval(0, 10**12))
    assert [g.interval for g in rows] == [g.interval for g in everything]
    assert {s: (g.cause, g.attempts, g.first_seen_us) for g in rows for s in MINUTE.slots(g.interval)} == model
    for left, right in itertools.pairwise(rows):
        assert left.interval.end <= right.interval.start


def test_neighbours_that_say_the_same_are_one_row(lake: Lake) -> None:
    """A long silence booked in one go is one row, however it is cut."""
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        row = ensure_series(tx, number, "JOIN", "1m")
        book_gaps(tx, [Gap(row.id, Interval(0, MINUTE_US), "unknown"),
                       Gap(row.id, Interval(MINUTE_US, 2 * MINUTE_US), "unknown")], 7)
        assert [g.interval for g in booked_in(tx, row.id, Interval(0, 1))] == [Interval(0, 2 * MINUTE_US)]


def test_booked_in_finds_what_reaches_into_the_interval(lake: Lake, tmp_path: Path) -> None:
    """A gap that begins long before the interval and reaches into it is found; one that ended before is not."""
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        row = ensure_series(tx, number, "REACH", "1m")
        book_gaps(tx, [Gap(row.id, Interval(0, 5 * MINUTE_US), "no_trade"),
                       Gap(row.id, Interval(9 * MINUTE_US, 90 * MINUTE_US), "unknown")], 7)
        assert [g.cause for g in booked_in(tx, row.id, Interval(50 * MINUTE_US, 51 * MINUTE_US))] == ["unknown"]
        assert booked_in(tx, row.id, Interval(6 * MINUTE_US, 8 * MINUTE_US)) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(spans, max_size=8), spans, st.integers(1, 4))
def test_a_part_of_the_ledger_is_that_part_of_the_whole(lake: Lake, booked, within, newest) -> None:
    """Gaps of a range, and the newest ones, are those of all gaps that touch it and that begin last."""
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        row = ensure_series(tx, number, f"S{next(COUNTER)}", "1m")
        book_gaps(tx, [Gap(row.id, span, "provider_empty", attempts=attempts) for attempts, span in enumerate(booked, 1)], 1)
    key = ("c", row.series.symbol, "1m")
    with lake.metadata.read() as tx:
        every = list_gaps(tx, *key)
        touching = [gap for gap in every if gap.interval.intersect(within) is not None]
        assert list_gaps(tx, *key, within=within) == touching
        assert list_gaps(tx, *key, newest=newest) == every[-newest:]
        assert list_gaps(tx, *key, within=within, newest=newest) == touching[-newest:]

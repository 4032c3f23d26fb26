"""storage.ledger.coverage: its counts, made without reading candles, are those of a plain count of slots."""

from collections.abc import Iterator
from itertools import count

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.clock import DAY_US, HOUR_US, MINUTE_US, ManualClock, to_datetime
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage import Batch, Lake, open_lake
from storage.coverage import coverage
from storage.ledger import Gap, book_gaps, list_gaps, waiting_since
from storage.metadata.tables import connections
from storage.series import ensure_series
from tests.storage.conftest import START_US, candles

NUMBER = count()
MINUTE = Grid(Timeframe.parse("1m"))
slots = st.sets(st.integers(0, 90), max_size=40)
causes = st.sampled_from(["no_trade", "market_closed", "provider_empty", "unknown"])


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    with open_lake(tmp_path_factory.mktemp("home"), ManualClock(START_US + 10**12)) as opened:
        with opened.metadata.write() as tx:
            tx.execute(connections.insert().values(
                slug="kraken", name="k", type="crypto", provider="ccxt:kraken", config={}, settings={}, status="active",
                is_active=True, is_admin_owned=False, created_at_us=0, updated_at_us=0))
        yield opened


def series_of(lake: Lake, timeframe: str = "1m"):
    with lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        return ensure_series(tx, number, f"S{next(NUMBER)}", timeframe)


def frame(numbers: set[int], price: float = 100.0) -> pl.DataFrame:
    """Return minutes of the given numbers; they cross a month's border, so two partitions."""
    every = candles(START_US, 100, price)
    wanted = [to_datetime(START_US + number * MINUTE_US) for number in numbers]
    return every.filter(pl.col("ts").is_in(pl.Series(wanted, dtype=every.schema["ts"])))


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(in_lake=slots, in_head=slots, booked=st.dictionaries(st.integers(0, 90), causes, max_size=40))
def test_counts_are_those_of_the_slots(lake: Lake, in_lake, in_head, booked) -> None:
    """Candles in the lake, in the head, in both (revised), and any booked gaps: every slot is counted once, by day too."""
    row = series_of(lake)
    if in_lake:
        lake.write([Batch(row.id, frame(in_lake), "rest")], run_id="r1")
        lake.flush([row.id])
    if in_head:
        lake.write([Batch(row.id, frame(in_head, 200.0), "rest")], run_id="r2")
    stored = in_lake | in_head
    gaps = {number: cause for number, cause in booked.items() if number not in stored}
    with lake.metadata.write() as tx:
        book_gaps(tx, [Gap(row.id, Interval(START_US + n * MINUTE_US, START_US + (n + 1) * MINUTE_US), cause)
                       for n, cause in gaps.items()], 1)
    (counted,) = coverage(lake, "kraken", row.series.symbol)
    every = stored | set(gaps)
    expected = max(every) - min(every) + 1 if every else 0
    explained = sum(cause != "unknown" for cause in gaps.values())
    assert (counted.expected, counted.stored, counted.explained, counted.unexplained) == (
        expected, len(stored), explained, expected - len(stored) - explained)
    days = [START_US // DAY_US + number for number in range(-1, 3)]
    by_day = lake.stored_by_day([row.id], Interval(days[0] * DAY_US, (days[-1] + 1) * DAY_US))[row.id]
    assert by_day.tolist() == [sum((START_US + n * MINUTE_US) // DAY_US == day for n in stored) for day in days]
    with lake.metadata.read() as tx:
        listed = list_gaps(tx, "kraken", row.series.symbol)
    assert {s: gap.cause for gap in listed for s in MINUTE.slots(gap.interval)} == {
        START_US + n * MINUTE_US: cause for n, cause in gaps.items()}


def test_days_of_a_brokers_clock_are_counted_one_by_one(lake: Lake) -> None:
    """Days that are 23 or 25 hours long at a change of the clock count as one day each."""
    row = series_of(lake, "1d")
    server = ServerClock.fixed(120, "eu")
    grid = Grid(Timeframe.parse("1d"), server)
    first = grid.floor(START_US)
    last = grid.floor(START_US + 120 * 24 * HOUR_US)
    with lake.metadata.write() as tx:
        book_gaps(tx, [Gap(row.id, Interval(first, last), "no_trade")], 1)
    (counted,) = coverage(lake, "kraken", row.series.symbol, servers={"kraken": server})
    assert counted.expected == counted.explained == len(grid.slots(Interval(first, last)))


def test_what_a_run_left_behind_is_found(lake: Lake) -> None:
    """Only ranges that nobody asked for and that are due wait; the first one is told."""
    row = series_of(lake)
    with lake.metadata.write() as tx:
        book_gaps(tx, [
            Gap(row.id, Interval(0, MINUTE_US), "unknown", attempts=1, next_try_us=5),
            Gap(row.id, Interval(2 * MINUTE_US, 3 * MINUTE_US), "unknown", attempts=0, next_try_us=50),
            Gap(row.id, Interval(4 * MINUTE_US, 5 * MINUTE_US), "unknown", attempts=0, next_try_us=5)], 1)
        assert waiting_since(tx, row.id, 4) is None
        assert waiting_since(tx, row.id, 5) == 4 * MINUTE_US
        assert waiting_since(tx, row.id, 50) == 2 * MINUTE_US


def test_sql_and_python_show_the_same_coverage(lake: Lake) -> None:
    """`lake.coverage()` and SQL's `coverage` are one table, with the counts of the ledger and times in UTC."""
    row = series_of(lake)
    lake.write([Batch(row.id, frame({0, 1, 5}), "rest")], run_id="r1")
    symbol = row.series.symbol
    shown = lake.coverage().filter(pl.col("symbol") == symbol)
    assert shown.rows() == [("kraken", symbol, "1m", to_datetime(START_US), to_datetime(START_US + 5 * MINUTE_US), 6, 3, 0, 3)]
    asked = lake.sql("SELECT * FROM Coverage WHERE symbol = ?", [symbol])
    assert asked.rows() == shown.rows()
    assert asked.columns == shown.columns

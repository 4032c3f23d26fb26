"""Derived timeframes and past views in SQL: right at every anchor, incomplete where parts are missing, never stored."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant, to_datetime, to_us
from core.derive import NEW_YORK_17, derivation, derive, derived_timeframe
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage import Batch
from storage.ledger import Gap
from tests.storage.conftest import candles

KEY = ("kraken", "BTC/USDT")


def parts(slots, start):
    rows = [(to_datetime(start + slot * MINUTE_US), 1.0 + slot, 3.0 + slot, 0.5 + slot, 2.0 + slot, 1.0, None, to_datetime(start + slot)) for slot in sorted(slots)]
    return pl.DataFrame(rows, schema={"ts": pl.Datetime("us", "UTC"), "open": pl.Float64, "high": pl.Float64, "low": pl.Float64,
                                      "close": pl.Float64, "volume": pl.Float64, "spread": pl.Float64, "known_at": pl.Datetime("us", "UTC")}, orient="row")


CLOCKS = st.sampled_from([None, NEW_YORK_17, ServerClock.fixed(120, "eu"), ServerClock.fixed(330), ServerClock.fixed(-300, "us")])


@settings(max_examples=60, deadline=None)
@given(clock=CLOCKS, target=st.sampled_from(["5m", "1h", "2h", "4h", "8h", "1d", "1w", "1mo"]),
       day=st.sampled_from(["2024-03-09", "2024-03-30", "2024-10-26", "2024-11-02", "2024-06-01"]),
       slots=st.sets(st.integers(0, 3 * 1440), min_size=1, max_size=40))
def test_each_part_lies_in_the_candle_that_the_grid_says(clock, target, day, slots) -> None:
    """On any clock, also across its changes: candle by candle what a plain loop over the grid gives."""
    start = parse_instant(day)
    frame = parts(slots, start)
    how = derivation("1m", target, "utc")
    how = type(how)(how.base, how.target, "server", clock)
    grid = Grid(Timeframe.parse(target), clock)
    if clock is not None and target in {"5m", "1h"}:
        grid = Grid(Timeframe.parse(target), clock if clock.rules[0].offset_minutes % 60 else None)
    want = {}
    for row in frame.iter_rows(named=True):
        want.setdefault(grid.floor(to_us(row["ts"])), []).append(row)
    got = derive(frame, how)
    assert got["ts"].dt.epoch("us").to_list() == sorted(want)
    for row in got.iter_rows(named=True):
        rows = want[to_us(row["ts"])]
        assert (row["open"], row["close"], row["parts"]) == (rows[0]["open"], rows[-1]["close"], len(rows))
        assert (row["high"], row["low"], row["volume"]) == (max(r["high"] for r in rows), min(r["low"] for r in rows), len(rows))
        assert row["known_at"] == max(r["known_at"] for r in rows)
        assert row["source"] == "derived"
        close = grid.next(to_us(row["ts"]))
        assert row["parts_expected"] == (close - to_us(row["ts"])) // MINUTE_US
        assert row["is_complete"] == (row["parts"] == row["parts_expected"])


def test_new_york_days_begin_at_five_in_the_afternoon() -> None:
    """At the New York anchor a day opens at 17:00 there, on both sides of both clock changes."""
    start = parse_instant("2024-03-07")
    got = derive(parts(range(0, 6 * 1440, 60), start), derivation("1m", "1d", "new_york"))
    local = [moment.astimezone(ZoneInfo("America/New_York")).hour for moment in got["ts"]]
    assert set(local) == {17}


def test_closed_time_and_proved_silence_are_not_missing() -> None:
    """A candle lacks only parts that are neither stored nor explained."""
    start = parse_instant("2024-06-03")
    frame = parts([*range(60), *range(90, 120), *range(125, 180)], start)
    explained = [Interval(start + 60 * MINUTE_US, start + 90 * MINUTE_US)]
    got = derive(frame, derivation("1m", "1h"), explained)
    assert got["parts_expected"].to_list() == [60, 30, 60]
    assert got["is_complete"].to_list() == [True, True, False]


@pytest.mark.parametrize("wrong", ["7m", "0m", "x", "2d30m", "400d", "5s"])
def test_a_length_that_does_not_divide_a_day_is_refused(wrong) -> None:
    """Seven minutes never meet a day's border: refused in one line."""
    with pytest.raises(InputError, match="timeframe"):
        derived_timeframe(wrong)


def test_a_derived_read_is_marked_and_never_stored(lake, add_series, clock) -> None:
    """The lake derives at reading time; the store holds no series of it, and the marks cannot be written back."""
    series = add_series()
    start = parse_instant("2026-02-02")
    lake.write([Batch(series, candles(start, 600), "rest", gaps=[Gap(series, Interval(start + 600 * MINUTE_US, start + 605 * MINUTE_US), "no_trade")])], run_id="r")
    lake.flush()
    got = lake.candles(*KEY, "4h", derive_from="1m")
    assert got["ts"].to_list() == [datetime(2026, 2, 2, hour, tzinfo=UTC) for hour in (0, 4, 8)]
    assert got["parts"].to_list() == [240, 240, 120]
    assert got["parts_expected"].to_list() == [240, 240, 235]
    assert got["is_complete"].to_list() == [True, True, False]
    assert lake.candles(*KEY, "45m", derive_from="1m")["parts"].sum() == 600
    inside = lake.candles(*KEY, "4h", start=start + HOUR_US, end=start + 9 * HOUR_US, derive_from="1m")
    assert inside["parts"].to_list() == [240, 120]
    with pytest.raises(NotFoundError):
        lake.candles(*KEY, "4h")
    with pytest.raises(InputError, match="source"):
        lake.write([Batch(series, candles(start, 1), "derived")], run_id="r")
    with pytest.raises(InputError, match="server_clock"):
        lake.candles(*KEY, "4h", derive_from="1m", anchor="server")
    sql = lake.sql("SELECT ts, close, parts, anchor FROM derived('kraken', 'BTC/USDT', '4h', anchor := 'new_york') ORDER BY ts")
    assert sql["anchor"].unique().to_list() == ["new_york"]
    assert sql["parts"].sum() == 600
    with pytest.raises(InputError, match="plain texts"):
        lake.sql("FROM derived('kraken', 'BTC/USDT', $frame)", {"frame": "4h"})


def test_sql_reads_the_past_as_the_api_does(lake, add_series, clock) -> None:
    """`candles(..., as_of := t)` is what `lake.candles(as_of=t)` gives, for every t, flushed or not; derived reads too."""
    series = add_series()
    start = parse_instant("2026-02-02")
    moments = []
    for round_ in range(4):
        lake.write([Batch(series, candles(start + round_ * 5 * MINUTE_US, 10, price=100.0 + round_), "rest")], run_id=f"r{round_}")
        moments.append(clock.now_us())
        clock.set(clock.now_us() + DAY_US)
        if round_ % 2:
            lake.flush()
    columns = "ts, open, high, low, close, volume, spread, known_at, source, run_id"
    for moment in [moments[0] - 1, *moments, moments[-1] + 1]:
        want = lake.candles(*KEY, "1m", as_of=moment)
        got = lake.sql(f"SELECT {columns} FROM candles('kraken', 'BTC/USDT', '1m', as_of := $at) ORDER BY ts", {"at": to_datetime(moment)})
        assert got.equals(want)
    assert lake.sql("SELECT count(*) AS n FROM candles('kraken', 'BTC/USDT', '1m')").item() == 25
    early = lake.candles(*KEY, "5m", derive_from="1m", as_of=moments[0])
    assert early["parts"].to_list() == [5, 5]
    assert early["close"].to_list() == [104.0, 109.0]

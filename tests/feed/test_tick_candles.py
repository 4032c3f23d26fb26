"""Candles from ticks: right whatever the order, whole or not given out, equal to a broker's own."""

import random
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import HOUR_US, MINUTE_US, SECOND_US, parse_instant
from core.interval import Interval
from core.ticks import Tick
from core.timeframe import Grid, Timeframe
from feed.stream_ticks import Sieve
from feed.tick_candles import MOST_FORMING, TickCandles, build, candle_frame
from sandbox.sources import BUNDLED

T0 = parse_instant("2024-03-01T10:00Z")
GRID = Grid(Timeframe.parse("1m"))
TICKS = Path(__file__).with_name("data") / "oanda_EURUSD_ticks_20140502_1200.parquet"
PRICES = ["open", "high", "low", "close"]


def trade(at_us, price, size=1.0):
    return Tick("A", T0 + at_us, T0 + at_us, None, None, float(price), size, "buy", str(at_us))


def rows(items):
    return [item.row() for item in items]


@given(st.lists(st.tuples(st.integers(0, 5 * MINUTE_US - 1), st.integers(1, 50), st.integers(0, 9)), max_size=60, unique_by=lambda t: t[0]),
       st.randoms(use_true_random=False))
def test_any_order_gives_what_polars_computes(given_ticks, dice):
    """Shuffled ticks give the candles that grouping them by minute gives: volume exact to the last digit."""
    ticks = [trade(at, price, size / 10) for at, price, size in given_ticks]
    ordered = sorted(ticks, key=lambda tick: tick.ts_us)
    dice.shuffle(ticks)
    builder = TickCandles(GRID, since_us=0)
    assert all(builder.add(tick) for tick in ticks)
    made = candle_frame(rows(builder.flush()))
    frame = pl.DataFrame({"us": [tick.ts_us for tick in ordered], "price": [tick.price for tick in ordered],
                          "tenths": [round(tick.size * 10) for tick in ordered]}, schema={"us": pl.Int64, "price": pl.Float64, "tenths": pl.Int64})
    true = frame.group_by((pl.col("us") // MINUTE_US * MINUTE_US).alias("slot"), maintain_order=True).agg(
        pl.col("price").first().alias("open"), pl.col("price").max().alias("high"), pl.col("price").min().alias("low"),
        pl.col("price").last().alias("close"), pl.col("tenths").sum())
    assert made.select(pl.col("ts").dt.epoch("us"), *PRICES, "volume").rows() == [(*row[:-1], row[-1] / 10) for row in true.rows()]


@given(st.lists(st.tuples(st.integers(0, 12 * MINUTE_US), st.integers(1, 50), st.integers(0, 9)), max_size=60),
       st.lists(st.integers(1, 9), min_size=1, max_size=20))
def test_ticks_in_bulk_are_ticks_one_by_one(given_ticks, sizes):
    """However ticks are cut into batches, and whenever candles are closed in between: the same candles, the same late ticks."""
    ticks = [trade(at, price, size / 10) for at, price, size in given_ticks]
    single, bulk = TickCandles(GRID, since_us=T0), TickCandles(GRID, since_us=T0)
    made, begin = ([], []), 0
    while begin < len(ticks):
        batch = ticks[begin:begin + sizes[begin % len(sizes)]]
        begin += len(batch)
        for tick in batch:
            single.add(tick)
        bulk.add_all(batch)
        now = max(tick.ts_us for tick in batch)
        made[0].extend(rows(single.close(now)))
        made[1].extend(rows(bulk.close(now)))
    made[0].extend(rows(single.flush()))
    made[1].extend(rows(bulk.flush()))
    assert made[0] == made[1]
    assert single.late == bulk.late


@given(st.lists(st.tuples(st.integers(0, 20 * MINUTE_US), st.integers(0, 4 * MINUTE_US), st.integers(1, 50)), max_size=50),
       st.integers(0, 2 * MINUTE_US))
def test_every_tick_is_in_one_candle_or_late(given_ticks, lateness_us):
    """Ticks that come in any order, as late as they like: no candle is given out twice, each is that of the ticks that came in time."""
    arrivals = sorted(given_ticks, key=lambda each: each[0] + each[1])
    builder, taken, out = TickCandles(GRID, lateness_us=lateness_us, since_us=T0), [], []
    for at, delay, price in arrivals:
        tick = trade(at, price)
        if builder.add(tick):
            taken.append(tick)
        out += builder.close(T0 + at + delay)
        assert len(builder._forming) <= MOST_FORMING
    out += builder.close(T0 + HOUR_US)  # the clock alone ends the session's last candle
    assert [item.ts_us for item in out] == sorted({item.ts_us for item in out})
    assert len(taken) + builder.late == len(arrivals)
    assert sum(item.count for item in out) == len(taken)
    for item in out:
        prices = [tick.price for tick in taken if item.ts_us <= tick.ts_us < item.end_us]
        assert (item.high, item.low, item.count) == (max(prices), min(prices), len(prices))


@given(st.data())
def test_ids_that_never_came_are_lost_and_no_others(data):
    """Whatever the order within the time allowed, and however often ticks come again: the holes are the ids that never came."""
    ids = data.draw(st.lists(st.booleans(), min_size=2, max_size=60))
    sent = [0, *(number + 1 for number, has_come in enumerate(ids) if has_come)]
    order = data.draw(st.permutations(sent[1:]))
    again = data.draw(st.lists(st.sampled_from(sent), max_size=10))
    sieve = Sieve(follows=True, lateness_us=SECOND_US)
    ticks = [Tick("A", T0 + number, T0, None, None, 1.0, 1.0, "buy", str(number)) for number in (0, *order, *again)]
    fresh = sieve.news(ticks)
    assert len(fresh) == len(sent)
    assert sieve.repeats == len(again)
    assert sieve.lost(T0 + SECOND_US - 1) == []
    missing = set().union(*(hole.missing for hole in sieve.lost(T0 + SECOND_US)))
    assert missing == set(range(max(sent) + 1)) - set(sent)


@pytest.mark.parametrize("name", ["1m", "5m", "1h", "1d"])
def test_a_sessions_last_candle_needs_no_further_tick(name):
    """After the market's close no tick comes: the clock alone closes the last candle, at its end and the time allowed, not before."""
    grid = Grid(Timeframe.parse(name))
    builder = TickCandles(grid, lateness_us=SECOND_US, since_us=0)
    builder.add(trade(0, 10))
    end = grid.next(grid.floor(T0))
    assert builder.close(end + SECOND_US - 1) == []
    (done,) = builder.close(end + SECOND_US)
    assert (done.ts_us, done.close, done.is_whole) == (grid.floor(T0), 10, True)


def test_a_candle_is_closed_by_the_clock_and_late_ticks_are_counted():
    """Nothing is given out before its end and the lateness; what comes after is late and changes nothing."""
    builder = TickCandles(GRID, lateness_us=SECOND_US, since_us=T0)
    builder.add(trade(0, 10))
    builder.add(trade(30 * SECOND_US, 12))
    assert builder.close(T0 + MINUTE_US) == []
    assert builder.add(trade(59 * SECOND_US, 11))  # in time, behind the clock
    (done,) = builder.close(T0 + MINUTE_US + SECOND_US)
    assert (done.open, done.high, done.low, done.close, done.is_whole) == (10, 12, 10, 11, True)
    assert not builder.add(trade(59 * SECOND_US + 1, 99))
    assert builder.late == 1


def test_what_was_not_heard_in_full_is_not_whole():
    """Begun before we listened, cut by a reconnect, or with ticks lost in it: REST tells that candle, not the stream."""
    builder = TickCandles(GRID, since_us=T0 + 1)
    for minute in range(4):
        builder.add(trade(minute * MINUTE_US + 5, 10))
    builder.lose(Interval(T0 + 2 * MINUTE_US + 1, T0 + 2 * MINUTE_US + 2))
    assert [item.is_whole for item in builder.close(T0 + HOUR_US)] == [False, True, False, True]
    builder.add(trade(2 * HOUR_US, 10))
    builder.restart(None)
    builder.add(trade(2 * HOUR_US + MINUTE_US, 10))
    assert [item.is_whole for item in builder.flush()] == [False, False]


def test_memory_stays_bounded():
    """However far ticks run ahead of the clock, only so many candles form at once."""
    builder = TickCandles(GRID, since_us=0)
    for minute in range(1000):
        builder.add(trade(minute * MINUTE_US, 10))
        builder.close(T0)
    assert len(builder.flush()) <= MOST_FORMING


def test_a_brokers_minutes_equal_those_of_its_own_ticks():
    """Three hours of OANDA's quotes, a payroll Friday, give the bid candles that OANDA published, each price of each minute."""
    quotes = pl.read_parquet(TICKS)
    ticks = [Tick("EURUSD", ts, ts, bid, ask) for ts, bid, ask in quotes.select(pl.col("ts").dt.epoch("us"), "bid", "ask").rows()]
    made = build(ticks, GRID)
    own = pl.read_parquet(BUNDLED / "oanda_EURUSD_M1_201405.parquet").with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC")))
    own = own.filter(pl.col("ts").is_between(made["ts"][0], made["ts"][-1]))
    assert made.height == own.height == 180
    assert made.select("ts", *PRICES).equals(own.select("ts", *PRICES))


@pytest.mark.parametrize("name", ["5m", "1h", "4h", "1d"])
def test_longer_candles_are_those_of_their_minutes(name):
    """Every timeframe built from the ticks is what its minutes add up to."""
    dice = random.Random(5)
    ticks, at = [], T0
    for _ in range(3000):
        at += dice.randrange(1, 40) * SECOND_US
        ticks.append(Tick("A", at, at, None, None, dice.randrange(90, 110) / 10, dice.randrange(1, 50) / 100, "sell", None))
    grid = Grid(Timeframe.parse(name))
    minutes = build(ticks, GRID)
    summed = minutes.group_by(pl.Series([grid.floor(us) for us in minutes["ts"].dt.epoch("us")]).alias("slot"), maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum().round(6))
    made = build(ticks, grid)
    assert made.select(*PRICES, pl.col("volume").round(6)).rows() == summed.select(*PRICES, "volume").rows()

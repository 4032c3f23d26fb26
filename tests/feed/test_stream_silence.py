"""One silent symbol among others that tick: found, subscribed again, booked; thin symbols and weekends raise nothing."""

import logging
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calendar import default_calendar
from core.clock import HOUR_US, MINUTE_US, SECOND_US, parse_instant, to_datetime
from core.interval import Interval
from core.series import Series
from feed.stream_silence import Channel, SilenceWatch
from sandbox.clocks import FastClock
from sandbox.sources import BUNDLED
from storage.series import SeriesRow
from tests.feed.streaming import home, outside, stored_keys, values
from tests.feed.test_stream import Running

GRACE_US = 10 * SECOND_US
FRIDAY = parse_instant("2021-06-18T20:59:30Z")  # half a minute before the week of FX ends in New York
QUIET = parse_instant("2021-06-17T17:05Z")
A, B = Channel("A"), Channel("B")


def watch(market="crypto", timeframes=("1m",)):
    rows = [SeriesRow(number, 1, Series.parse("s", symbol, timeframe), True, None, None, None, None, 0)
            for number, (symbol, timeframe) in enumerate((symbol, timeframe) for symbol in "AB" for timeframe in timeframes)]
    calendar = default_calendar(market)
    return SilenceWatch(rows, {"A": calendar, "B": calendar}, by_symbol=True, grace_us=GRACE_US)


@pytest.mark.slow
async def test_a_silent_symbol_is_subscribed_again_while_others_go_on(tmp_path, caplog):
    """Coinbase drops one of two symbols without a word: it is told, comes back by a socket of its own, and its loss is booked."""
    caplog.set_level(logging.INFO)
    with home(tmp_path, "coinbase", symbols=["BTC/USD", "ETH/USD"]) as place:
        run = Running(place)
        await run.until(lambda: len(run.last) == 2)
        refusal = place.box.faults.add("ws_refuse", place.sockets)  # so it stays silent until this is over
        place.box.faults.add("ws_mute", place.sockets, symbol="ETH-USD", count=1)
        await run.until(lambda: "ETH/USD" in run.state().counts["silent"])
        assert "1 silent: ETH/USD" in run.state().line(place.box.clock.now_us())
        dead = run.last["ETH/USD"] // MINUTE_US * MINUTE_US
        true = place.truth(dead, dead + 2 * MINUTE_US, symbol="ETH/USD")
        await run.until(lambda: values(place.candles(symbol="ETH/USD"), dead, dead + 2 * MINUTE_US).equals(true))
        assert "ETH/USD" in run.state().counts["silent"]
        place.box.faults.remove(refusal)
        await run.until(lambda: not run.state().counts["silent"])
        result = await run.end()
        assert (result.reconnects, place.gaps("BTC/USD")) == (0, [])
        (gap,) = place.gaps("ETH/USD")
        assert (gap.cause, gap.proof["alone"]) == ("stalled", "ETH/USD")
        stored = stored_keys(place.ticks("ETH/USD"))
        ticks = place.true_ticks(min(stored)[0], max(stored)[0], "ETH/USD")
        missing = [tick for tick in ticks if tick not in stored]
        assert missing
        assert outside(missing, [gap]) == []
        assert "ETH/USD speaks again" in caplog.text


@given(st.lists(st.integers(1, 3 * HOUR_US), min_size=1, max_size=30), st.integers(0, 29))
def test_a_thin_symbol_is_asked_about_ever_more_rarely(pauses, place):
    """No pause up to twice the longest one lately seen is looked into; after answers of no trades the patience doubles."""
    seen, now = watch(), parse_instant("2024-01-03T00:00Z")
    seen.begin(now)
    for pause in pauses:
        now += pause
        seen.hear(A, now)
    assert seen.due(now + max(pauses) * 2 - 1) in ([B], [])
    before = seen.of(A).patience_us(GRACE_US)
    assert seen.due(now + before + 1)[:1] == [A]
    seen.of(A).was_quiet(now + before + 1)
    assert A not in seen.due(now + 2 * before)
    assert before <= seen.of(A).patience_us(GRACE_US) <= max(2 * before, 6 * HOUR_US)
    seen.hear(A, now + 3 * before + place)
    assert seen.dead(now + 3 * before + place) == {}


def test_a_busy_symbol_is_looked_into_within_one_timeframe_and_the_grace():
    """With ticks each second both before and after, the bound is the shortest timeframe and the grace, to the tick."""
    seen, now = watch(timeframes=("5m", "1m")), parse_instant("2024-01-03T00:00Z")
    seen.begin(now)
    for _ in range(100):
        now += SECOND_US
        seen.hear(A, now)
        seen.hear(B, now)
    assert seen.due(now + MINUTE_US + GRACE_US) == []
    seen.hear(B, now + MINUTE_US)
    assert seen.due(now + MINUTE_US + GRACE_US + 1) == [A]


def test_a_weekend_raises_nothing_for_any_symbol():
    """From the end of the week until one timeframe and the grace after the next one began no symbol is looked into."""
    seen = watch("fx")
    seen.begin(FRIDAY)
    sunday = parse_instant("2021-06-20T21:00Z")
    for at in range(FRIDAY, sunday + MINUTE_US + GRACE_US, 70 * SECOND_US):
        assert seen.due(at) == []
    assert seen.due(sunday + MINUTE_US + GRACE_US + 1) == [A, B]


def test_a_dead_symbol_is_tried_ever_more_rarely_and_rests_on_weekends():
    """Tries to subscribe a dead symbol wait twice as long each time, a quarter of an hour at most, and none is due in a closed market."""
    seen, now, tries = watch("fx"), parse_instant("2021-06-16T10:00Z"), []
    seen.begin(now)
    seen.of(A).silent_us = now
    for at in range(now, now + 3 * HOUR_US, 10 * SECOND_US):
        if A in seen.due(at):
            tries.append(at)
            seen.of(A).try_again(at, GRACE_US)
    waits = [later - earlier for earlier, later in pairwise(tries)]
    assert waits[0] == MINUTE_US + GRACE_US
    assert waits == sorted(waits)
    assert max(waits) <= HOUR_US // 4
    assert seen.due(parse_instant("2021-06-19T12:00Z")) == []
    assert seen.dead(parse_instant("2021-06-19T12:00Z")) == {}


def quiet_days(folder):
    """A folder with a day of BTC/USD, to be replayed, in which nothing trades from 17:00 to 20:00."""
    day = pl.read_parquet(BUNDLED / "coinbase_BTCUSD_1m.parquet").sort("ts")
    day = day.filter(pl.col("ts").dt.date() == day["ts"].dt.date().mode()[0])
    folder.mkdir()
    day.filter(~pl.col("ts").dt.hour().is_between(17, 19)).write_parquet(folder / "kraken_BTCUSD_1m.parquet")
    return folder


@pytest.mark.slow
async def test_a_quiet_market_brings_its_candles_all_the_same(tmp_path):
    """Minutes without a trade bring no tick: REST is asked for them, once a minute, while nothing else fetches the connection."""
    with home(tmp_path, "kraken", clock=FastClock(QUIET, 60), data=quiet_days(tmp_path / "data")) as place:
        run = Running(place)
        await run.until(lambda: (run.state() or 0) and run.state().state == "live")
        begun = place.box.clock.now_us()
        after = Interval(begun, begun + HOUR_US)
        await run.until(lambda: place.feed.lake.stored_slots(1, after).size >= 4)
        result = await run.end()
        candles = place.candles().filter(pl.col("ts") > to_datetime(begun))
        asked = [item for item in place.box.requests if item.path.endswith("/OHLC") and item.time_us > begun]
        assert (result.ticks, result.reconnects) == (0, 0)
        assert set(candles["volume"]) == {0.0}
        assert len(asked) <= 3 * (place.box.clock.now_us() - begun) // MINUTE_US  # for candles, and whether it is silent

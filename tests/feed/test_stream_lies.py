"""Attempts to make a stream lie: sockets that die unnoticed, ids that come late, ticks of the future."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from core.calendar import AlwaysOpen, default_calendar
from core.clock import DAY_US, MINUTE_US, SECOND_US, parse_instant, to_us
from core.ticks import Tick
from feed.stream_candles import StreamCandles
from feed.stream_ticks import Sieve
from sandbox.clocks import FastClock
from storage.lake.revisions import list_revisions
from storage.series import list_series
from tests.feed.streaming import NOW, home, outside, stored_keys, values
from tests.feed.test_stream import OPTIONS, Running

SLOT = NOW // MINUTE_US * MINUTE_US
LATENESS = SECOND_US


def trade(at_us, number):
    return Tick("BTC/BUSD", at_us, at_us, None, None, 100.0 + number, 1.0, "buy", str(number))


def candles_of(place, calendar):
    """The candles of the place's connection as its stream builds them, heard from half a minute before SLOT on."""
    with place.feed.lake.metadata.read() as tx:
        rows = list_series(tx, "s", only_active=True)
    made = StreamCandles(place.feed, place.feed.leases.acquire("stream:s", 60), "s", rows, "run", LATENESS, {place.symbol: calendar})
    made.begin(SimpleNamespace(server_clock=None), SLOT - 30 * SECOND_US)
    made.add(place.symbol, [trade(SLOT + number * SECOND_US, number) for number in range(1, 40)])
    return made


async def test_a_candle_waits_until_something_was_heard_after_its_end(tmp_path):
    """A dead socket looks like a quiet market: what it left is given out when the session speaks after the candle's end, and not before."""
    late = FastClock(SLOT + 3 * MINUTE_US, 1)
    with home(tmp_path, "binance", clock=late) as place:
        made = candles_of(place, AlwaysOpen())
        assert await made.close(SLOT + MINUTE_US - 1, {}) == []
        assert len(await made.close(SLOT + MINUTE_US + LATENESS, {})) == 1
        assert place.candles()["volume"].to_list() == [39.0]


async def test_the_last_candle_before_a_weekend_needs_no_word_after_it(tmp_path):
    """When the market has closed nobody speaks any more: the session's last candle is given out by the clock."""
    saturday = parse_instant("2021-06-19T12:00Z")
    with home(tmp_path, "binance", clock=FastClock(saturday, 1)) as place:
        made = candles_of(place, default_calendar("fx"))
        assert len(await made.close(SLOT + 40 * SECOND_US, {})) == 1


async def test_a_candle_waits_for_ids_that_may_still_come(tmp_path):
    """A skipped id that may belong to a candle holds it back: it comes and is in it, or its time is lost and REST has the candle."""
    with home(tmp_path, "binance", clock=FastClock(SLOT + 3 * MINUTE_US, 1)) as place:
        sieve, made = Sieve(follows=True, lateness_us=LATENESS), candles_of(place, AlwaysOpen())
        sieve.news([trade(SLOT + 58 * SECOND_US, 58), trade(SLOT + MINUTE_US + 1, 60)])
        assert sieve.open_since == SLOT + 58 * SECOND_US
        heard = SLOT + 2 * MINUTE_US
        assert await made.close(heard, {place.symbol: sieve.open_since}) == []
        made.add(place.symbol, sieve.news([trade(SLOT + 59 * SECOND_US, 59)]))
        assert sieve.open_since is None
        assert len(await made.close(heard, {})) == 1
        assert place.candles()["close"].to_list() == [159.0]


@pytest.mark.slow
async def test_a_socket_that_dies_in_the_middle_of_a_minute_makes_no_wrong_candle(tmp_path):
    """Of a stall in the middle of a minute no candle is stored that REST has to correct."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: len(run.seen) > 0 and 20 < place.box.clock.now_us() % MINUTE_US / SECOND_US < 40)
        place.box.faults.add("ws_stall", place.sockets, count=1)
        begun = place.box.clock.now_us()
        await run.until(lambda: any(gap.cause == "stalled" for gap in place.gaps()))
        after = begun // MINUTE_US * MINUTE_US + 2 * MINUTE_US
        first = begun // MINUTE_US * MINUTE_US - MINUTE_US
        await run.until(lambda: place.box.clock.now_us() > after + MINUTE_US)
        true = place.truth(first, after)
        await run.until(lambda: values(place.candles(), first, after).equals(true))
        await run.end()
        with place.feed.lake.metadata.read() as tx:
            assert list_revisions(tx, "s", None, None, 100) == []


async def test_ticks_of_the_future_end_the_session_and_are_not_kept(tmp_path):
    """A tick an hour ahead of the venue's clock is no tick: the session ends, its time is booked, and the stream recovers."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: run.ticks > 5)
        fault = place.box.faults.add("clock_skew", place.sockets, seconds=3600)
        await run.until(lambda: any(gap.cause == "disconnected" for gap in place.gaps()) or "ahead" in (run.state().message or ""))
        place.box.faults.remove(fault)
        before = run.ticks
        await run.until(lambda: run.ticks > before + 5)
        result = await run.end()
        assert result.reconnects > 0
        assert any(gap.cause == "disconnected" for gap in place.gaps())
        assert to_us(place.ticks()["ts"][-1]) < place.box.clock.now_us() + DAY_US // 48


@pytest.mark.parametrize("end", ["the socket breaks", "the stream is stopped"])
async def test_ids_that_were_skipped_right_before_the_end_are_booked(tmp_path, end):
    """Trades that a venue dropped are lost though the session, or the stream, ends before the time in which they may still come is over."""
    patient = replace(OPTIONS, lateness_seconds=3600.0, allowance_seconds=1.0)
    with home(tmp_path, "binance") as place:
        run = Running(place, patient)
        await run.until(lambda: run.ticks > 5)
        lost = place.box.faults.add("ws_lose", place.sockets, count=100)
        await run.until(lambda: lost.hits >= 100)
        before = run.ticks
        await run.until(lambda: run.ticks > before + 5)
        assert {gap.cause for gap in place.gaps()} <= {"not_streaming"}
        if end == "the socket breaks":
            place.box.faults.add("ws_drop", place.sockets, count=1)
            await run.until(lambda: run.state().counts["reconnects"] > 0)
            again = run.ticks
            await run.until(lambda: run.ticks > again + 5)
        await run.end()
        stored = stored_keys(place.ticks())
        missing = [tick for tick in place.true_ticks(min(stored)[0], max(stored)[0]) if tick not in stored]
        assert missing
        assert outside(missing, place.gaps()) == []


@pytest.mark.slow
async def test_a_venue_that_is_late_makes_no_short_candle_and_no_silent_loss(tmp_path):
    """Ticks that come a minute after their event are in their candles all the same, and a break loses none without booking it."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: len(run.seen) > 0)
        place.box.faults.add("ws_late", place.sockets, seconds=70, count=1)
        begun = place.box.clock.now_us()
        await run.until(lambda: place.box.clock.now_us() > begun + 6 * MINUTE_US)
        place.box.faults.add("ws_drop", place.sockets, count=1)
        await run.until(lambda: run.state().counts["reconnects"] > 0)
        before = run.ticks
        await run.until(lambda: run.ticks > before + 20)
        await run.end()
        with place.feed.lake.metadata.read() as tx:
            assert list_revisions(tx, "s", None, None, 100) == []
        stored = stored_keys(place.ticks())
        true = place.true_ticks(min(stored)[0], max(stored)[0])
        assert outside([tick for tick in true if tick not in stored], place.gaps()) == []


async def test_a_venue_whose_clock_is_behind_ours_loses_nothing_between_two_streams_without_a_booking(tmp_path):
    """What is booked as not heard is counted by the venue's clock, as its ticks are."""
    with home(tmp_path, "binance") as place:
        place.box.faults.add("clock_skew", "*", seconds=-120)
        for _ in range(2):
            run = Running(place)
            await run.until(lambda: run.ticks > 20)  # noqa: B023  used within its round
            await run.end()
        stored = stored_keys(place.ticks())
        shifted = [(us - 120 * SECOND_US, number) for us, number in
                   place.true_ticks(min(stored)[0] + 120 * SECOND_US, max(stored)[0] + 120 * SECOND_US)]
        missing = [tick for tick in shifted if tick not in stored]
        assert missing
        assert outside(missing, place.gaps()) == []


@pytest.mark.slow
async def test_quotes_that_a_bridge_drops_in_silence_are_found_by_the_brokers_candles(tmp_path):
    """Quotes have no ids: where the broker counts more in a minute than was heard, that minute is booked as lost."""
    with home(tmp_path, "mt5", speed=30) as place:
        run = Running(place)
        await run.until(lambda: len(run.seen) > 0)
        place.box.faults.add("ws_lose", place.sockets, count=60)
        await run.until(lambda: any(gap.cause == "unheard" for gap in place.gaps()))
        result = await run.end()
        stored = stored_keys(place.ticks())
        until_us = max(gap.interval.end for gap in place.gaps() if gap.cause == "unheard")
        missing = [tick for tick in place.true_ticks(min(stored)[0], until_us - 1) if tick not in stored]
        assert missing
        assert outside(missing, place.gaps()) == []
        assert result.contradicted > 0
        assert result.reconnects == 0

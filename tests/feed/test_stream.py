"""The stream of a connection, from the sandbox's sockets to the lake."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.clock import HOUR_US, MINUTE_US, SECOND_US, parse_instant, to_us
from core.errors import InputError, LeaseHeldError, PermanentError
from core.interval import Interval
from core.series import Series
from feed.stream import StreamOptions, Subscribers, stream
from feed.stream_ticks import Sieve
from feed.ticks import backfill_ticks
from sandbox.clocks import FastClock
from storage.lake.revisions import list_revisions
from storage.ticks.states import read_states
from tests.feed.streaming import NOW, home, outside, stored_keys, until, values

# At sixty times the speed of life a tenth of a second is six: what waits in life waits longer here.
OPTIONS = StreamOptions(lateness_seconds=10, grace_seconds=60, allowance_seconds=15, confirm_seconds=0.2, backoff_seconds=0.05,
                        beat_seconds=0.2)
WORKER = Path(__file__).with_name("stream_worker.py")


class Running:
    """A stream that runs as a task; `seen` are its candles, `ticks` how many ticks its subscriber got, `last` each symbol's newest instant."""

    def __init__(self, place, options=OPTIONS):
        self.stop, self.seen, self.ticks, self.last = asyncio.Event(), [], 0, {}
        self.place = place
        told = Subscribers(self._ticks, self.seen.extend)
        self.task = asyncio.create_task(stream(place.feed, "s", stop=self.stop, options=options, subscribers=told))

    def _ticks(self, ticks):
        self.ticks += len(ticks)
        self.last |= {tick.symbol: tick.ts_us for tick in ticks}

    async def until(self, condition):
        await until(lambda: self.task.done() or condition())
        if self.task.done():
            await self.task

    def state(self):
        with self.place.feed.lake.metadata.read() as tx:
            return next(iter(read_states(tx, "s")), None)

    async def end(self):
        self.stop.set()
        return await self.task


async def test_candles_come_early_and_rest_agrees(tmp_path):
    """Candles built from ticks are stored before REST is asked, equal the source's, and ticks lie in the lake in order."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: (run.state() or 0) and run.state().counts["agreed"] >= 2)
        result = await run.end()
        ticks = place.ticks()
        assert run.ticks == result.ticks == ticks.height > 20
        assert ticks["ts"].is_sorted()
        assert "stream" in place.candles()["source"].to_list()
        streamed = [batch.candles for batch in run.seen]
        first, last = to_us(streamed[0]["ts"][0]), to_us(streamed[-1]["ts"][-1]) + MINUTE_US
        assert values(place.candles(), first, last).equals(place.truth(first, last))
        assert run.state().state == "stopped"
        assert gc.get_freeze_count() == 0  # what a stream set aside from the garbage collector is given back
        assert place.feed.lake.verify().problems == []


@pytest.mark.slow
async def test_a_second_stream_of_a_connection_waits_for_none(tmp_path):
    """While one run streams a connection another one is told so, at once."""
    with home(tmp_path, "binance", speed=4.0) as place:  # a lease counts by this clock: at sixty times its minute is a second
        run = Running(place)
        await run.until(lambda: run.ticks > 0)
        async with asyncio.timeout(60):
            with pytest.raises(LeaseHeldError):
                await stream(place.feed, "s", stop=asyncio.Event())
        await run.end()


@pytest.mark.slow
async def test_time_between_two_streams_is_booked_and_history_heals_it(tmp_path):
    """What nobody heard is one range with its cause; ids that skip within a session are another."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: run.ticks > 20)
        place.box.faults.add("ws_lose", place.sockets, count=40)
        await run.until(lambda: any(gap.cause == "sequence" for gap in place.gaps()))
        await run.end()
        again = Running(place)
        await again.until(lambda: again.ticks > 10)
        await again.end()
        gaps, ticks = place.gaps(), place.ticks()
        assert {gap.cause for gap in gaps} == {"sequence", "not_streaming"}
        stored = stored_keys(ticks)
        true = place.true_ticks(min(stored)[0], max(stored)[0])
        assert outside([tick for tick in true if tick not in stored], gaps) == []


async def test_a_silent_socket_is_found_and_left(tmp_path):
    """Connected, silent, and the market trades: found within one timeframe and the grace; the silence is booked as lost."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: run.ticks > 5)
        place.box.faults.add("ws_stall", place.sockets, count=1)
        begun = place.box.clock.now_us()
        await run.until(lambda: any(gap.cause == "stalled" for gap in place.gaps()))
        await run.end()
        gap = next(gap for gap in place.gaps() if gap.cause == "stalled")
        slack = round(OPTIONS.allowance_seconds * 2 * SECOND_US) + 2 * MINUTE_US  # two seconds of ours to connect again
        assert gap.interval.end - begun < MINUTE_US + round(OPTIONS.grace_seconds * SECOND_US) + slack + HOUR_US // 10


async def test_a_weekend_raises_nothing(tmp_path):
    """While the market is closed the stream rests: no socket, no fault, no loss."""
    saturday = parse_instant("2021-06-19T12:00Z")
    with home(tmp_path, "mt5", speed=600, clock=FastClock(saturday, 600)) as place:
        run = Running(place)
        await run.until(lambda: run.state() is not None and run.state().state == "closed")
        result = await run.end()
        assert (result.reconnects, result.losses, place.gaps()) == (0, 0, [])
        assert not any("Subscribe" in asked.path for asked in place.box.requests)


def revisions(place):
    """Return the newest revisions of the connection."""
    with place.feed.lake.metadata.read() as tx:
        return list_revisions(tx, "s", None, None, 100)


@pytest.mark.slow
async def test_what_rest_contradicts_is_a_revision(tmp_path):
    """REST has the last word: a streamed candle that it tells otherwise is kept as a revision, old value and new."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: len(run.seen) > 0)
        place.box.faults.add("late_revision", "*klines*", since=NOW / SECOND_US)
        # Of a candle that REST told first, on a busy machine, the stream's value is never stored and becomes no revision.
        await run.until(lambda: any(item.old["source"] == "stream" for item in revisions(place)))
        await run.end()
        assert run.state().counts["contradicted"] > 0


@pytest.mark.slow
async def test_a_follower_sees_each_stored_candle(tmp_path):
    """Whoever follows a series gets its new candles as they are stored, each once."""
    with home(tmp_path, "binance") as place:
        run = Running(place)
        await run.until(lambda: len(run.seen) > 0)
        seen = []
        async with asyncio.timeout(60):
            async for frame in place.feed.lake.follow(Series.parse("s", place.symbol, "1m")):
                seen += frame["ts"].to_list()
                if len(seen) >= 2:
                    break
        await run.end()
        assert seen == sorted(set(seen))


@pytest.mark.slow
async def test_what_people_change_of_a_connection_takes_effect_while_it_streams(tmp_path):
    """A symbol that is added streams within seconds, those that were there go on; a connection that is switched off ends its stream well."""
    with home(tmp_path, "kraken") as place:
        run = Running(place)
        await run.until(lambda: run.ticks > 5)
        place.feed.connections.update("s", symbols=["BTC/USD", "ETH/USD"])
        await run.until(lambda: set(run.last) == {"BTC/USD", "ETH/USD"})
        before = run.last["BTC/USD"]
        await run.until(lambda: run.last["BTC/USD"] > before)
        place.feed.connections.deactivate("s")
        result = await run.task
        assert (result.reconnects, run.state().state) == (0, "stopped")
        assert "switched off" in result.message
        stored = stored_keys(place.ticks("BTC/USD"))
        assert len(stored) + place.ticks("ETH/USD").height == run.ticks == result.ticks
        true = place.true_ticks(min(stored)[0], max(stored)[0])
        assert outside([tick for tick in true if tick not in stored], place.gaps("BTC/USD")) == []


async def test_nothing_to_stream_is_said(tmp_path):
    """A connection without series, or switched off, is one line that says what to do."""
    with home(tmp_path, "binance") as place:
        place.feed.connections.deactivate("s")
        with pytest.raises(InputError, match="activate"):
            await stream(place.feed, "s", stop=asyncio.Event())


async def test_history_of_ticks_is_stored_once_and_heals(tmp_path):
    """Recorded trades come page by page, a second time nothing is new, and losses inside the range are healed."""
    with home(tmp_path, "binance", clock=FastClock(parse_instant("2024-08-09T01:00Z"), 1)) as place:
        span = Interval(parse_instant("2024-08-08T23:59Z"), parse_instant("2024-08-09T00:00Z"))
        place.feed.connections.update("s", symbols=["BTC/USDT"], timeframes=["1h"])
        first = await backfill_ticks(place.feed, "s", "BTC/USDT", span)
        again = await backfill_ticks(place.feed, "s", "BTC/USDT", span)
        ticks = place.feed.lake.ticks("s", "BTC/USDT")
        assert ticks.height == first.stored > 100
        assert (again.stored, again.known) == (0, first.stored + first.known)
        assert ticks["trade_id"].n_unique() == ticks.height


def test_ids_that_come_late_are_no_loss():
    """A skipped id that comes within the time allowed fills its hole; one that does not is a loss."""
    from core.ticks import Tick

    sieve = Sieve(follows=True, lateness_us=1000)
    ticks = [Tick("A", 10 * number, 10 * number, None, None, 1.0, 1.0, "buy", str(number)) for number in range(10)]
    for number in (0, 1, 3, 2, 2, 4, 7):
        sieve.is_new(ticks[number])
    assert sieve.lost(1069) == []
    (hole,) = sieve.lost(2000)
    assert (hole.missing, hole.span, sieve.repeats) == ({5, 6}, Interval(40, 70), 1)


def started(tmp_path, place):
    """Start a process that streams the place's connection."""
    env = {**os.environ, "PYTHONPATH": str(WORKER.resolve().parents[2])}
    return subprocess.Popen([sys.executable, str(WORKER), str(tmp_path), str(place.box.clock.now_us())], stdout=subprocess.PIPE, text=True,
                            env=env)


@pytest.mark.parametrize("is_killed", [True, False])
async def test_a_connection_that_streams_is_not_deleted(tmp_path, is_killed):
    """While a process streams it, deleting is refused, purge or not; once that was killed, or has ended because it was switched off, a purge leaves no tick."""
    with home(tmp_path, "binance", speed=1, clock=FastClock(NOW, 1)) as place:
        place.box.set(load_rate=500.0)
        connections, store, journal = place.feed.connections, place.feed.lake.tick_store, place.feed.lake.root / ".journal" / "s"
        worker = started(tmp_path, place)
        await asyncio.to_thread(worker.stdout.readline)
        await until(lambda: store.count_journalled("s") > 0)
        for purge in (False, True):
            with pytest.raises(PermanentError, match=r"s is streamed now.*deactivate it"):
                connections.delete("s", purge=purge)
        assert connections.get("s").is_active
        if is_killed:
            worker.send_signal(signal.SIGKILL)
        else:
            connections.deactivate("s")
        await asyncio.to_thread(worker.communicate)
        assert bool(list(journal.iterdir())) is is_killed
        with pytest.raises(PermanentError, match=r"[1-9]\d* ticks"):
            connections.delete("s")
        connections.delete("s", purge=True)
        assert not journal.exists()
        assert store.flush().segments == 0
        assert list((tmp_path / "home" / "lake" / "ticks").rglob("*.parquet")) == []


@pytest.mark.slow
async def test_a_killed_stream_books_what_it_lost(tmp_path):
    """After kill -9 the next run knows since when ticks are missing: each one that is not stored lies in a booked range."""
    with home(tmp_path, "binance", speed=1, clock=FastClock(NOW, 1)) as place:
        place.box.set(load_rate=500.0)
        for lines in (5, 150):
            worker = started(tmp_path, place)
            for _ in range(lines):
                await asyncio.to_thread(worker.stdout.readline)
            worker.send_signal(signal.SIGKILL)
            worker.communicate()
        run = Running(place, StreamOptions())
        await run.until(lambda: run.ticks > 500)
        await run.end()
        stored, gaps = stored_keys(place.ticks()), place.gaps()
        assert sum(gap.cause == "killed" for gap in gaps) == 2
        first, last = min(stored), max(stored)
        missing = [(number * SECOND_US // 500, str(number)) for number in range(int(first[1]), int(last[1]) + 1)]
        milliseconds = {(ts // 1000, named) for ts, named in stored}
        assert outside([tick for tick in missing if (tick[0] // 1000, tick[1]) not in milliseconds], gaps) == []

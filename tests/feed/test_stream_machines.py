"""Two machines, one connection, one PostgreSQL: one of them streams, and the other takes over when it stops or dies."""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from contextlib import contextmanager

import pytest
from sqlalchemy import NullPool, create_engine, make_url

from connections.leases import Leases
from core.clock import MINUTE_US, SystemClock, to_datetime, to_us
from core.settings import settings
from feed.fetch import fetch
from feed.stream import Subscribers, stream
from storage.lake.revisions import list_revisions
from storage.ticks.states import read_states
from tests.feed import stream_machine
from tests.feed.streaming import home, outside, stored_keys, until, values


class Machine:
    """A process with a host name of its own; `said` is what it told: (what, ticks or text, when)."""

    def __init__(self, context, name, folder, store, clock):
        self.name, self.said = name, []
        ours, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=stream_machine.run, args=(name, folder, store, clock, theirs))
        self.process.start()
        theirs.close()
        self._listener = threading.Thread(target=self._listen, args=(ours,), daemon=True)
        self._listener.start()

    def _listen(self, pipe):
        with pipe:
            try:
                while True:
                    self.said.append(pipe.recv())
            except EOFError:
                return

    def told(self, what):
        """What it said of one kind."""
        return [content for kind, content, _ in self.said if kind == what]

    def ticks(self, what):
        return [tick for batch in self.told(what) for tick in batch]

    async def until(self, what, count=1):
        """Wait until it has said something so often."""
        await until(lambda: len(self.told(what)) >= count or self.told("forbidden") or not self._listener.is_alive(), 90)
        if self.told("forbidden"):
            pytest.skip("no process here may have a host name of its own")
        assert len(self.told(what)) >= count, self.said[-3:]

    def signal(self, number):
        os.kill(self.process.pid, number)

    async def ended(self):
        """Wait for its end, and return its exit code."""
        await asyncio.to_thread(self.process.join, 60)
        await asyncio.to_thread(self._listener.join, 10)
        return self.process.exitcode


@contextmanager
def machines(folder, store, clock):
    """Make machines by name; those that still run at the end are ended."""
    context, made = multiprocessing.get_context("forkserver"), []
    context.set_forkserver_preload(["tests.feed.stream_machine"])

    def make(name):
        made.append(Machine(context, name, folder, store, clock))
        return made[-1]

    try:
        yield make
    finally:
        for machine in made:
            machine.process.kill()
            machine.process.join()


@pytest.fixture
def shared_store(postgres_url, monkeypatch):
    """PostgreSQL as the metadata store of this process and those that it starts."""
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", postgres_url)
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_stream_moves_from_machine_to_machine_and_leaves_no_wrong_candle_and_no_silent_loss(tmp_path, shared_store, postgres_url):
    """The second waits while the first streams; takes over from one that stands still, and that one stores nothing more; and from a dead one."""
    with home(tmp_path, "binance", speed=30) as place, machines(tmp_path, postgres_url, place.box.clock) as machine:
        place.feed.leases = Leases(place.feed.lake.metadata, SystemClock())  # as the machines' count
        first = machine("first")
        await first.until("durable", 3)
        second = machine("second")
        await second.until("held", 3)
        await first.until("durable", 25)
        assert second.ticks("heard") == []
        assert "first:" in second.told("held")[0]  # the holder's host name

        first.signal(signal.SIGSTOP)
        await second.until("durable", 10)
        stood = len(first.said)
        taken_us = place.box.clock.now_us()
        first.signal(signal.SIGCONT)
        await first.until("lost")
        assert await first.ended() == 0
        assert [what for what, _, _ in first.said[stood:] if what not in {"heard", "lost"}] == []
        assert "took over" in first.told("lost")[0]
        assert _state(place) == ("second", "live")
        await second.until("durable", 30)

        second.signal(signal.SIGKILL)
        await second.ended()
        third = machine("third")
        await third.until("held")  # a death on another machine shows only when its lease has run out
        await third.until("durable", 10)
        assert _state(place) == ("third", "live")
        third.signal(signal.SIGTERM)
        await third.until("ended")
        assert await third.ended() == 0

        ticks, gaps = place.ticks(), place.gaps()
        stored, last = stored_keys(ticks), to_us(ticks["ts"][-1])
        await until_fetched(place)
        durable = {tick for worker in (first, second, third) for tick in worker.ticks("durable")}
        assert durable <= stored
        assert ticks["trade_id"].n_unique() == ticks.height  # two machines stored none twice
        assert ticks.filter((ticks["run_id"] == "first") & (ticks["received_at"] > to_datetime(taken_us))).is_empty()
        missing = [tick for tick in place.true_ticks(min(stored)[0], last) if tick not in stored]
        logging.getLogger(__name__).info("%d ticks stored, %d not, in %s", len(stored), len(missing), [(gap.cause, gap.interval) for gap in gaps])
        assert missing
        assert outside(missing, gaps) == []
        assert [gap.cause for gap in gaps].count("killed") == 2
        assert gaps[0].interval.start > first.ticks("durable")[0][0]  # what the one that stood still had on disk is not told as lost
        candles = place.candles()
        start, end = to_us(candles["ts"][0]), last // MINUTE_US * MINUTE_US
        assert values(candles, start, end).equals(place.truth(start, end))
        assert candles.filter((candles["run_id"] == "first") & (candles["known_at"] > to_datetime(taken_us))).is_empty()
        with place.feed.lake.metadata.read() as tx:
            assert list_revisions(tx, "s", None, None, 100) == []  # no candle was ever stored otherwise
        assert place.feed.lake.verify().problems == []


@pytest.mark.slow
async def test_a_metadata_store_that_is_away_for_a_while_ends_no_stream(tmp_path, shared_store, postgres_server, postgres_url):
    """A PostgreSQL that restarts, or is moved: the stream waits for it and goes on, and what it did not store lies in a booked range."""
    with home(tmp_path, "binance", speed=30) as place:
        stop, heard, durable = asyncio.Event(), [], []
        told = Subscribers(heard.extend, durable=durable.extend)
        run = asyncio.create_task(stream(place.feed, "s", stop=stop, options=stream_machine.OPTIONS, subscribers=told))
        await until(lambda: run.done() or len(durable) > 20)
        with nobody_lets_in(postgres_server, postgres_url):
            await asyncio.sleep(4)
            assert not run.done()
        reached, again_us = len(durable), place.box.clock.now_us()
        await until(lambda: run.done() or len(durable) > reached + 20)
        await until(lambda: run.done() or _heartbeat(place) > again_us)
        assert _state(place)[1] == "live"
        stop.set()
        await run
        await until_fetched(place)
        ticks = place.ticks()
        stored, last = stored_keys(ticks), to_us(ticks["ts"][-1])
        assert {(tick.ts_us, tick.trade_id) for tick in durable} <= stored
        assert outside([tick for tick in place.true_ticks(min(stored)[0], last) if tick not in stored], place.gaps()) == []
        candles = place.candles()
        start, end = to_us(candles["ts"][0]), last // MINUTE_US * MINUTE_US
        assert values(candles, start, end).equals(place.truth(start, end))


@contextmanager
def nobody_lets_in(server, url):
    """A database that has thrown everybody out and lets nobody in, as one that restarts."""
    name, engine = make_url(url).database, create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as tx:
        tx.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        tx.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            yield
        finally:
            tx.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def _heartbeat(place):
    with place.feed.lake.metadata.read() as tx:
        return read_states(tx, "s")[0].heartbeat_us


def _state(place):
    with place.feed.lake.metadata.read() as tx:
        (state,) = read_states(tx, "s")
    return state.run_id, state.state


async def until_fetched(place):
    """Fetch by REST; a machine that died while it did so leaves its lease of the fetch for a minute."""
    for _ in range(90):
        result = await fetch(place.feed, ["s"], due_only=False)
        if result.status == "complete" and not result.only_skipped:
            return
        await asyncio.sleep(1)
    raise AssertionError(result.message)

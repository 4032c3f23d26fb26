"""A stream that is killed again and again, at any moment: `CANDLELAKE_TEST_STREAM_KILLS=200` does it two hundred times."""

import asyncio
import logging
import multiprocessing
import os
import random
import time
from dataclasses import replace

import pytest

from core.clock import MINUTE_US, to_us
from feed.fetch import fetch
from feed.stream import stream
from storage.lake.revisions import list_revisions
from tests.feed import stream_kill_worker as worker
from tests.feed.streaming import home, outside, stored_keys, until, values

KILLS = int(os.environ.get("CANDLELAKE_TEST_STREAM_KILLS", "2"))
SEED = int(os.environ.get("CANDLELAKE_TEST_STREAM_SEED", "11"))


def forks():
    """Processes that begin in a moment: forked from one that has imported everything and runs no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.feed.stream_kill_worker"])
    return context


def round_of(context, folder, clock, dice):
    """Run the worker and kill it: half of the times while it starts, else while it streams.

    Returns:
        What it had told: (heard or durable, ticks as (instant, id), seconds before the kill), batch by batch.
    """
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=worker.run, args=(folder, clock, theirs))
    process.start()
    theirs.close()
    said = []
    if dice.random() < 0.5:
        process.join(dice.uniform(0.0, 1.5))
    else:
        assert ours.poll(60), "the stream never began"
        process.join(dice.uniform(0.0, 1.0))
    assert process.exitcode is None, "the stream ended by itself"
    process.kill()
    killed = time.monotonic()
    process.join()
    try:
        while True:
            kind, ticks, at = ours.recv()
            said.append((kind, ticks, killed - at))
    except EOFError:
        pass
    ours.close()
    process.close()
    return said


@pytest.mark.slow
async def test_ids_that_were_skipped_right_before_a_kill_are_booked(tmp_path):
    """Trades that a venue dropped, still waited for when the process was killed, are found by their ids in what it had stored."""
    patient, context = replace(worker.OPTIONS, lateness_seconds=3600.0, allowance_seconds=1.0), forks()
    with home(tmp_path, "binance") as place:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=worker.run, args=(tmp_path, place.box.clock, theirs, patient))
        process.start()
        theirs.close()

        def durable(count):
            while count > 0:
                kind, ticks, _ = ours.recv()
                count -= len(ticks) if kind == "durable" else 0

        await asyncio.to_thread(durable, 6)
        lost = place.box.faults.add("ws_lose", place.sockets, count=100)
        await until(lambda: lost.hits >= 100)
        await asyncio.to_thread(durable, 6)
        process.kill()
        process.join()
        assert {gap.cause for gap in place.gaps()} <= {"not_streaming"}
        for _ in range(2):
            stop, ticks = asyncio.Event(), []
            run = asyncio.create_task(stream(place.feed, "s", stop=stop, options=worker.OPTIONS, subscribers=worker.Subscribers(ticks.extend)))
            await until(lambda: run.done() or len(ticks) > 5)  # noqa: B023  used within its round
            stop.set()
            await run
        stored, gaps = stored_keys(place.ticks()), place.gaps()
        missing = [tick for tick in place.true_ticks(min(stored)[0], max(stored)[0]) if tick not in stored]
        assert outside(missing, gaps) == []
        assert [gap.cause for gap in gaps].count("sequence") == 1  # found once, not again by the next stream


@pytest.mark.slow
@pytest.mark.timeout(300 + KILLS * 15)
async def test_kills_at_any_moment_leave_no_wrong_candle_and_no_silent_loss(tmp_path, record_property):
    """After every kill: no candle ever differs from the source's, what was durable is there, what is not lies in a booked range."""
    dice, context, begun = random.Random(SEED), forks(), time.monotonic()
    with home(tmp_path, "binance") as place:
        rounds = [await asyncio.to_thread(round_of, context, tmp_path, place.box.clock, dice) for _ in range(KILLS)]
        pace = (time.monotonic() - begun) / KILLS
        stop, ticks = asyncio.Event(), []
        run = asyncio.create_task(stream(place.feed, "s", stop=stop, options=worker.OPTIONS, subscribers=worker.Subscribers(ticks.extend)))
        await until(lambda: run.done() or len(ticks) > 20)
        stop.set()
        await run
        last = to_us(place.ticks()["ts"][-1])
        for _ in range(5):
            if (await fetch(place.feed, ["s"], due_only=False)).status == "complete":
                break
        stored, gaps = stored_keys(place.ticks()), place.gaps()
        killed = sum(gap.cause == "killed" for gap in gaps)
        live = sum(bool(said) for said in rounds)
        heard = [(tick, age) for said in rounds for kind, ticks, age in said for tick in ticks if kind == "heard"]
        durable = {tick for said in rounds for kind, ticks, _ in said for tick in ticks if kind == "durable"}
        oldest_lost = max((age for tick, age in heard if tick not in stored), default=0.0)
        saw = (f"{KILLS} kills, {live} of live streams, {pace:.2f} s each; {len(heard)} ticks heard, "
               f"{sum(tick not in stored for tick, _ in heard)} of them lost, the oldest {oldest_lost:.3f} s before its kill; "
               f"{killed} ranges booked as killed")
        record_property("saw", saw)
        logging.getLogger(__name__).info(saw)
        assert live <= killed <= KILLS
        assert durable <= stored  # what was told to be on disk outlives every kill
        assert outside([tick for tick in place.true_ticks(min(stored)[0], last) if tick not in stored], gaps) == []
        assert outside([tick for tick, _ in heard if tick not in stored and tick[0] >= min(stored)[0]], gaps) == []
        candles = place.candles()
        first, end = to_us(candles["ts"][0]), last // MINUTE_US * MINUTE_US
        assert values(candles, first, end).equals(place.truth(first, end))
        with place.feed.lake.metadata.read() as tx:
            assert list_revisions(tx, "s", None, None, 100) == []  # no candle was ever stored otherwise
        assert place.feed.lake.verify().problems == []

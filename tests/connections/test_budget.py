"""The rate budget: shared by real processes, live work first, nothing left behind by those who give up."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from connections.budget import PENALTY_MAX, Places, StoredBudget
from core.clock import SECOND_US, SystemClock
from core.errors import InputError
from providers.base import Priority
from storage.metadata.tables import rate_budgets

ROOT = Path(__file__).resolve().parents[2]
RATE = 20.0
SPEND = """
import asyncio, sys
from connections.budget import StoredBudget
from core.clock import SystemClock
from providers.base import Priority
from storage.metadata.store import open_metadata
url, rate, count, priority = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Priority[sys.argv[4]]
clock = SystemClock()
async def main():
    budget = StoredBudget(open_metadata(url), "venue", rate, 4, priority, clock)
    async def one():
        async with budget.spend():
            print(clock.now_us(), flush=True)
    sys.stdin.readline()
    await asyncio.gather(*(one() for _ in range(count)))
asyncio.run(main())
"""


def _spenders(url, *parts):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [subprocess.Popen([sys.executable, "-c", SPEND, url, str(RATE), str(count), priority.name], env=env, text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE) for count, priority in parts]


def _budget(store, rate=1000.0, concurrent=4, priority=Priority.LIVE):
    return StoredBudget(store, "venue", rate, concurrent, priority, SystemClock())


def _row(store):
    with store.read() as tx:
        return tx.execute(select(rate_budgets)).mappings().one()


@pytest.mark.slow
def test_processes_together_stay_below_the_rate(metadata_store, metadata_url):
    """Three processes spend as fast as they may: their slots, put together, never come faster than the rate."""
    workers = _spenders(metadata_url, (12, Priority.LIVE), (12, Priority.BACKFILL), (12, Priority.REPAIR))
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    times = sorted(int(line) for worker in workers for line in worker.communicate(timeout=120)[0].split())
    assert len(times) == 36
    # A slot is taken in the store, its body runs a little later: over the whole run the delays do not add up.
    slack_us = SECOND_US // 4
    for width in (10, 20, 35):
        least = width / RATE * SECOND_US - slack_us
        assert all(times[i + width] - times[i] >= least for i in range(len(times) - width))


@pytest.mark.slow
def test_live_work_does_not_wait_for_a_queue_of_backfills(metadata_store, metadata_url):
    """Live requests that come while backfills queue up for seconds all get through before most of the queue."""
    backfill, live = _spenders(metadata_url, (60, Priority.BACKFILL), (5, Priority.LIVE))
    backfill.stdin.write("go\n")
    backfill.stdin.flush()
    early = [int(backfill.stdout.readline()) for _ in range(3)]
    live_times = [int(line) for line in live.communicate("go\n", timeout=120)[0].split()]
    late = [int(line) for line in backfill.communicate(timeout=120)[0].split()]
    assert len(early + late) == 60
    between = [us for us in late if live_times[0] < us < live_times[-1]]
    assert len(between) <= 1
    assert sum(us > live_times[-1] for us in late) >= 20


async def test_a_cancelled_waiter_leaves_nothing(metadata_store):
    """A hundred waiters that give up move no slot and keep no place: the next one goes on in its turn."""
    budget = _budget(metadata_store, rate=2.0, concurrent=2)
    async with budget.spend():
        pass
    before = _row(metadata_store)["next_free_us"]

    async def wait():
        async with budget.spend():
            pytest.fail("no slot was free")

    waiters = [asyncio.create_task(wait()) for _ in range(100)]
    await asyncio.sleep(0.1)
    for waiter in waiters:
        waiter.cancel()
    done = await asyncio.gather(*waiters, return_exceptions=True)
    assert all(isinstance(item, asyncio.CancelledError) for item in done)
    assert _row(metadata_store)["next_free_us"] == before
    async with asyncio.timeout(60), budget.spend(), budget.spend():
        pass


async def test_an_error_in_the_body_gives_the_place_back(metadata_store):
    """A request that fails frees its place."""
    budget = _budget(metadata_store, concurrent=1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with budget.spend():
                raise RuntimeError
    async with asyncio.timeout(60), budget.spend():
        pass


async def test_places_are_shared_by_budgets_of_one_key(metadata_store):
    """Two budgets of one key in one process keep one limit of requests under way."""
    most = now = 0

    async def one(budget):
        nonlocal most, now
        async with budget.spend():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.02)
            now -= 1

    budgets = [_budget(metadata_store, concurrent=2), _budget(metadata_store, concurrent=2, priority=Priority.BACKFILL)]
    await asyncio.gather(*(one(budget) for budget in budgets for _ in range(5)))
    assert most == 2


async def test_a_penalty_holds_for_all_and_is_capped(metadata_store):
    """After penalise nobody spends until its end, the longest one counts, and an absurd one is cut to an hour."""
    one, two = _budget(metadata_store), _budget(metadata_store, priority=Priority.BACKFILL)
    clock = SystemClock()
    until = clock.now_us() + SECOND_US // 2
    await one.penalise(0.5)
    await two.penalise(0.1)
    async with asyncio.timeout(60), two.spend():
        assert clock.now_us() >= until
    await one.penalise(1e9)
    assert _row(metadata_store)["blocked_until_us"] <= clock.now_us() + PENALTY_MAX * SECOND_US
    await one.penalise(-5)


async def test_a_clock_that_was_set_back_does_not_block(metadata_store):
    """Slots that lie absurdly far ahead, from before the clock was set back, do not count."""
    ahead = SystemClock().now_us() + 100_000 * SECOND_US
    with metadata_store.write() as tx:
        tx.execute(rate_budgets.insert().values(
            key="venue", next_free_us=ahead, blocked_until_us=ahead, live_until_us=ahead))
    async with asyncio.timeout(60), _budget(metadata_store, priority=Priority.BACKFILL).spend():
        pass


async def test_weights_count(metadata_store):
    """A request of weight 10 moves the next slot by ten requests' time."""
    budget = _budget(metadata_store, rate=100.0)
    async with budget.spend(10):
        pass
    assert _row(metadata_store)["next_free_us"] - SystemClock().now_us() > 0.05 * SECOND_US


def test_a_rate_of_nothing_is_refused(metadata_store):
    """A budget that lets nothing through is an InputError, not a hang."""
    for rate, concurrent in ((0, 1), (-1, 1), (1, 0)):
        with pytest.raises(InputError):
            _budget(metadata_store, rate=rate, concurrent=concurrent)


async def test_places_go_to_the_most_urgent():
    """Of those that wait, live comes before repair before backfill; one that was cancelled after its turn hands it on."""
    places = Places(1)
    await places.take(Priority.LIVE)
    order = []

    async def one(priority):
        await places.take(priority)
        order.append(priority)

    tasks = [asyncio.create_task(one(p)) for p in (Priority.BACKFILL, Priority.REPAIR, Priority.LIVE, Priority.LIVE)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    await asyncio.sleep(0)
    places.give_back()
    tasks[2].cancel()  # its turn has come already: it passes on
    for _ in range(2):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        places.give_back()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [Priority.REPAIR, Priority.BACKFILL]

"""Leases on both databases: one holder at a time, expiry by the clock, tokens that grow, stopped holders that notice."""

import asyncio
import os
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from connections.leases import Leases
from core.clock import LATEST_US, ManualClock, SystemClock
from core.errors import LeaseHeldError, StoreBusyError
from storage.metadata.tables import leases as table

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import asyncio, sys
from connections.leases import Leases
from core.clock import SystemClock
from core.errors import LeaseHeldError, StoreBusyError
from storage.metadata.store import open_metadata
async def main():
    leases = Leases(open_metadata(sys.argv[1]), SystemClock())
    try:
        async with leases.hold("job", seconds=1) as lease:
            print("held", lease.token, flush=True)
            await asyncio.sleep(60)
    except LeaseHeldError as error:
        print("lost", flush=True)
asyncio.run(main())
"""


@pytest.fixture
def holder(metadata_store, metadata_url):
    """Another process that holds the lease `job` for a second at a time; its token."""
    worker = subprocess.Popen([sys.executable, "-c", HOLD, metadata_url], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
    word, token = worker.stdout.readline().split()
    assert word == "held"
    yield worker, int(token)
    worker.kill()
    worker.wait()
    worker.stdout.close()


async def _acquire_when_free(leases, name):
    while True:
        try:
            return leases.acquire(name, 5)
        except LeaseHeldError as error:
            await asyncio.sleep(min(error.retry_after, 0.1))


def test_one_holder_and_growing_tokens(metadata_store):
    """A held lease is refused with who holds it and until when; after release and expiry the token grows."""
    clock = ManualClock(1_700_000_000_000_000)
    leases = Leases(metadata_store, clock)
    first = leases.acquire("job", 60)
    with pytest.raises(LeaseHeldError, match=r"job.*2023-11-14") as caught:
        leases.acquire("job", 60)
    assert caught.value.retry_after == 60
    leases.acquire("other", 60)
    leases.release(first)
    second = leases.acquire("job", 60)
    clock.advance(timedelta(seconds=61))
    third = leases.acquire("job", 60)
    assert first.token < second.token < third.token
    leases.release(second)  # not his any more: changes nothing
    third.renew()
    with pytest.raises(LeaseHeldError, match="took over"):
        second.renew()
    assert second.is_lost


def test_a_lease_of_a_clock_that_was_wrong_holds_nobody_up(metadata_store):
    """Taken while the clock was years ahead by a machine that is no more: once the clock is right another run takes it, under a greater token."""
    clock = ManualClock(1_700_000_000_000_000)
    leases = Leases(metadata_store, clock)
    clock.advance(timedelta(days=400))
    first = leases.acquire("job", 60)
    clock.advance(-timedelta(days=400))
    assert leases.acquire("job", 60).token == first.token + 1
    with pytest.raises(LeaseHeldError):
        leases.acquire("job", 60)
    with pytest.raises(LeaseHeldError):
        first.renew()


def test_a_lease_nobody_took_is_renewed_late(metadata_store):
    """Run out but untouched is still ours: the token proves that nobody was in between."""
    clock = ManualClock(1_700_000_000_000_000)
    leases = Leases(metadata_store, clock)
    lease = leases.acquire("job", 1)
    clock.advance(timedelta(seconds=100))
    lease.renew()
    with pytest.raises(LeaseHeldError):
        leases.acquire("job", 1)


def test_fencing_inside_a_transaction(metadata_store):
    """A holder that lost its lease finds out in the very transaction it wants to write in."""
    clock = ManualClock(1_700_000_000_000_000)
    leases = Leases(metadata_store, clock)
    lease = leases.acquire("job", 1)
    with metadata_store.write() as tx:
        lease.check(tx)
    clock.advance(timedelta(seconds=2))
    leases.acquire("job", 1)
    with metadata_store.write() as tx, pytest.raises(LeaseHeldError):
        lease.check(tx)


def test_long_names_fit(metadata_store):
    """Names longer than the column are shortened without meeting each other."""
    leases = Leases(metadata_store, SystemClock())
    leases.acquire("x" * 300 + "a", 60)
    leases.acquire("x" * 300 + "b", 60)
    with pytest.raises(LeaseHeldError):
        leases.acquire("x" * 300 + "a", 60)


async def test_hold_renews_itself_and_gives_back(metadata_store):
    """A body longer than the lease keeps it; afterwards it is free at once, also when the body failed."""
    leases = Leases(metadata_store, SystemClock())

    async def body():
        async with leases.hold("job", seconds=0.6):
            await asyncio.sleep(1.5)
            with pytest.raises(LeaseHeldError):
                leases.acquire("job", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await body()
    async with leases.hold("job", seconds=60) as lease:
        assert lease.token == 2


async def test_cancelling_the_body_is_a_cancellation(metadata_store):
    """A cancelled holder is cancelled, not told that it lost the lease, and the lease is free."""
    leases = Leases(metadata_store, SystemClock())

    async def body():
        async with leases.hold("job", seconds=60):
            await asyncio.sleep(60)

    task = asyncio.create_task(body())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leases.acquire("job", 1)


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_at_the_end_of_the_body_is_one(metadata_store, turns):
    """A holder that is cancelled just when its body has ended and the renewal is being ended is cancelled all the same."""
    leases, loop = Leases(metadata_store, SystemClock()), asyncio.get_running_loop()

    def later(left, task):
        if left == 0:
            task.cancel()
        else:
            loop.call_soon(later, left - 1, task)

    async def body():
        async with leases.hold("job", seconds=60):
            await asyncio.sleep(0.1)
            later(turns, asyncio.current_task())
        await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(body(), 20)


async def test_a_busy_store_is_asked_again(metadata_store):
    """A renewal that the store had no time for is tried again; the body goes on with its lease and ends well."""

    class Moody(Leases):
        async def _renew(self, lease, every, body):
            renew, answers = lease.renew, iter([StoreBusyError("the store is busy")])

            def once():
                for error in answers:
                    raise error
                renew()

            lease.renew = once
            await super()._renew(lease, every, body)

    leases = Moody(metadata_store, SystemClock())
    async with leases.hold("job", seconds=1.2) as lease:
        await asyncio.sleep(2)
        with pytest.raises(LeaseHeldError):
            leases.acquire("job", 1)
    assert not lease.is_lost


async def test_a_killed_holder_of_this_machine_loses_it_at_once(metadata_store, holder):
    """After kill -9 of the holder the lease is free, with a greater token, however long it had to run."""
    worker, token = holder
    leases = Leases(metadata_store, SystemClock())
    with pytest.raises(LeaseHeldError):
        leases.acquire("job", 5)
    with metadata_store.write() as tx:
        tx.execute(table.update().values(expires_at_us=LATEST_US))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    assert leases.acquire("job", 5).token == token + 1


async def test_a_killed_holder_elsewhere_is_free_after_expiry(metadata_store, holder):
    """The death of a holder on another machine cannot be seen: its lease is held until it runs out."""
    worker, token = holder
    leases = Leases(metadata_store, SystemClock())
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    with metadata_store.write() as tx:
        tx.execute(table.update().values(holder="elsewhere:1:1:abc", expires_at_us=SystemClock().now_us() + 1_000_000))
    with pytest.raises(LeaseHeldError):
        leases.acquire("job", 5)
    lease = await asyncio.wait_for(_acquire_when_free(leases, "job"), 20)
    assert lease.token == token + 1


async def test_a_stopped_holder_finds_its_lease_lost(metadata_store, holder):
    """SIGSTOP past the expiry, another takes over, SIGCONT: the old holder's body ends with LeaseHeldError."""
    worker, token = holder
    worker.send_signal(signal.SIGSTOP)
    leases = Leases(metadata_store, SystemClock())
    lease = await asyncio.wait_for(_acquire_when_free(leases, "job"), 20)
    worker.send_signal(signal.SIGCONT)
    assert (await asyncio.to_thread(worker.stdout.readline)).strip() == "lost"
    lease.renew()
    assert lease.token == token + 1

"""Leases: who works on what, so that no two runs fetch one connection at once.

A lease runs out by the clock when its holder dies; a holder that was a process of this machine and is seen to be dead
loses it at once. Each new holder gets a greater token; a holder that was stopped for longer than its lease finds that it
is lost as soon as it renews or checks.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select

from core.clock import HOUR_US, SECOND_US, Clock, has_come, isoformat
from core.errors import CandlelakeError, LeaseHeldError
from storage.metadata.store import MetadataStore
from storage.metadata.tables import leases
from storage.statements import insert_into

log = logging.getLogger(__name__)
NAME_MAX: Final = 200
PROC: Final = Path("/proc")
LONGEST_US: Final = HOUR_US  # nobody holds a lease for longer without renewing it
RENEWALS: Final = 3  # tries to renew within one lease's length


def _here() -> str:
    """Return this machine and its space of process ids: in containers of one host name the same id is another process."""
    try:
        space = PROC.joinpath("self/ns/pid").readlink().name.strip("pid:[]")
    except OSError:
        space = ""  # no /proc: nobody is ever seen to be dead
    return f"{socket.gethostname()[:50]}:{space}"


def _is_dead(holder: str) -> bool:
    """Whether the holder was a process here and is no more; False when that cannot be told."""
    here = _here()
    place, _, pid = holder.rpartition(":")[0].rpartition(":")
    if place != here or here.endswith(":"):
        return False
    try:
        state = PROC.joinpath(pid, "stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return state in {"Z", "X"}  # killed, and only not yet collected by its parent


class Lease:
    """A lease that is held. `token` is greater than that of every earlier holder of the same name."""

    def __init__(self, owner: Leases, name: str, holder: str, token: int, length_us: int) -> None:
        self.name = name
        self.holder = holder
        self.token = token
        self.is_lost = False
        self._owner = owner
        self._length_us = length_us
        self._until_us = owner.clock.now_us() + length_us

    @property
    def is_overdue(self) -> bool:
        """Whether somebody else may have it, by our clock alone: it was not renewed in time. `renew` tells."""
        return self.is_lost or self._owner.clock.now_us() >= self._until_us

    def renew(self) -> None:
        """Hold the lease for its full length from now on.

        Raises:
            LeaseHeldError: it ran out and somebody else has, or had, it; `is_lost` is set.
        """
        with self._owner.metadata.write() as tx:
            now_us = self._owner.clock.now_us()
            # A lease that ran out but that nobody took is ours still: the token proves that nobody was in between.
            found = tx.execute(leases.update().where(
                leases.c.name == self.name, leases.c.holder == self.holder, leases.c.token == self.token,
            ).values(expires_at_us=now_us + self._length_us))
            if found.rowcount != 1:
                self.is_lost = True
        self.check()
        self._until_us = now_us + self._length_us

    def check(self, tx: Connection | None = None) -> None:
        """Raise LeaseHeldError when the lease is lost; with `tx`, asked of the store inside that transaction (fencing)."""
        if tx is not None:
            token = tx.execute(select(leases.c.token).where(  # locked: nobody takes it over before `tx` has ended
                leases.c.name == self.name, leases.c.holder == self.holder).with_for_update(read=True)).scalar()
            self.is_lost = self.is_lost or token != self.token
        if self.is_lost:
            raise LeaseHeldError(f"the lease of {self.name} ran out and another run took over; this run stops")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run the body in one transaction of the metadata store, which nothing is written in when the lease is lost.

        Raises:
            LeaseHeldError: it is.
        """
        with self._owner.metadata.write() as tx:
            self.check(tx)
            yield tx


class Leases:
    """The leases of one metadata store."""

    def __init__(self, metadata: MetadataStore, clock: Clock) -> None:
        self.metadata = metadata
        self.clock = clock

    def acquire(self, name: str, seconds: float) -> Lease:
        """Take the lease for `seconds`; call `release` or let it run out.

        Raises:
            LeaseHeldError: somebody else holds it; `retry_after` says when it runs out.
        """
        name = name if len(name) <= NAME_MAX else f"{name[:NAME_MAX - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        holder = f"{_here()}:{os.getpid()}:{secrets.token_hex(6)}"
        length_us = round(seconds * SECOND_US)
        with self.metadata.write() as tx:
            # The row is locked before the clock is read: on PostgreSQL we may have waited for another holder.
            tx.execute(insert_into(tx, leases).values(name=name, holder="", token=0, expires_at_us=0).on_conflict_do_nothing())
            row = tx.execute(select(leases).where(leases.c.name == name).with_for_update()).mappings().one()
            now_us = self.clock.now_us()
            if not has_come(row["expires_at_us"], now_us, LONGEST_US) and not _is_dead(row["holder"]):
                wait = (row["expires_at_us"] - now_us) / SECOND_US
                raise LeaseHeldError(
                    f"{name} is being worked on by {row['holder']} until {isoformat(row['expires_at_us'])} at least; "
                    "it is free when that run ends or dies", retry_after=wait)
            token = row["token"] + 1
            tx.execute(leases.update().where(leases.c.name == name).values(
                holder=holder, token=token, expires_at_us=now_us + length_us))
        return Lease(self, name, holder, token, length_us)

    def release(self, lease: Lease) -> None:
        """Give the lease back; does nothing when it is lost already. The row stays, with its token."""
        with self.metadata.write() as tx:
            tx.execute(leases.update().where(
                leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.token == lease.token,
            ).values(expires_at_us=0))

    @asynccontextmanager
    async def hold(self, name: str, seconds: float = 60) -> AsyncIterator[Lease]:
        """Hold the lease while the body runs; it renews itself. When it is lost the body is cancelled.

        Raises:
            LeaseHeldError: somebody else holds it, or took it over while this process was stopped.
        """
        lease = await asyncio.to_thread(self.acquire, name, seconds)
        body = asyncio.current_task()
        renewal = asyncio.create_task(self._renew(lease, seconds / RENEWALS, body), name=f"renew {name}")
        try:
            try:
                yield lease
            finally:
                renewal.cancel()
                try:  # not awaited by itself: its cancellation and one of the body's that comes meanwhile would look alike
                    await asyncio.gather(renewal, return_exceptions=True)
                finally:
                    await asyncio.shield(asyncio.to_thread(self.release, lease))
        except asyncio.CancelledError:
            if not lease.is_lost or body is None or body.uncancel() > 0:
                raise
            raise LeaseHeldError(f"the lease of {name} ran out and another run took over; this run stops") from None

    async def _renew(self, lease: Lease, every: float, body: asyncio.Task[object] | None) -> None:
        while True:
            await asyncio.sleep(every)
            try:
                await asyncio.to_thread(lease.renew)
            except LeaseHeldError:
                if body is not None:
                    body.cancel()
                return
            except CandlelakeError as error:  # the next try may do; if none does, somebody takes over and we notice then
                log.warning("the lease of %s was not renewed: %s", lease.name, error)

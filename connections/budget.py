"""The rate budget of one account or address, shared by all processes through the table `rate_budgets`.

Nobody reserves the future: a request takes the next slot when it is free, or waits and looks again. So a waiter that is
cancelled leaves nothing behind. Live work that has to wait says so in the table (`live_until_us`), and until then backfills
and repairs take no slot: a queue of backfills delays live work by one request at most.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import weakref
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from sqlalchemy import select

from core.clock import SECOND_US, Clock
from core.errors import InputError
from providers.base import Priority
from storage.metadata.store import MetadataStore
from storage.metadata.tables import rate_budgets
from storage.statements import insert_into

PENALTY_MAX: Final = 3600.0  # seconds: a provider that asks for more is asked again after an hour
_LIVE_MARGIN_US: Final = 250_000  # how long after its slot a live waiter may need to come and take it
_LONGEST_WAIT: Final = 5.0  # seconds between two looks: a block may be lifted, a clock may jump


class Places:
    """So many requests at once, in one process; of those that wait the most urgent goes first, then the oldest."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.next_look_us: dict[bool, int] = {}  # by is_live: nothing is free before; spares the store a question

    async def take(self, priority: Priority) -> None:
        """Wait for a place; cancelling the wait gives up nothing and keeps nothing."""
        if self._free > 0:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (int(priority), next(self._order), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came and the cancellation too: hand it on
                self.give_back()
            raise

    def give_back(self) -> None:
        """Free a place, or hand it to the next who waits."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


_places: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, weakref.WeakValueDictionary[tuple[str, str], Places]] = weakref.WeakKeyDictionary()


class StoredBudget:
    """The allowance under `key`. Keeps providers.base.RateBudget.

    Args:
        metadata: the store that all processes share.
        key: venue and account, or venue and our address for public data.
        requests_per_second: of weight 1, spaced evenly.
        concurrent: requests under way at once in this process.
        priority: of everything that is spent through this object.
        clock: the machine's own, never a moved one: other processes go by it.
    """

    def __init__(  # noqa: PLR0917  the contract gives the order
        self, metadata: MetadataStore, key: str, requests_per_second: float, concurrent: int,
        priority: Priority, clock: Clock,
    ) -> None:
        if requests_per_second <= 0 or concurrent < 1:
            raise InputError("rate budget", (requests_per_second, concurrent), "more than 0 per second, 1 or more at once")
        self._metadata = metadata
        self.key = key
        self._request_us = SECOND_US / requests_per_second
        self._concurrent = concurrent
        self._priority = priority
        self._clock = clock

    def spend(self, weight: float = 1.0) -> AbstractAsyncContextManager[None]:
        """Wait until `weight` may be spent, then hold a place among the requests under way while the body runs."""
        return self._spend(weight)

    @asynccontextmanager
    async def _spend(self, weight: float) -> AsyncIterator[None]:
        places = self._shared_places()
        is_live = self._priority is Priority.LIVE
        while True:
            await places.take(self._priority)
            try:
                wait_us = places.next_look_us.get(is_live, 0) - self._clock.now_us()
                if wait_us <= 0 or wait_us > PENALTY_MAX * SECOND_US:
                    wait_us = await asyncio.to_thread(self._try, weight)
                    places.next_look_us[is_live] = self._clock.now_us() + wait_us
                if wait_us <= 0:
                    yield
                    return
            finally:
                places.give_back()
            await asyncio.sleep(self._pause(wait_us, is_live=is_live))

    async def penalise(self, seconds: float) -> None:
        """Let nobody spend for `seconds`, an hour at most: the provider has asked us to slow down."""
        until_us = self._clock.now_us() + round(min(max(seconds, 0.0), PENALTY_MAX) * SECOND_US)
        await asyncio.to_thread(self._block, until_us)

    def _try(self, weight: float) -> int:
        """Take the next slot and return 0, or return how many microseconds to wait before looking again."""
        is_live = self._priority is Priority.LIVE
        with self._metadata.write() as tx:
            tx.execute(insert_into(tx, rate_budgets).values(key=self.key, next_free_us=0).on_conflict_do_nothing())
            mine = rate_budgets.c.key == self.key
            row = tx.execute(select(rate_budgets).where(mine).with_for_update()).mappings().one()
            now_us = self._clock.now_us()
            # No slot lies further ahead than that, unless the clock was set back: then it does not count.
            sane_us = now_us + round(PENALTY_MAX * SECOND_US)
            free_us = max(us for us in (0, row["next_free_us"], row["blocked_until_us"]) if us <= sane_us)
            live_us = row["live_until_us"] if row["live_until_us"] <= sane_us + _LIVE_MARGIN_US else 0
            wait_us = max(free_us, 0 if is_live else live_us) - now_us
            if wait_us <= 0:
                tx.execute(rate_budgets.update().where(mine).values(next_free_us=now_us + round(weight * self._request_us)))
                return 0
            if is_live and live_us < free_us + _LIVE_MARGIN_US:
                tx.execute(rate_budgets.update().where(mine).values(live_until_us=free_us + _LIVE_MARGIN_US))
            return wait_us

    def _block(self, until_us: int) -> None:
        with self._metadata.write() as tx:
            tx.execute(insert_into(tx, rate_budgets).values(key=self.key, next_free_us=0).on_conflict_do_nothing())
            tx.execute(rate_budgets.update().where(
                rate_budgets.c.key == self.key, rate_budgets.c.blocked_until_us < until_us,
            ).values(blocked_until_us=until_us))

    def _pause(self, wait_us: int, *, is_live: bool) -> float:
        seconds = min(wait_us / SECOND_US, _LONGEST_WAIT)
        # Backfills of many processes wake apart from each other, and after the live work.
        return seconds if is_live else seconds + random.uniform(0, self._request_us / SECOND_US / 4)  # noqa: S311  no secret

    def _shared_places(self) -> Places:
        of_loop = _places.setdefault(asyncio.get_running_loop(), weakref.WeakValueDictionary())
        place = (str(self._metadata.engine.url), self.key)
        found = of_loop.get(place)
        if found is None:
            found = of_loop[place] = Places(self._concurrent)
        return found

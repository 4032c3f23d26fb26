"""Work that costs much and that anybody may ask for is done by turns: few at once, some in line, the others told to come again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from starlette.concurrency import run_in_threadpool

from core.errors import ProviderTimeoutError, RateLimitedError

Result = TypeVar("Result")


class Turns:
    """`at_once` pieces of work in threads; up to `in_line` wait without one, so that all other requests go on."""

    def __init__(self, at_once: int, in_line: int) -> None:
        self._free, self._in_line, self._waiting = asyncio.Semaphore(at_once), in_line, 0

    async def take(self, work: Callable[[], Result]) -> Result:
        """Do the work when it is its turn.

        Raises:
            RateLimitedError: too many are in line.
        """
        if self._waiting >= self._in_line:
            raise RateLimitedError("too many people sign in at once; try again soon", retry_after=5)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await run_in_threadpool(work)
        finally:
            self._free.release()


class Room:
    """Calls to providers that people wait for: a few at once, fewer of one person, none of them for ever."""

    def __init__(self, at_once: int, each: int, seconds: float) -> None:
        self._at_once, self._each, self._seconds = at_once, each, seconds
        self._inside: Counter[str] = Counter()

    @asynccontextmanager
    async def hold(self, person: str) -> AsyncIterator[None]:
        """Keep a place while the body runs, which is ended when it takes too long.

        Raises:
            RateLimitedError: this person, or everybody together, has as many calls running as may be.
            ProviderTimeoutError: the body did not end in time.
        """
        if self._inside[person] >= self._each:
            raise RateLimitedError(f"{self._each} of your calls to providers still run; wait until one has ended", retry_after=5)
        if self._inside.total() >= self._at_once:
            raise RateLimitedError("too many people ask providers at once; try again soon", retry_after=5)
        self._inside[person] += 1
        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ProviderTimeoutError(f"the provider took longer than {self._seconds:.0f} s; the call was given up") from None
        finally:
            self._inside[person] -= 1
            self._inside += Counter()  # forgets who has none


TESTS: Final = Room(at_once=12, each=3, seconds=120.0)  # of connections, in this process

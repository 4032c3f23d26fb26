"""Work that costs much and that anybody may ask for is done by turns: few at once, some in line, the others told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.concurrency import run_in_threadpool

from core.errors import RateLimitedError

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

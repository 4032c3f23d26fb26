"""Asks a provider for one page, with patience: transient errors are retried with back-off, permanent ones rise at once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from core.clock import to_datetime
from core.errors import TransientError
from core.interval import Interval
from core.timeframe import Timeframe
from providers.base import CandlePage, MarketDataProvider

ATTEMPTS = 5
LONGEST_WAIT = 60.0  # seconds; a provider that asks for more ends the attempt


@dataclass(slots=True)
class Asker:
    """One provider's pages, with retries; counts the requests."""

    provider: MarketDataProvider
    first_wait: float  # seconds; doubles each time
    attempts: int = ATTEMPTS
    requests: int = 0
    withheld: Sequence[Interval] = ()  # rows that open here are dropped: the broker's clock is no ground to store them

    async def page(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Return the provider's answer.

        Raises:
            TransientError: the last one, when all attempts failed or the provider wants a longer pause than we wait.
            PermanentError: at once.
        """
        for attempt in range(1, self.attempts + 1):
            self.requests += 1
            try:
                return self._without_withheld(await self.provider.fetch_candles(symbol, timeframe, interval))
            except TransientError as error:
                wait = self._wait(attempt, error)
                if attempt == self.attempts or wait > LONGEST_WAIT:
                    raise
            await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    def _without_withheld(self, answer: CandlePage) -> CandlePage:
        candles = answer.candles
        for part in self.withheld:
            inside = pl.col("ts").is_between(to_datetime(part.start), to_datetime(part.end), closed="left")
            candles = candles.filter(~inside.fill_null(value=False))
        return answer if candles.height == answer.candles.height else replace(answer, candles=candles)

    def _wait(self, attempt: int, error: TransientError) -> float:
        backoff: float = self.first_wait * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311  jitter, not a secret
        return max(backoff, error.retry_after or 0.0)

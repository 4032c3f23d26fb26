"""One session of a stream: reads, steps, asks REST to confirm, and looks for silence, until something fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

from core.calendar import Calendar
from core.clock import SECOND_US
from core.errors import PermanentError, StalledError, TransientError
from core.interval import Interval
from core.timeframe import Timeframe
from providers.base import MarketDataProvider, StreamingProvider

if TYPE_CHECKING:
    from feed.stream import StreamRun

STEP_SECONDS: Final = 0.05  # how often candles are closed and silence is looked at
PROBE_CANDLES: Final = 3
WEEK_US: Final = 7 * 86_400 * SECOND_US


class StreamSession:
    """One session of `owner` with a connected provider."""

    def __init__(self, owner: StreamRun, provider: MarketDataProvider) -> None:
        self.owner = owner
        self.provider = provider
        self._quiet_until_us = 0  # silence up to here was looked into

    async def run(self, stop: asyncio.Event, helpers: Sequence[asyncio.Task[None]]) -> None:
        """Work until `stop`.

        Raises:
            CandlelakeError: what ended the session, or one of the `helpers`.
        """
        own = [asyncio.create_task(self._read()), asyncio.create_task(self._confirm())]
        try:
            while not stop.is_set():
                await asyncio.wait([*own, *helpers], timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in (*own, *helpers):
                    if task.done():
                        task.result()  # raises what ended it
                        raise StalledError(f"{self.owner.slug}: the stream ended without a word")
                await self.owner.step()
                await self._look_for_silence()
        finally:
            for task in own:
                task.cancel()
            await asyncio.gather(*own, return_exceptions=True)

    async def _read(self) -> None:
        owner, provider = self.owner, cast("StreamingProvider", self.provider)  # its capabilities say so
        if owner.options.ticks:
            async with aclosing(provider.stream_ticks(owner.symbols)) as batches:
                async for ticks in batches:
                    if ticks:
                        await owner.heard(ticks)
                    else:
                        await asyncio.to_thread(owner.subscribed, provider)
            return
        pairs = [(row.series.symbol, row.series.timeframe) for row in owner.candles.rows]
        async with aclosing(provider.stream_candles(pairs)) as changes:
            async for candles in changes:
                if not candles:
                    await asyncio.to_thread(owner.subscribed, provider)
                    continue
                owner.keeper.heard_us = owner.feed.clock.now_us()
                stored = await owner.candles.pass_on(candles)
                if stored:
                    owner.subscribers.candles(stored)

    async def _confirm(self) -> None:
        """Ask REST at the start, and whenever streamed candles have settled."""
        owner, is_first = self.owner, True
        while True:
            if is_first or owner.candles.is_due():
                error = await owner.candles.confirm(self.provider)
                if isinstance(error, PermanentError):
                    raise error
                is_first = is_first and error is not None
            await asyncio.sleep(owner.options.confirm_seconds)

    async def _look_for_silence(self) -> None:
        """Raise StalledError when nothing came for one timeframe and a grace of open market, and REST knows of trades."""
        owner = self.owner
        now, heard = owner.feed.clock.now_us(), owner.keeper.heard_us
        shortest = min(row.series.timeframe for row in owner.candles.rows)
        limit = shortest.length_us + round(owner.options.grace_seconds * SECOND_US)
        since = max(heard, self._quiet_until_us)
        if not owner.keeper.is_live or now - since <= limit:
            return
        symbols = [symbol for symbol, calendar in owner.calendars.items() if open_for_us(calendar, since, now) > limit]
        if not symbols:
            return
        if await self._has_traded(symbols, shortest, Interval(heard, now)):
            raise StalledError(f"{owner.slug}: connected, and silent for {(now - heard) // SECOND_US} s although the market trades")
        self._quiet_until_us = now

    async def _has_traded(self, symbols: Sequence[str], timeframe: Timeframe, silence: Interval) -> bool:
        """Whether REST knows of trades in a silence; no answer counts as yes: the session is not worth keeping."""
        length = timeframe.length_us
        start = max(silence.start // length * length + length, silence.end // length * length - PROBE_CANDLES * length)
        for symbol in symbols:
            try:
                page = await self.provider.fetch_candles(symbol, timeframe, Interval(start - length, silence.end))
            except TransientError:
                return True
            opens = page.candles["ts"].dt.epoch("us")
            if page.candles.filter((opens >= start) & (page.candles["volume"] > 0)).height:
                return True
        return False


def closed_since(calendar: Calendar, now_us: int) -> int | None:
    """Return since when a market is closed; None when it is open."""
    last = next(iter(calendar.closed(Interval(max(0, now_us - WEEK_US), now_us + 1))[-1:]), None)
    return last.start if last is not None and now_us in last else None


def open_for_us(calendar: Calendar, since_us: int, now_us: int) -> int:
    """Return for how long a market has been open without a break, since `since_us` at most; 0 when it is closed."""
    if closed_since(calendar, now_us) is not None:
        return 0
    return now_us - max([since_us, *(part.end for part in calendar.closed(Interval(since_us, now_us)))])

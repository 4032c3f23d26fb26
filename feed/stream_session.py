"""One session of a stream: reads, steps, asks REST to confirm, and looks for silence, until something fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, cast

from core.clock import SECOND_US
from core.errors import CandlelakeError, PermanentError, StalledError, TransientError, UnsupportedError
from core.interval import Interval
from core.timeframe import Timeframe
from feed.stream_heap import HEAP
from feed.stream_silence import Channel, open_for_us
from providers.base import MarketDataProvider, StreamingProvider

if TYPE_CHECKING:
    from feed.stream_run import StreamRun

STEP_SECONDS: Final = 0.05  # how often candles are closed and silence is looked at
PROBE_CANDLES: Final = 3
WATCH_SECONDS: Final = 0.25  # how often each symbol's silence is looked at
ARRIVAL_SECONDS: Final = 0.5  # a tick that REST knows of comes within so long, or not at all

log = logging.getLogger(__name__)


class StreamSession:
    """One session of `owner` with a connected provider."""

    def __init__(self, owner: StreamRun, provider: MarketDataProvider) -> None:
        self.owner = owner
        self.provider = provider
        self._quiet_until_us = 0  # silence up to here was looked into
        self._channels: dict[Channel, asyncio.Task[None]] = {}  # of symbols that the session's own stream brings no longer

    async def run(self, stop: asyncio.Event, helpers: Sequence[asyncio.Task[None]]) -> None:
        """Work until `stop`.

        Raises:
            CandlelakeError: what ended the session, or one of the `helpers`.
        """
        own = [asyncio.create_task(work()) for work in (self._read, self._confirm, self._watch, self._measure)]
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
            own += self._channels.values()
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
                        HEAP.settle()
                        await asyncio.to_thread(owner.subscribed, provider)
            return
        pairs = [(row.series.symbol, row.series.timeframe) for row in owner.candles.rows]
        async with aclosing(provider.stream_candles(pairs)) as changes:
            async for candles in changes:
                if candles:
                    await owner.heard_candles(candles)
                else:
                    await asyncio.to_thread(owner.subscribed, provider)

    async def _confirm(self) -> None:
        """Ask REST at the start, whenever streamed candles have settled, and for those that no tick brings."""
        owner, is_first, asked_us = self.owner, True, 0
        shortest_us = min(row.series.timeframe for row in owner.candles.rows).length_us
        while True:
            now = owner.feed.clock.now_us()
            is_lacking = not is_first and now - asked_us > shortest_us and await asyncio.to_thread(owner.candles.is_behind)
            if is_first or is_lacking or owner.candles.is_due():
                asked_us = now
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
        if await self._has_anything_traded(symbols, shortest, Interval(heard, now)):
            raise StalledError(f"{owner.slug}: connected, and silent for {(now - heard) // SECOND_US} s although the market trades")
        self._quiet_until_us = now

    async def _has_anything_traded(self, symbols: Sequence[str], timeframe: Timeframe, silence: Interval) -> bool:
        """Whether REST knows of trades in a silence; no answer counts as yes: the session is not worth keeping."""
        for symbol in symbols:
            try:
                if await self._has_traded(symbol, timeframe, silence):
                    return True
            except TransientError:
                return True
        return False

    async def _has_traded(self, symbol: str, timeframe: Timeframe, silence: Interval) -> bool:
        """Whether REST knows of trades in a candle that opened within a silence by our clock."""
        length, skew = timeframe.length_us, self.owner.candles.skew_us
        start, end = silence.start + skew, silence.end + skew
        first = max(start // length * length + length, end // length * length - PROBE_CANDLES * length)
        page = await self.provider.fetch_candles(symbol, timeframe, Interval(first - length, end))
        opens = page.candles["ts"].dt.epoch("us")
        return page.candles.filter((opens >= first) & (page.candles["volume"] > 0)).height > 0

    # One symbol among others

    async def _watch(self) -> None:
        """Look for symbols that are silent while others speak, and go on booking what those lose."""
        owner = self.owner
        grace_us = round(owner.options.grace_seconds * SECOND_US)
        booked_us = 0
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = owner.feed.clock.now_us()
            if not owner.keeper.is_live or now - owner.keeper.heard_us > grace_us:
                continue  # all of them are silent: that is another matter
            if now - booked_us > owner.options.beat_seconds * SECOND_US and owner.watch.dead(now):
                booked_us = now
                await asyncio.to_thread(owner.prolong)
            for channel in owner.watch.due(now):
                await self._look_into(channel, owner.feed.clock.now_us())

    async def _look_into(self, channel: Channel, now_us: int) -> None:
        """Ask REST whether a quiet channel's symbol has traded; one that has is dead, and is subscribed again."""
        owner, pulse = self.owner, self.owner.watch.of(channel)
        heard = pulse.heard_us
        if pulse.silent_us is None:
            timeframe = min(row.series.timeframe for row in owner.candles.rows
                            if row.series.symbol == channel.symbol and channel.timeframe in {None, row.series.timeframe})
            try:
                has_traded = await self._has_traded(channel.symbol, timeframe, Interval(heard, now_us))
            except TransientError as error:
                log.info("%s: stream: whether %s is silent is not known: %s", owner.slug, channel, error)
                pulse.asked_us = now_us
                return
            if not has_traded:
                pulse.was_quiet(now_us)
                return
            await asyncio.sleep(ARRIVAL_SECONDS)  # what REST knows already may still be on its way
        if pulse.heard_us == heard:
            pulse.try_again(now_us, round(owner.options.grace_seconds * SECOND_US))
            await owner.fell_silent(channel)
            await self._subscribe_again(channel)

    async def _subscribe_again(self, channel: Channel) -> None:
        provider = cast("StreamingProvider", self.provider)
        if channel.timeframe is None:
            try:
                await provider.resubscribe([channel.symbol])
            except UnsupportedError:
                pass  # the venue has no word for it within a session: the symbol gets one of its own
            except CandlelakeError as error:
                log.warning("%s: stream: %s was not subscribed again: %s", self.owner.slug, channel, error)
                return
            else:
                return
        before = self._channels.pop(channel, None)
        if before is not None:
            before.cancel()
            await asyncio.gather(before, return_exceptions=True)
        self._channels[channel] = asyncio.create_task(self._read_alone(channel))

    async def _read_alone(self, channel: Channel) -> None:
        """Read a channel in a session of its own beside the others'. When it ends the symbol is silent again, and found as such."""
        owner, provider = self.owner, cast("StreamingProvider", self.provider)
        try:
            if channel.timeframe is None:
                async with aclosing(provider.stream_ticks([channel.symbol])) as batches:
                    async for ticks in batches:
                        if ticks:
                            await owner.heard(ticks)
            else:
                async with aclosing(provider.stream_candles([(channel.symbol, channel.timeframe)])) as changes:
                    async for candles in changes:
                        if candles:
                            await owner.heard_candles(candles)
        except CandlelakeError as error:
            log.warning("%s: stream: the session of %s alone ended: %s", owner.slug, channel, error)
        if owner.watch.of(channel).silent_us is None:
            await owner.fell_silent(channel)

    async def _measure(self) -> None:
        """Measure the venue's clock again every so often: a session may last for weeks."""
        owner = self.owner
        while True:
            await asyncio.sleep(owner.options.skew_seconds)
            try:
                await owner.measure_skew(self.provider)
            except TransientError as error:
                log.info("%s: stream: its clock was not measured again: %s", owner.slug, error)

"""One run of a connection's stream: sessions one after the other, ticks to disk, candles early, REST's word last.

A session ends by every fault that it can have; what came between two sessions is booked as lost, REST fetches the
candles from the last one known, and the next session begins after a back-off. A socket that stays open and says nothing
is a fault too: when the market is open, nothing came for one timeframe and a grace, and REST knows of trades.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import Final

from connections.leases import Lease
from core.calendar import Calendar
from core.clock import LATEST_US, SECOND_US, isoformat
from core.errors import (
    BadPayloadError,
    LeaseHeldError,
    OverrunError,
    StalledError,
    StoreBusyError,
    TransientError,
    UnsupportedError,
)
from core.interval import Interval
from core.series import Series
from core.ticks import Tick
from feed.context import Feed
from feed.stream_candles import StreamCandles
from feed.stream_metrics import RECONNECTS, SILENT, Delays, Pace, ahead_us
from feed.stream_options import StreamOptions, StreamResult, Subscribers
from feed.stream_session import StreamSession
from feed.stream_silence import Channel, SilenceWatch, closed_since
from feed.stream_state import state_of
from feed.stream_ticks import Sieve, TickKeeper
from providers.base import MarketDataProvider, StreamedCandle
from storage.ticks import losses
from storage.ticks.states import ALIVE, read_states, write_state

log = logging.getLogger(__name__)
LONGEST_WAIT: Final = 60.0  # seconds between two tries to connect
FUTURE_US: Final = 900 * SECOND_US  # a tick further ahead is none: brokers' clocks that moved are, by an hour
_time_of: Final = attrgetter("ts_us")
_symbol_of: Final = attrgetter("symbol")


@dataclass(slots=True)
class StreamRun:
    """One run of a connection's stream."""

    feed: Feed
    lease: Lease
    slug: str
    connection_id: int
    run_id: str
    options: StreamOptions
    candles: StreamCandles
    calendars: dict[str, Calendar]
    subscribers: Subscribers = field(default_factory=Subscribers)
    state: str = "connecting"
    message: str = ""
    reconnects: int = 0
    started_us: int = 0
    last_tick: Tick | None = None
    seen: int = 0
    _keeper: TickKeeper | None = None
    _watch: SilenceWatch | None = None
    delays: Delays = field(init=False)
    pace: Pace = field(default_factory=Pace)
    _sieves: dict[str, Sieve] = field(default_factory=dict)
    _gap_from: dict[str, tuple[int, str]] = field(default_factory=dict)  # symbol -> since when, in event time, and why

    @property
    def symbols(self) -> list[str]:
        """The symbols that are streamed."""
        return sorted(self.calendars)

    @property
    def keeper(self) -> TickKeeper:
        """The keeper of ticks; there after `start`."""
        if self._keeper is None:
            raise AssertionError("the run has not started")
        return self._keeper

    @property
    def watch(self) -> SilenceWatch:
        """The watch over each symbol's silence; there after `start`."""
        if self._watch is None:
            raise AssertionError("the run has not started")
        return self._watch

    # Begin and end

    def start(self) -> None:
        """Recover what an earlier run left, and note since when ticks are missing."""
        lake, now = self.feed.lake, self.feed.clock.now_us()
        self.started_us, self.delays = now, Delays(self.slug)
        journal = lake.tick_store.open_journal(self.slug, self.symbols) if self.options.ticks else None
        with lake.metadata.read() as tx:
            before = next(iter(read_states(tx, self.slug)), None)
        cause = "killed" if before is not None and before.state in ALIVE else "not_streaming"
        with self.lease.write() as tx:
            ids = {symbol: losses.ensure_tick_series(tx, self.slug, symbol, now) for symbol in self.symbols}
            covered = {symbol: losses.covered_until(tx, key) for symbol, key in ids.items()}
        allowance = self._allowance_us()
        self._gap_from = {symbol: (min(until, now) - allowance, cause) for symbol, until in covered.items() if until is not None}
        self._keeper = TickKeeper(lake, self.lease, self.slug, self.feed.clock, journal, ids, self.calendars, self.run_id,
                                  heard_us=now, on_lost=self.candles.lose, on_durable=self.subscribers.durable)
        self.candles.on_unheard = self._unheard
        self._watch = SilenceWatch(self.candles.rows, self.calendars, by_symbol=self.options.ticks,
                                   grace_us=round(self.options.grace_seconds * SECOND_US))
        self.say("connecting")

    async def finish(self, state: str) -> None:
        """Write what is left and the last state; nothing of it when another run has taken over."""
        keeper = self.keeper
        is_live, keeper.is_live = keeper.is_live, False
        try:
            if is_live:
                await asyncio.to_thread(self.prolong)
                await self._book_holes(LATEST_US)
        finally:
            try:
                await keeper.close(is_live=is_live)
            finally:  # a disk that is full may still have room for the state
                gc.unfreeze()
                self.say(state)

    def say(self, state: str, message: str | None = None) -> None:
        """Write the state."""
        self.state = state
        if message is not None:
            self.message = message
        row = state_of(self)
        with self.lease.write() as tx:
            write_state(tx, self.connection_id, row)

    async def _tell(self, state: str, message: str | None = None) -> None:
        with self._unless_busy():
            await asyncio.to_thread(self.say, state, message)

    @contextlib.contextmanager
    def _unless_busy(self) -> Iterator[None]:
        """Let the body fail because the metadata store does not answer: it restarts, or is moved, and the stream goes on."""
        try:
            yield
        except StoreBusyError as error:
            log.warning("%s: stream: tried again soon: %s", self.slug, error)

    def result(self) -> StreamResult:
        """Return what was done so far."""
        return StreamResult(self.run_id, self.slug, self.keeper.stored, sum(sieve.repeats for sieve in self._sieves.values()),
                            self.candles.late, self.candles.stored, self.candles.agreed, self.candles.contradicted,
                            self.reconnects, self.keeper.losses, self.message)

    async def beat(self) -> None:
        """Write the state every few seconds."""
        while True:
            await asyncio.sleep(self.options.beat_seconds)
            await self._tell(self.state)

    async def commits(self) -> None:
        """Write what was heard, several times a second."""
        while True:
            await asyncio.sleep(self.options.commit_seconds)
            with self._unless_busy():
                await self.keeper.commit()

    # Sessions

    async def sessions(self, stop: asyncio.Event, helpers: Sequence[asyncio.Task[None]]) -> None:
        """Run sessions until `stop`; raises what a helper met."""
        failures = 0
        while not stop.is_set():
            if await self._market_is_closed(stop):
                continue
            try:
                await self._tell("connecting")
                await self._session(stop, helpers)
                failures = 0
            except LeaseHeldError:
                raise
            except TransientError as error:
                failures = 1 if self.keeper.is_live else failures + 1
                self.reconnects += 1
                cause = "stalled" if isinstance(error, StalledError) else "overflow" if isinstance(error, OverrunError) else "disconnected"
                RECONNECTS.labels(self.slug, cause).inc()
                log.warning("%s: stream: %s", self.slug, error)
                self._ended(cause)
                await self._tell("waiting", str(error))
                wait = min(LONGEST_WAIT, self.options.backoff_seconds * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)  # noqa: S311  jitter
                await _until(stop, max(wait, error.retry_after or 0.0))

    def _ended(self, cause: str) -> None:
        """A session has ended: from here on ticks are missing."""
        if self.keeper.is_live:
            for symbol in self.symbols:
                since = self.watch.sure_until(symbol, self.keeper.heard_us) + self.candles.skew_us - self._allowance_us()
                since -= self.keeper.lateness.us
                skipped = self._sieves[symbol].open_since  # ids that might have come late will not come now
                self._gap_from.setdefault(symbol, (since if skipped is None else min(since, skipped), cause))
        self.keeper.is_live = False
        self.candles.end()

    def _allowance_us(self) -> int:
        return round(self.options.allowance_seconds * SECOND_US)

    async def _market_is_closed(self, stop: asyncio.Event) -> bool:
        """Wait a while when every market is closed; True when it was."""
        now = self.feed.clock.now_us()
        if not all(closed_since(calendar, now) is not None for calendar in self.calendars.values()):
            return False
        if self.state != "closed":
            await self._tell("closed", "")
        await _until(stop, 1.0)
        return True

    async def _session(self, stop: asyncio.Event, helpers: Sequence[asyncio.Task[None]]) -> None:
        async with self.feed.connections.open_provider(self.slug) as opened:
            if not opened.capabilities.has_streams:
                raise UnsupportedError(f"{opened.capabilities.provider} streams nothing; its candles come by the scheduled fetch")
            await self.measure_skew(opened)
            session = StreamSession(self, opened)
            try:
                await session.run(stop, helpers)
            finally:
                if stop.is_set():
                    self.candles.end()

    async def measure_skew(self, provider: MarketDataProvider) -> None:
        """Measure how far the venue's clock is ahead of ours: too little by the answer's way at most, so no candle is closed too early."""
        self.candles.skew_us = await provider.server_time_us() - self.feed.clock.now_us()
        self.keeper.ahead_us = ahead_us(self.candles.skew_us)

    def subscribed(self, provider: MarketDataProvider) -> None:
        """The subscriptions stand: book what was missed until now, build candles from here on."""
        now = self.feed.clock.now_us()
        self.keeper.heard_us, self.keeper.is_live = now, True
        self.watch.begin(now)
        here = now + self.candles.skew_us
        for symbol in self.symbols:
            sieve = self._sieves.get(symbol)
            if sieve is None:
                follows = provider.capabilities.trade_ids_follow and self.options.ticks
                self._sieves[symbol] = Sieve(follows, self.candles.lateness_us)
            else:
                sieve.restart()
        self.candles.begin(provider, here + self._allowance_us())  # the venue's clock is known to a fraction of a second only
        for symbol, (since, cause) in self._gap_from.copy().items():
            self.keeper.book(symbol, Interval(since, max(since, here + self._allowance_us())), cause, {"run_id": self.run_id})
            if cause == "killed" and self._sieves[symbol].follows:
                self.keeper.book_skipped(symbol, here)
            del self._gap_from[symbol]
        with self.lease.write() as tx:  # killed before the first commit, the next run knows since when
            losses.cover(tx, list(self.keeper.ids.values()), self.keeper.mark(now))
        self.say("live", "")
        log.info("%s: stream: live, %s", self.slug, ", ".join(self.symbols[:5]) + (", ..." if len(self.symbols) > 5 else ""))

    async def heard(self, ticks: Sequence[Tick]) -> None:
        """Take what came."""
        now = self.feed.clock.now_us()
        self.keeper.heard_us = now
        newest = max(ticks, key=_time_of, default=None)
        if newest is not None and newest.ts_us > now + self.candles.skew_us + FUTURE_US:
            raise BadPayloadError(f"{self.slug}: received a tick of {newest.symbol} of {isoformat(newest.ts_us)}; allowed: a quarter of an "
                                  "hour ahead of the venue's clock at most")
        fresh: list[Tick] = []
        revived: list[tuple[Channel, int]] = []
        for symbol, run in groupby(ticks, _symbol_of):
            news = self._sieves[symbol].news(list(run))
            if news:
                revived += self._revived(Channel(symbol), now)
                self.keeper.lateness.hear(symbol, now, now + self.candles.skew_us - news[-1].ts_us)
            self.candles.add(symbol, news)
            fresh += news
        if fresh:
            self.last_tick = fresh[-1]
            self.seen += len(fresh)
            self.subscribers.ticks(fresh)
            self.delays.add(fresh, self.feed.clock.now_us(), self.keeper.ahead_us)
            await self.keeper.keep(fresh)
        for channel, since in revived:
            await asyncio.to_thread(self._lost, channel, since, now)

    async def heard_candles(self, candles: Sequence[StreamedCandle]) -> None:
        """Take the venue's own candles as they form."""
        self.keeper.heard_us = now = self.feed.clock.now_us()
        revived = [found for channel in {Channel(item.symbol, item.timeframe) for item in candles} for found in self._revived(channel, now)]
        stored = await self.candles.pass_on(candles)
        if stored:
            self.subscribers.candles(stored)
        for channel, since in revived:
            await asyncio.to_thread(self._lost, channel, since, now)

    # One silent symbol among others

    async def fell_silent(self, channel: Channel) -> None:
        """A channel is dead while others speak: what it may have brought is booked, and goes on being booked until it speaks."""
        pulse = self.watch.of(channel)
        if pulse.silent_us is None:
            pulse.silent_us = pulse.heard_us
            pulse.lost_us = pulse.heard_us - self._allowance_us() - self.keeper.lateness.us
            SILENT.labels(self.slug).inc()
            self._sieves[channel.symbol].restart()
            self.candles.end(channel.symbol, channel.timeframe)
            log.warning("%s: stream: %s is silent since %s while its market trades and others speak; it is subscribed again, REST "
                        "tells its candles", self.slug, channel, isoformat(pulse.heard_us))
        await asyncio.to_thread(self.prolong)
        await asyncio.to_thread(self.say, self.state)

    def prolong(self) -> None:
        """Book what dead channels have lost until now: a process that is killed books nothing more."""
        now = self.feed.clock.now_us()
        for channel in self.watch.dead(now):
            pulse = self.watch.of(channel)
            since, pulse.lost_us = pulse.lost_us, now
            self._lost(channel, since, now)

    def _revived(self, channel: Channel, now_us: int) -> list[tuple[Channel, int]]:
        """Take note of news; return a channel that was dead until now, with up to when its loss was booked."""
        since = self.watch.of(channel).lost_us
        if not self.watch.hear(channel, now_us):
            return []
        self.candles.begin_again(channel.symbol, now_us + self.candles.skew_us + self._allowance_us())
        log.info("%s: stream: %s speaks again", self.slug, channel)
        return [(channel, since)]

    def _lost(self, channel: Channel, since_us: int, until_us: int) -> None:
        skew = self.candles.skew_us
        self.keeper.prolong(channel.symbol, Interval(since_us + skew, until_us + skew), "stalled", {"run_id": self.run_id, "alone": str(channel)})

    def _unheard(self, series: Series, candle: Interval) -> None:
        """REST counts more in a candle than was heard: a venue without ids drops ticks in silence, and only this tells."""
        shortest = min(row.series.timeframe for row in self.candles.rows if row.series.symbol == series.symbol)
        if self.options.ticks and series.timeframe == shortest:
            self.keeper.prolong(series.symbol, candle, "unheard", {"run_id": self.run_id, "timeframe": series.timeframe.name})

    async def step(self) -> None:
        """Book skipped ids, close candles."""
        await self._book_holes(self.feed.clock.now_us())
        holes = {symbol: since for symbol, sieve in self._sieves.items() if (since := sieve.open_since) is not None}
        stored = await self.candles.close(self.keeper.heard_us, holes, self.keeper.lateness.us)
        if stored:
            self.subscribers.candles(stored)


    async def _book_holes(self, now_us: int) -> None:
        """Book the skipped ids that have not come by an instant."""
        for symbol, sieve in self._sieves.items():
            for hole in sieve.lost(now_us):
                ids = sorted(hole.missing)
                proof: dict[str, object] = {"first_id": ids[0], "count": len(ids), "run_id": self.run_id}
                await asyncio.to_thread(self.keeper.book, symbol, hole.span, "sequence", proof)
                sieve.forget(hole)


async def _until(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


__all__ = ["StreamRun"]

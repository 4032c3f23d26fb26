"""What a stream heard, on its way to disk: repeats dropped, ids that skip noticed, written in groups, losses booked."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import polars as pl

from connections.leases import Lease
from core.calendar import Calendar, open_parts
from core.clock import DAY_US, SECOND_US, Clock
from core.interval import Interval
from core.ticks import Recent, Tick, frame_of
from feed.stream_metrics import DURABLE, EVENT_TO_DURABLE, SAMPLES, TICKS, quantiles
from storage import Lake
from storage.ticks import losses
from storage.ticks.journal import Journal

MOST_PENDING: Final = 200_000  # ticks that wait for the disk; then the stream waits
QUIET_US: Final = SECOND_US  # silent for longer, a session's mark stands still: it may be dead already
LATELY: Final = 50_000  # newest ticks of a symbol among which a skipped id may still have been waited for
RECENT_US: Final = 10 * SECOND_US  # a symbol that spoke so shortly before the newest word shows how late words are


@dataclass(slots=True)
class Hole:
    """Ids of trades that were skipped: they may come late, until `deadline_us`; then their time is lost."""

    missing: set[int]
    span: Interval
    deadline_us: int


@dataclass(slots=True)
class Sieve:
    """Lets a symbol's new ticks through and notices skipped ids."""

    follows: bool  # whether the ids count up by one
    lateness_us: int
    repeats: int = 0
    _recent: Recent = field(default_factory=Recent)
    _last: tuple[int, int] | None = None  # id and event time
    _holes: list[Hole] = field(default_factory=list)

    def is_new(self, tick: Tick) -> bool:
        """Take note of a tick; False for a repeat."""
        return bool(self.news((tick,)))

    def news(self, ticks: Sequence[Tick]) -> list[Tick]:
        """Take note of ticks and return those that are no repeats, in their order."""
        fresh = self._recent.news(ticks)
        self.repeats += len(ticks) - len(fresh)
        if self.follows:
            for tick in fresh:
                if tick.trade_id is not None and tick.trade_id.isdecimal():
                    number, last = int(tick.trade_id), self._last
                    if last is not None and number == last[0] + 1:  # nearly always
                        self._last = number, tick.ts_us
                    else:
                        self._follow(number, tick, last)
        return fresh

    def restart(self) -> None:
        """Forget the last id: what lies between two sessions is booked as that."""
        self._last, self._holes = None, []

    @property
    def open_since(self) -> int | None:
        """Since when ids are missing that may still come, by their neighbours' event time; None when none are."""
        return min((hole.span.start for hole in self._holes), default=None)

    def lost(self, now_us: int) -> list[Hole]:
        """Return the holes whose ids have not come in time; they stay until they are forgotten."""
        return [hole for hole in self._holes if hole.deadline_us <= now_us]

    def forget(self, hole: Hole) -> None:
        """A hole is booked: its ids are waited for no longer."""
        self._holes = [other for other in self._holes if other is not hole]

    def _follow(self, number: int, tick: Tick, last: tuple[int, int] | None) -> None:
        if last is None:
            self._last = number, tick.ts_us
        elif number > last[0]:
            # However many they are, the first ones tell: a hole of a million ids is not filled by stragglers.
            missing = set(range(last[0] + 1, min(number, last[0] + 1001)))
            self._holes.append(Hole(missing, Interval(last[1], max(tick.ts_us, last[1] + 1)), tick.received_us + self.lateness_us))
            self._last = number, tick.ts_us
        else:
            for hole in self._holes:
                hole.missing.discard(number)
            self._holes = [hole for hole in self._holes if hole.missing]


def skipped(ticks: pl.DataFrame) -> list[Interval]:
    """Return the time between neighbours, by id, whose ids do not follow each other, in a frame of STORED_TICK_SCHEMA."""
    rows = ticks.select(pl.col("trade_id").cast(pl.Int64, strict=False), pl.col("ts").dt.epoch("us")).drop_nulls().sort("trade_id").rows()
    return [Interval(before_us, max(after_us, before_us + 1))
            for (before, before_us), (after, after_us) in pairwise(rows) if after > before + 1]


class Lateness:
    """How long after their event ticks come: seconds at a venue that is overloaded, minutes after this process was stopped for a while.

    What was heard until now tells of events up to that much earlier only.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}  # by symbol: when it spoke, and how old that was

    def hear(self, symbol: str, now_us: int, age_us: int) -> None:
        """Take note that a symbol's newest tick is so old."""
        self._last[symbol] = now_us, max(0, age_us)

    @property
    def us(self) -> int:
        """How late ticks are, by the symbols that spoke last."""
        newest = max((at for at, _ in self._last.values()), default=0)
        return max((age for at, age in self._last.values() if newest - at <= RECENT_US), default=0)


@dataclass(slots=True)
class TickKeeper:
    """Writes a connection's ticks to its journal in groups, and books what was lost.

    Args:
        lake: where.
        lease: of the stream; nothing is written once another run has it.
        slug: the connection.
        clock: ours.
        journal: None keeps no ticks; losses are booked all the same.
        ids: of the symbols' tick series.
        calendars: when each symbol trades: closed time is no loss.
        run_id: for provenance.
    """

    lake: Lake
    lease: Lease
    slug: str
    clock: Clock
    journal: Journal | None
    ids: dict[str, int]
    calendars: dict[str, Calendar]
    run_id: str
    is_live: bool = False
    heard_us: int = 0  # when the session last said something
    lateness: Lateness = field(default_factory=Lateness)
    ahead_us: int = 0  # how far the venue's clock is ahead of ours, as the age of ticks is told
    stored: int = 0
    losses: int = 0
    on_lost: Callable[[str, Interval], None] = lambda _symbol, _interval: None
    on_durable: Callable[[Sequence[Tick]], None] = lambda _ticks: None  # called in the thread that writes
    _pending: list[Tick] = field(default_factory=list)
    _writing: threading.Lock = field(default_factory=threading.Lock)
    _room: asyncio.Event = field(default_factory=asyncio.Event)
    _waits: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # seconds from receipt to disk
    _ages: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # seconds from event to disk

    def mark(self, heard_us: int) -> int:
        """Return up to when ticks are complete, as they tell their time, when all was heard up to an instant of ours.

        Never later than by our clock: marks do not go back, and a venue's clock may.
        """
        return heard_us - self.lateness.us + min(0, self.ahead_us)

    async def keep(self, ticks: Sequence[Tick]) -> None:
        """Take ticks; waits while too many wait for the disk, which makes the stream wait."""
        if self.journal is None:
            return
        self._pending += ticks
        while len(self._pending) >= MOST_PENDING:
            self._room.clear()
            await self._room.wait()

    async def commit(self) -> None:
        """Write what waits as one frame; when this returns it is on disk.

        Raises:
            LeaseHeldError: another run streams the connection now. StoreBusyError: whether it does cannot be told; what waits goes on waiting.
        """
        if self.journal is None:
            return
        if self.lease.is_overdue:  # this process stood still, or the store did not answer for long
            await asyncio.to_thread(self.lease.renew)
        ticks, self._pending = self._pending, []
        self._room.set()
        now = self.clock.now_us()
        until = self.mark(now if now - self.heard_us < QUIET_US else self.heard_us)
        if not ticks and not self.is_live:
            return
        await asyncio.shield(asyncio.to_thread(self._write, ticks, until))

    def _write(self, ticks: list[Tick], until_us: int) -> None:
        if self.journal is None:
            return
        with self._writing:  # a write whose waiter was cancelled goes on
            self.journal.append(frame_of(ticks, "stream", self.run_id) if ticks else None, until_us)
            self.stored += len(ticks)
        self.on_durable(ticks)
        now = self.clock.now_us()
        for tick in ticks[:: max(1, len(ticks) // 200)]:  # samples: enough for a quantile
            wait, age = (now - tick.received_us) / SECOND_US, (now + self.ahead_us - tick.ts_us) / SECOND_US
            self._waits.append(wait)
            self._ages.append(age)
            DURABLE.labels(self.slug).observe(max(0.0, wait))
            EVENT_TO_DURABLE.labels(self.slug).observe(max(0.0, age))
        TICKS.labels(self.slug).inc(len(ticks))

    def _end(self) -> None:
        if self.journal is not None:
            with self._writing:
                self.journal.close()
            self.lake.tick_store.flush(self.slug)

    def quantiles(self) -> dict[str, float]:
        """Return p50 and p99 of the last samples, milliseconds: receipt to disk, and event to disk."""
        return quantiles("receipt_to_disk", self._waits) | quantiles("event_to_disk", self._ages)

    def book(self, symbol: str, interval: Interval, cause: str, proof: dict[str, object]) -> None:
        """Book a range of event times as lost, as far as the market was open, and tell whoever builds candles."""
        parts = open_parts(self.calendars[symbol], interval) if interval.start < interval.end else []
        self.on_lost(symbol, interval)
        if not parts:
            return
        with self.lease.write() as tx:
            losses.book_losses(tx, self.ids[symbol], [(part, cause, proof) for part in parts], self.clock.now_us())
        self.losses += len(parts)

    def book_skipped(self, symbol: str, until_us: int) -> None:
        """Book the ids that are missing among a symbol's newest ticks: what a process that was killed waited for, nobody waits for now."""
        ticks = self.lake.tick_store.read(self.slug, symbol, Interval(max(0, until_us - DAY_US), until_us), LATELY)
        with self.lease.write() as tx:
            booked = [gap.interval for gap in losses.list_losses(tx, self.slug, symbol, healed_too=True)]
            news = [span for span in skipped(ticks) if not any(one.start <= span.start and span.end <= one.end for one in booked)]
            losses.book_losses(tx, self.ids[symbol], [(span, "sequence", {"run_id": self.run_id}) for span in news], self.clock.now_us())
        self.losses += len(news)

    def prolong(self, symbol: str, interval: Interval, cause: str, proof: dict[str, object]) -> None:
        """Book a range that follows one booked before: that one grows, as far as the market was open in between."""
        self.on_lost(symbol, interval)
        parts = open_parts(self.calendars[symbol], interval) if interval.start < interval.end else []
        if not parts:
            return
        with self.lease.write() as tx:
            if parts[0].start == interval.start and losses.extend(tx, self.ids[symbol], cause, parts[0]):
                parts = parts[1:]
            losses.book_losses(tx, self.ids[symbol], [(part, cause, proof) for part in parts], self.clock.now_us())
        self.losses += len(parts)

    async def close(self, *, is_live: bool) -> None:
        """Write the rest, end the journal and move it into the lake; of a session that is live, the next stream's gap begins where it ends."""
        try:
            await self.commit()
        finally:
            if self.journal is not None:
                await asyncio.to_thread(self._end)
        if is_live:
            with self.lease.write() as tx:
                losses.cover(tx, list(self.ids.values()), self.mark(self.heard_us))

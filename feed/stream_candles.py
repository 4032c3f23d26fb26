"""The candles of a connection's stream: built from its ticks or taken as streamed, stored when closed, confirmed by REST."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from connections.leases import Lease
from core.calendar import Calendar
from core.candles import check
from core.clock import SECOND_US, to_us
from core.errors import CandlelakeError, LeaseHeldError
from core.interval import Interval
from core.series import Series
from core.ticks import Tick
from core.timeframe import Grid, Timeframe
from feed.confirming import confirm
from feed.context import Feed
from feed.series_run import settle_seconds
from feed.stream_metrics import CANDLES
from feed.stream_silence import closed_since
from feed.tick_candles import Forming, TickCandles, candle_frame
from providers.base import MarketDataProvider, StreamedCandle
from storage.head import Batch
from storage.series import SeriesRow, list_series

log = logging.getLogger(__name__)
MOST_UNCONFIRMED = 10_000
NOISE = 1e-9  # of sums of sizes


@dataclass(slots=True)
class StreamCandles:
    """All series of one connection. Times are the venue's: our clock plus `skew_us`.

    Attributes:
        on_unheard: called with a candle in which REST counts more than was heard.
        agreed, contradicted: streamed candles that REST told alike, and otherwise (a revision, unless REST was the first to tell it).
    """

    feed: Feed
    lease: Lease
    slug: str
    rows: list[SeriesRow]
    run_id: str
    lateness_us: int
    calendars: Mapping[str, Calendar]
    skew_us: int = 0
    on_unheard: Callable[[Series, Interval], None] = lambda _series, _interval: None
    stored: int = 0
    agreed: int = 0
    contradicted: int = 0
    builders: dict[int, TickCandles] = field(default_factory=dict)
    _by_symbol: dict[str, list[TickCandles]] = field(default_factory=dict)
    _streamed: dict[tuple[str, str], StreamedCandle] = field(default_factory=dict)
    _unconfirmed: dict[int, dict[int, tuple[float | None, ...]]] = field(default_factory=dict)
    _is_first: bool = True

    def begin(self, provider: MarketDataProvider, since_us: int) -> None:
        """Begin to build: every tick from `since_us` on is heard."""
        for row in self.rows:
            builder = self.builders.get(row.id)
            if builder is None:
                builder = self.builders[row.id] = TickCandles(Grid(row.series.timeframe, provider.server_clock), self.lateness_us)
                self._by_symbol.setdefault(row.series.symbol, []).append(builder)
            builder.restart(since_us)

    def begin_again(self, symbol: str, since_us: int) -> None:
        """A symbol that was silent speaks again: every tick of it from `since_us` on is heard."""
        for builder in self._by_symbol.get(symbol, ()):
            builder.restart(since_us)

    def end(self, symbol: str | None = None, timeframe: Timeframe | None = None) -> None:
        """A session has ended, or a symbol's part in it, or that of one of its timeframes: what forms will not be whole."""
        for row in self.rows:
            if symbol in {None, row.series.symbol} and timeframe in {None, row.series.timeframe}:
                if row.id in self.builders:
                    self.builders[row.id].restart(None)
                self._streamed.pop((row.series.symbol, row.series.timeframe.name), None)

    def lose(self, symbol: str, interval: Interval) -> None:
        """Ticks of a symbol were lost."""
        for builder in self._by_symbol.get(symbol, ()):
            builder.lose(interval)

    @property
    def late(self) -> int:
        """How many ticks came after their candle was closed."""
        return sum(builder.late for builder in self.builders.values())

    def add(self, symbol: str, ticks: Sequence[Tick]) -> None:
        """Take ticks of a symbol into its candles."""
        for builder in self._by_symbol.get(symbol, ()):
            builder.add_all(ticks)

    async def close(self, heard_us: int, holes: Mapping[str, int], late_us: int = 0) -> list[Batch]:
        """Store the whole candles that have ended, in one transaction, and return them.

        Args:
            heard_us: when the session last said something. A candle that ended later waits while its market is open: a socket
                that is dead and does not know it yet would leave it short.
            holes: by symbol, since when ids are missing that may still come: candles that end later wait.
            late_us: how long after their event ticks come at present: candles wait so much longer.
        """
        now, heard = self.feed.clock.now_us() + self.skew_us, heard_us + self.skew_us
        batches = []
        for row in self.rows:
            builder = self.builders.get(row.id)
            if builder is None:
                continue
            is_told = now - heard > SECOND_US and closed_since(self.calendars[row.series.symbol], now) is not None
            whole_until = (now if is_told else heard) - late_us
            whole_until = min(whole_until, holes.get(row.series.symbol, whole_until))
            ready = [item for item in builder.close(min(now, whole_until + self.lateness_us)) if item.is_whole]
            batch = self._batch(row, builder.grid, ready, now) if ready else None
            if batch is not None:
                batches.append(batch)
        await self._store(batches)
        return batches

    async def pass_on(self, candles: Sequence[StreamedCandle]) -> list[Batch]:
        """Take the venue's own candles and store each one that a later one has closed."""
        done = []
        for candle in candles:
            before = self._streamed.get((candle.symbol, candle.timeframe.name))
            if before is not None and before.ts_us < candle.ts_us:
                done.append(before)
            self._streamed[candle.symbol, candle.timeframe.name] = candle
        batches = []
        for item in done:
            row = next((row for row in self.rows if (row.series.symbol, row.series.timeframe) == (item.symbol, item.timeframe)), None)
            if row is not None:
                grid = self.builders[row.id].grid
                forming = Forming(item.ts_us, grid.next(item.ts_us), item.open, item.high, item.low, item.close, item.ts_us, item.ts_us,
                                  volume=item.volume)
                batch = self._batch(row, grid, [forming], self.feed.clock.now_us() + self.skew_us + self.lateness_us)
                batches += [] if batch is None else [batch]
        await self._store(batches)
        return batches

    def _batch(self, row: SeriesRow, grid: Grid, ready: Sequence[Forming], now_us: int) -> Batch | None:
        span = Interval(ready[0].ts_us, ready[-1].end_us)
        checked = check(candle_frame([item.row() for item in ready]), grid, span, now_us)
        return Batch(row.id, checked.candles, "stream", rejected=checked.rejected if len(checked.rejected) else None) \
            if len(checked.candles) or len(checked.rejected) else None

    async def _store(self, batches: Sequence[Batch]) -> None:
        if not batches:
            return
        await asyncio.shield(asyncio.to_thread(self._write, list(batches)))
        count = sum(len(batch.candles) for batch in batches)
        self.stored += count
        CANDLES.labels(self.slug).inc(count)

    def _write(self, batches: list[Batch]) -> None:
        fresh = []
        for batch in batches:  # REST was faster, or told it before a restart: its word stays
            first, last = batch.candles["ts"].dt.epoch("us").min(), batch.candles["ts"].dt.epoch("us").max()
            known = set(self.feed.lake.stored_slots(batch.series_id, Interval(int(first or 0), int(last or 0) + 1)).tolist())  # type: ignore[arg-type]
            news = batch.candles.filter(~batch.candles["ts"].dt.epoch("us").is_in(list(known)))
            if len(news) or batch.rejected is not None:
                fresh.append(Batch(batch.series_id, news, batch.source, rejected=batch.rejected))
            held = self._unconfirmed.setdefault(batch.series_id, {})
            held.update({to_us(row[0]): row[1:6] for row in batch.candles.rows()})
            while len(held) > MOST_UNCONFIRMED:
                held.pop(next(iter(held)))
        if fresh:
            self.feed.lake.write(fresh, run_id=self.run_id, fence=self.lease.check)

    def is_due(self) -> bool:
        """Whether a streamed candle waits for REST, and has settled."""
        now = self.feed.clock.now_us() + self.skew_us
        for row in self.rows:
            held = self._unconfirmed.get(row.id)
            if held and min(held) + row.series.timeframe.length_us + round(settle_seconds(self.feed, row) * SECOND_US) <= now:
                return True
        return False

    def is_behind(self) -> bool:
        """Whether a candle of an open market has settled that neither ticks brought nor the connection's fetch has asked for.

        A quiet market, or a minute of which ticks were lost: nobody else would ask for it when no fetch is scheduled.
        """
        for row in self._read_rows():
            builder, settle_us = self.builders.get(row.id), round(settle_seconds(self.feed, row) * SECOND_US)
            if builder is None or row.last_us is None:
                continue
            closed_us = builder.grid.floor(self.feed.clock.now_us() + self.skew_us - settle_us)  # every candle before has settled
            if (builder.grid.next(row.last_us) < closed_us and (row.fetched_at_us or 0) + self.skew_us < closed_us + settle_us
                    and closed_since(self.calendars[row.series.symbol], closed_us) is None):
                return True
        return False

    async def confirm(self, provider: MarketDataProvider) -> CandlelakeError | None:
        """Ask REST for all that has closed; count what agrees. Returns the error that a series met, None without one.

        A fetch of the connection that is at work does the same: then this one waits for the next time.
        """
        rows = await asyncio.to_thread(self._read_rows)
        asked = {key: dict(held) for key, held in self._unconfirmed.items()}
        try:
            results = await confirm(self.feed, provider, self.slug, rows, self.run_id, streamed=None if self._is_first else asked)
        except LeaseHeldError:
            return None
        errors = [item.error for item in results if item.error is not None]
        if not errors:
            self._is_first = False
            await asyncio.to_thread(self._judge, asked)
        return errors[0] if errors else None

    def _read_rows(self) -> list[SeriesRow]:
        with self.feed.lake.metadata.read() as tx:
            return list_series(tx, self.slug, only_active=True)

    def _judge(self, asked: dict[int, dict[int, tuple[float | None, ...]]]) -> None:
        """Compare what the stream told with what is stored now, after REST had its say."""
        now = self.feed.clock.now_us() + self.skew_us
        for row in self.rows:
            settle = round(settle_seconds(self.feed, row) * SECOND_US) + row.series.timeframe.length_us
            told = {ts: values for ts, values in asked.get(row.id, {}).items() if ts + settle <= now}
            if not told:
                continue
            key = row.series
            frame = self.feed.lake.candles(key.connection, key.symbol, key.timeframe, min(told), max(told) + 1)
            for stored in frame.rows():
                ts = to_us(stored[0])
                if ts in told:
                    agrees = stored[1:6] == told[ts]
                    self.agreed += agrees
                    self.contradicted += not agrees
                    if stored[5] > (told[ts][4] or 0.0) * (1 + NOISE):
                        self.on_unheard(key, Interval(ts, ts + key.timeframe.length_us))
            for ts in told:
                self._unconfirmed.get(row.id, {}).pop(ts, None)

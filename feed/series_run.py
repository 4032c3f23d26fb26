"""One series in a run: what it lacks, and the filler that gets it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.candles import empty_candles
from core.clock import SECOND_US
from core.interval import Interval
from core.timeframe import Grid
from feed.asking import Asker
from feed.booking import Booker
from feed.context import Feed
from feed.filling import Filler
from feed.planning import Slots, expected_slots, missing_slots, not_in, without
from feed.writing import Writer
from providers.base import MarketDataProvider
from storage.head import Batch
from storage.ledger import Gap, booked_in
from storage.series import SeriesRow

# Causes that leave a person wondering; the rest explain why there is no candle.
OPEN_CAUSES = frozenset({"provider_empty", "fetch_failed", "out_of_reach", "unknown"})


@dataclass(slots=True)
class SeriesRun:
    """One series of a run over `interval`, with what the lake and the ledger hold of it."""

    feed: Feed
    provider: MarketDataProvider
    row: SeriesRow
    interval: Interval
    grid: Grid
    expected: Slots
    stored: Slots
    booked: list[Gap]

    @staticmethod
    def plan(feed: Feed, provider: MarketDataProvider, row: SeriesRow, interval: Interval) -> SeriesRun:
        """Read what is there of the series in `interval` (clipped to candles that have closed by now)."""
        grid = Grid(row.series.timeframe, provider.server_clock)
        closed_until = grid.floor(feed.clock.now_us() - round(settle_seconds(feed, row) * SECOND_US))
        start = grid.ceil(interval.start)
        clipped = Interval(start, max(start, min(grid.ceil(interval.end), closed_until)))
        calendar = feed.calendar(provider.capabilities.market_type)
        expected = expected_slots(grid, calendar, clipped)
        stored = np.asarray(feed.lake.stored_slots(row.id, clipped), dtype=np.int64)
        return SeriesRun(feed, provider, row, clipped, grid, expected, stored, gaps_inside(feed, row, clipped))

    def is_closed_now(self) -> bool:
        """Whether the market is closed at present: nothing new can come."""
        now = self.feed.clock.now_us()
        return bool(self.feed.calendar(self.provider.capabilities.market_type).closed(Interval(now, now + 1)))

    def missing(self, *, failed_too: bool = False) -> Slots:
        """Return the slots to ask for: expected, not stored, not booked or due for another try.

        With `failed_too` what no answer came for is due at once: a person who starts a backfill again means it.
        """
        booked = [gap for gap in self.booked if not (failed_too and gap.cause == "fetch_failed")]
        return missing_slots(self.expected, self.stored, booked, self.feed.clock.now_us())

    async def fill(
        self, wanted: Slots, writer: Writer, source: str, *, is_live: bool = False,
        settled: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Fill `wanted`; counts into the writer's result of this series.

        Raises:
            CandlelakeError: why the series could not be filled to the end; what was done until then is kept.
        """
        asker = Asker(self.provider, self.feed.settings.retry_wait)
        booker = Booker(self.row.id, self.grid, self.feed.clock, self.stored, self.booked)
        filler = Filler(asker, self.row, self.grid, booker, writer, source, settle_seconds(self.feed, self.row),
                        is_live=is_live, settled=settled)
        try:
            await filler.fill(wanted)
            await self._book_closed(booker, writer, source)
        finally:
            writer.result(self.row.id, str(self.row.series)).requests += asker.requests

    async def _book_closed(self, booker: Booker, writer: Writer, source: str) -> None:
        """Book the closed time in the interval, as far as it is not booked and nothing was stored in it all the same."""
        slots = np.asarray(self.grid.slots(self.interval), dtype=np.int64)
        closed = not_in(slots, self.expected)
        closed = without(closed, [gap.interval for gap in self.booked])
        if len(closed):
            await writer.flush()
            now_stored = np.asarray(self.feed.lake.stored_slots(self.row.id, self.interval), dtype=np.int64)
            gaps = booker.closed(not_in(closed, now_stored), self.provider.capabilities.market_type)
            if gaps:
                await writer.add(Batch(self.row.id, empty_candles(), source, gaps=tuple(gaps)))

    def open_gaps(self) -> int:
        """Return how many booked ranges in the interval are not explained for good."""
        return sum(gap.cause in OPEN_CAUSES for gap in gaps_inside(self.feed, self.row, self.interval))


def settle_seconds(feed: Feed, row: SeriesRow) -> float:
    """Return how long after its close a candle of the series counts as closed."""
    return feed.settle_seconds(row.series.connection) if row.settle_seconds is None else row.settle_seconds


def gaps_inside(feed: Feed, row: SeriesRow, interval: Interval) -> list[Gap]:
    """Return the ledger's entries of the series that touch `interval`."""
    with feed.lake.metadata.read() as tx:
        return [gap for gap in booked_in(tx, row.id, interval) if gap.interval.intersect(interval) is not None]

"""One series in a run: what it lacks, and the filler that gets it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from connections.clocks import history, withheld
from core.calendar import Calendar
from core.candles import empty_candles
from core.clock import DAY_US, LATEST_US, SECOND_US, to_datetime
from core.interval import Interval
from core.slots import Slots, expected_slots, grid_slots
from core.timeframe import Grid
from feed.asking import Asker
from feed.booking import WITHHELD, Booker
from feed.context import Feed
from feed.filling import Early, Filler
from feed.planning import grown, missing_slots, not_in, within, without
from feed.result import SeriesResult
from feed.writing import Writer
from providers.base import MarketDataProvider
from storage.calendars import calendar_for
from storage.head import Batch
from storage.ledger import Gap, booked_in, count_booked
from storage.listings import Listing, find_listing
from storage.series import SeriesRow

WEEK_US = 7 * DAY_US
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
    calendar: Calendar
    listing: Listing | None
    expected: Slots
    stored: Slots
    booked: list[Gap]
    withheld: list[Interval] = field(default_factory=list)  # where the broker's clock is no ground to store, grown by a candle
    early: list[Early] = field(default_factory=list)

    @staticmethod
    def plan(feed: Feed, provider: MarketDataProvider, row: SeriesRow, interval: Interval) -> SeriesRun:
        """Read what is there of the series in `interval` (clipped to candles that have closed by now).

        Raises:
            TickerReusedError: the symbol may name another asset by now.
        """
        grid = Grid(row.series.timeframe, provider.server_clock)
        closed_until = grid.floor(feed.clock.now_us() - round(settle_seconds(feed, row) * SECOND_US))
        start = grid.ceil(interval.start)
        clipped = Interval(start, max(start, min(grid.ceil(interval.end), closed_until)))
        with feed.lake.metadata.read() as tx:
            calendar = calendar_for(tx, row.connection_id, row.series.symbol, provider.capabilities.market_type)
            listing = find_listing(tx, row.connection_id, row.series.symbol)
            doubted = [] if grid.server is None else withheld(history(tx, row.series.connection), grid.server, row.series.symbol)
        if listing is not None:
            listing.check(row.series.connection)
        expected = expected_slots(grid, calendar, clipped)
        stored = np.asarray(feed.lake.stored_slots(row.id, clipped), dtype=np.int64)
        return SeriesRun(feed, provider, row, clipped, grid, calendar, listing, expected, stored, gaps_inside(feed, row, clipped),
                         grown(doubted, grid))

    def is_closed_now(self) -> bool:
        """Whether the market is closed at present: nothing new can come."""
        return self.session_end(self.feed.clock.now_us()) is not None

    def is_delisted(self) -> bool:
        """Whether the symbol has left the provider's list: nothing new can come, and nothing changes."""
        return self.listing is not None and self.listing.delisted_us is not None

    def session_end(self, now_us: int) -> int | None:
        """Return since when the market is closed at an instant; None when it is open."""
        week = Interval(max(0, now_us - WEEK_US), now_us + 1)
        last = next(iter(self.calendar.closed(week)[-1:]), None)
        return last.start if last is not None and now_us in last else None

    def missing(self, *, failed_too: bool = False) -> Slots:
        """Return the slots to ask for: expected, not stored, not booked or due for another try, while it was listed.

        With `failed_too` what no answer came for is due at once: a person who starts a backfill again means it.
        """
        booked = [gap for gap in self.booked
                  if not (failed_too and gap.cause == "fetch_failed") and WITHHELD not in gap.proof]  # withheld or told anew
        left = missing_slots(without(self.expected, self.withheld), self.stored, booked, self.feed.clock.now_us())
        return left if self.listing is None else left[(left >= self._listed_us()) & (left < self._delisted_us())]

    def streamed(self, since_us: int = 0) -> Slots:
        """Return the open times in the interval that only a stream has told so far, as far as it was stored at `since_us` or later."""
        series = self.row.series
        known = self.feed.lake.candles(series.connection, series.symbol, series.timeframe, self.interval.start, self.interval.end)
        told = known.filter((known["source"] == "stream") & (known["known_at"] >= to_datetime(since_us)))
        return told["ts"].dt.epoch("us").to_numpy()

    async def fill(
        self, wanted: Slots, writer: Writer, source: str, *, is_live: bool = False,
        settled: Callable[[int], None] = lambda _count: None,
    ) -> None:
        """Fill `wanted`; counts into the writer's result of this series.

        A live run that has more to catch up than one page gets the newest page first, then the rest, oldest first.

        Raises:
            CandlelakeError: why the series could not be filled to the end; what was done until then is kept.
        """
        asker = Asker(self.provider, self.feed.settings.retry_wait, withheld=self.withheld)
        booker = Booker(self.row.id, self.grid, self.feed.clock, self.stored, self.booked)
        filler = Filler(asker, self.row, self.grid, booker, writer, source, settle_seconds(self.feed, self.row),
                        is_live=is_live, settled=settled, asked_as=None if self.listing is None else self.listing.asked_as,
                        session_end=self.session_end)
        try:
            newest, older = self._newest_first(wanted) if is_live else (wanted, wanted[:0])
            await filler.fill(newest)
            if len(older):
                if filler.has_seen:  # the provider is ahead of the hole: were this run killed now, the ledger would know
                    await writer.add(Batch(self.row.id, empty_candles(), source, gaps=tuple(booker.waiting(older))))
                    await writer.flush()
                    filler.is_live = False
                await filler.fill(older)
            await self._book_unasked(booker, writer, source, LATEST_US if filler.open_from is None else filler.open_from)
        finally:
            self.early = filler.early
            writer.result(self.row.id, str(self.row.series)).requests += asker.requests

    def _newest_first(self, wanted: Slots) -> tuple[Slots, Slots]:
        """Split what a live run wants into the newest page and what is older; all of it is newest where a page holds it."""
        limit = self.provider.capabilities.page_limit(self.row.series.timeframe)
        if len(wanted) == 0 or wanted[-1] - wanted[0] < limit * self.row.series.timeframe.length_us:
            return wanted, wanted[:0]
        cut = int(np.searchsorted(wanted, wanted[-1] - (limit - 2) * self.row.series.timeframe.length_us))
        return wanted[cut:], wanted[:cut]

    def _listed_us(self) -> int:
        """Return before what nothing is asked for: the listing that the provider names, unless older candles are stored."""
        if self.listing is None or self.listing.listed_us is None:
            return 0
        return min(self.listing.listed_us, self.row.first_us or self.listing.listed_us)

    def _delisted_us(self) -> int:
        return LATEST_US if self.listing is None or self.listing.delisted_us is None else self.listing.delisted_us

    async def _book_unasked(self, booker: Booker, writer: Writer, source: str, open_from: int) -> None:
        """Book the slots that nobody asks for: closed or doubted time, what lies before a listing or after a delisting.

        From `open_from` on the provider's clock has reached nothing: a weekend booked there would leave what lies before it unexplained.
        """
        slots, expected = grid_slots(self.grid, self.interval), self.expected[self.expected < open_from]
        closed = not_in(slots[slots < open_from], expected)
        closed = without(closed, [gap.interval for gap in self.booked if gap.cause == "market_closed"])
        final = [gap.interval for gap in self.booked if gap.cause in {"before_listing", "after_delisting"}]
        early = without(expected[expected < self._listed_us()], final)
        late = without(expected[expected >= self._delisted_us()], final)
        doubted = within(expected, self.withheld)
        doubted = without(doubted, [gap.interval for gap in self.booked if WITHHELD in gap.proof])
        if not len(closed) + len(early) + len(late) + len(doubted):
            return
        await writer.flush()
        now_stored = np.asarray(self.feed.lake.stored_slots(self.row.id, self.interval), dtype=np.int64)
        gaps = booker.closed(not_in(closed, now_stored), self._reasons(closed)) if len(closed) else []
        gaps += booker.withheld(not_in(doubted, now_stored))
        if self.listing is not None:
            gaps += booker.listed_later(not_in(early, now_stored), self._listed_us())
            gaps += booker.delisted(not_in(late, now_stored), self._delisted_us())
        if gaps:
            await writer.add(Batch(self.row.id, empty_candles(), source, gaps=tuple(gaps)))

    def _reasons(self, closed: Slots) -> list[tuple[Interval, str]]:
        return self.calendar.why(Interval(int(closed[0]), self.grid.next(int(closed[-1]))))

    def open_gaps(self) -> int:
        """Return how many booked ranges in the interval are not explained for good."""
        with self.feed.lake.metadata.read() as tx:
            return count_booked(tx, self.row.id, self.interval, OPEN_CAUSES)

    def absent(self) -> dict[str, int]:
        """Return how many slots of the interval are booked, by cause, the most first."""
        return self._slots_by_cause(gaps_inside(self.feed, self.row, self.interval))

    def count_newly_booked(self, result: SeriesResult, since_us: int) -> None:
        """Tell in `result` which gaps this run, begun at `since_us`, has booked or met again, as far as they are not explained for good."""
        booked = [gap for gap in gaps_inside(self.feed, self.row, self.interval)
                  if gap.last_seen_us >= since_us and gap.cause in OPEN_CAUSES]
        result.gaps, result.absent = len(booked), self._slots_by_cause(booked)

    def _slots_by_cause(self, gaps: Iterable[Gap]) -> dict[str, int]:
        slots, causes = grid_slots(self.grid, self.interval), defaultdict[str, list[Interval]](list)
        for gap in gaps:
            causes[gap.cause].append(gap.interval)
        counts = Counter({cause: len(within(slots, intervals)) for cause, intervals in causes.items()})
        return dict((+counts).most_common())


def settle_seconds(feed: Feed, row: SeriesRow) -> float:
    """Return how long after its close a candle of the series counts as closed: as learned, but no less than a person says."""
    own = feed.connections.get(row.series.connection).settings.get("settle_seconds")
    if own is not None:
        return max(float(own), row.settle_seconds or 0.0)
    return feed.settings.settle_seconds if row.settle_seconds is None else row.settle_seconds


def gaps_inside(feed: Feed, row: SeriesRow, interval: Interval) -> list[Gap]:
    """Return the ledger's entries of the series that touch `interval`."""
    with feed.lake.metadata.read() as tx:
        return [gap for gap in booked_in(tx, row.id, interval) if gap.interval.intersect(interval) is not None]

"""Fills the missing slots of one series page by page, and books each one that the provider does not have.

One page is one commit: its candles, and for every expected slot that it shows to be absent an entry in the ledger, go
down together. So a killed run costs one page at most that is asked for again.

What a page proves: a slot between two candles of one answer is absent at the provider now. A slot before the first or
after the last candle of an answer is not, since answers are cut short. There the next request begins at the last candle
known, so that both sides of the hole lie in one answer; a range answered with nothing is asked for a second time, and
once more at the end of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from core.candles import AHEAD_US, Checked, check, empty_candles
from core.clock import LATEST_US, MINUTE_US, SECOND_US, isoformat, to_datetime
from core.errors import ClockSkewError, TransientError
from core.interval import Interval
from core.slots import Slots
from core.timeframe import Grid, Timeframe
from feed.asking import Asker
from feed.booking import Booker
from feed.planning import page_from
from feed.probing import next_candle
from feed.witness import Witness, longer_timeframe
from feed.writing import Writer
from providers.base import CandlePage
from storage.head import Batch
from storage.ledger import Gap
from storage.provenance import Request
from storage.series import SeriesRow

log = logging.getLogger(__name__)

FAILED_PAGES = 3  # so many pages in a row without an answer end the run: the provider is away
CONFIRM_ROUNDS = 2  # how often ranges that were answered with nothing are asked for again before the run ends
YOUNG = 4  # so many candles that have closed but not settled are looked at
STANDS_US = 15 * MINUTE_US  # a server's clock stands at the last quote of a session: at most so long before its end


@dataclass(frozen=True, slots=True)
class PageSight:
    """What one answer showed of the wanted slots in its page."""

    checked: Checked
    proved: Slots  # slots the answer holds a row for, good or not
    bad: Slots  # the answer holds only a row that may not be stored
    absent: Slots  # between two rows of the answer
    unproved: Slots  # before its first row
    unreachable: Slots  # older than all that the provider keeps
    rest: Slots  # after its last row: still to be asked for
    still_open: Slots  # not closed yet by the provider's clock


@dataclass(frozen=True, slots=True)
class Early:
    """What one answer showed of the candles that have closed but not settled, and of those that have."""

    server_us: int
    unsettled: Sequence[int]  # open times
    shown: pl.DataFrame  # their rows, as given
    closed: pl.DataFrame  # the newest closed ones


@dataclass(slots=True)
class Filler:
    """Fills one series. `is_live` leaves the newest silent slots to the next run instead of booking them."""

    asker: Asker
    row: SeriesRow
    grid: Grid
    booker: Booker
    writer: Writer
    source: str
    settle_seconds: float
    is_live: bool = False
    settled: Callable[[int], None] = lambda _count: None  # told how many wanted slots are done with
    asked_as: str | None = None  # the provider's present name of the symbol, where it is not the series'
    session_end: Callable[[int], int | None] = lambda _us: None  # since when the market is closed at an instant
    early: list[Early] = field(default_factory=list, init=False)  # candles too young to count as closed
    open_from: int | None = field(default=None, init=False)  # the first wanted slot that had not closed by the provider's clock
    _last_known: int | None = field(default=None, init=False)
    _first_known: int | None = field(default=None, init=False)
    _failed_pages: int = field(default=0, init=False)
    _server_us: int = field(default=0, init=False)  # the furthest that the provider's clock has been in this run
    _days_hide: bool = field(default=False, init=False)  # the provider's longer candles begin later than the series' own
    _unproved: list[Slots] = field(default_factory=list, init=False)

    @property
    def timeframe(self) -> Timeframe:
        """The series' timeframe."""
        return self.row.series.timeframe

    @property
    def symbol(self) -> str:
        """The provider's name of the symbol."""
        return self.asked_as or self.row.series.symbol

    @property
    def has_seen(self) -> bool:
        """Whether any answer of this run held a closed candle."""
        return self._first_known is not None

    async def fill(self, wanted: Slots) -> None:
        """Ask for all `wanted` slots (ascending), oldest first; ask again for what was answered with nothing.

        Raises:
            PermanentError: the provider will never answer (unknown symbol, login refused, ...).
            TransientError: the provider is away; what was tried is booked as fetch_failed.
        """
        await self._pass(wanted)
        for _ in range(CONFIRM_ROUNDS):
            if not self._unproved:
                return
            again = np.unique(np.concatenate(self._unproved))
            self._unproved = []
            self._last_known = None
            self.settled = lambda _count: None
            await self._pass(again)
        if self._unproved and not self.is_live:
            await self._prove_by_volume(np.unique(np.concatenate(self._unproved)))

    async def _pass(self, wanted: Slots) -> None:
        if len(wanted) == 0:
            return
        limit = max(2, self.asker.provider.capabilities.page_limit(self.timeframe))
        end = self.booker.right_of(int(wanted[-1]), limit)
        index, stuck, begin = 0, 0, self.booker.left_of(int(wanted[0]), limit)
        while index < len(wanted):
            page = page_from(begin, self.grid, limit, self._reach(wanted, end))
            left = wanted[index: int(np.searchsorted(wanted, page.end))]
            answer = await self._ask(page, left)
            if answer is None:
                index, stuck = self._forward(index, len(left)), 0
            else:
                left = _with_what_is_out_of_reach(left, wanted[index:], answer)
                sight = self._look(answer, page, left)
                if len(sight.still_open):  # nothing later has closed by the provider's clock: it is not asked for
                    self.open_from = min(int(sight.still_open[0]), self.open_from or LATEST_US)
                    closed = int(np.searchsorted(wanted, sight.still_open[0]))
                    self.settled(len(wanted) - closed)
                    await self._book_future(wanted[closed:], answer)
                    wanted, left = wanted[:closed], left[:len(left) - len(sight.still_open)]
                is_stuck = len(left) > 0 and len(sight.rest) == len(left)
                stuck = stuck + 1 if is_stuck else 0
                if is_stuck and self.is_live and index + len(left) == len(wanted):
                    return  # the newest candles are late, or nothing traded: the next run will see
                if stuck == 1:
                    continue
                if is_stuck:
                    index, stuck = self._forward(index, await self._book_nothing(wanted[index:], left, answer, page)), 0
                else:
                    await self._commit(sight, answer)
                    index = self._forward(index, len(left) - len(sight.rest))
                    if index < len(wanted):
                        await self.writer.flush()  # a page is durable before the next one is asked for
                    if len(sight.rest) and self._last_known is not None:
                        begin = self._last_known
                        continue
            if index < len(wanted):
                begin = self.booker.left_of(int(wanted[index]), limit)

    def _reach(self, wanted: Slots, end: int) -> int:
        """Return where requests end: a live one looks at the youngest candles too, to learn how late they settle."""
        if not self.is_live or len(wanted) == 0:
            return end
        young = self.grid.next(self.booker.clock.now_us() - 1)
        return max(end, young) if young - end <= YOUNG * self.timeframe.length_us else end

    def _forward(self, index: int, count: int) -> int:
        self.settled(count)
        return index + count

    async def _ask(self, page: Interval, left: Slots) -> CandlePage | None:
        try:
            answer = await self.asker.page(self.symbol, self.timeframe, page)
        except TransientError as error:
            if self.is_live:
                raise  # the next run asks again; an entry in the ledger would only make it wait
            self._failed_pages += 1
            await self._write(self.booker.failed(left, error))
            log.warning("%s: no answer for %s: %s", self.row.series, page, error)
            if self._failed_pages >= FAILED_PAGES:
                raise
            return None
        self._failed_pages = 0
        reached = max(self._server_us, self.row.last_us or 0)
        if self.is_live and answer.server_us + AHEAD_US < reached:  # the newest candles would be rows of its future: none would come
            raise ClockSkewError(
                f"{self.row.series}: the provider says that it is {isoformat(answer.server_us)}, long before {isoformat(reached)}, which it has "
                "reached before; nothing is fetched until its clock is right again")
        self._server_us = max(self._server_us, answer.server_us)
        return answer

    def _look(self, answer: CandlePage, page: Interval, left: Slots) -> PageSight:
        closed_before = self._closed_before(answer)
        checked = check(answer.candles, self.grid, page, closed_before, max(answer.server_us, closed_before))
        if self.is_live:
            self._see(answer, checked.candles, page, closed_before)
        good = checked.candles["ts"].dt.epoch("us").to_numpy()
        open_from = self.grid.floor(closed_before)
        bad = checked.rejected["ts"].drop_nulls().dt.epoch("us").to_numpy()
        bad = bad[bad < open_from]  # a row of the future tells nothing of the slots before it
        proved = np.union1d(good, bad).astype(np.int64)
        reach = answer.reachable_from or 0
        closed = left[(left < open_from) & (left >= reach)]
        first, last = (int(proved[0]), int(proved[-1])) if len(proved) else (page.end, page.start - 1)
        between = closed[(closed > first) & (closed < last)]
        return PageSight(
            checked=checked, proved=proved,
            bad=left[np.isin(left, np.setdiff1d(bad, good))],
            absent=between[~np.isin(between, proved)],
            unproved=closed[closed < first] if len(proved) else closed[:0],
            unreachable=left[(left < reach) & (left < open_from)],
            rest=closed[closed > last] if len(proved) else closed,
            still_open=left[left >= open_from],
        )

    def _closed_before(self, answer: CandlePage) -> int:
        """Return up to when candles have closed and settled, by the provider's clock.

        A MetaTrader server's clock stands still at a session's last quote: then ours says that the last candle is closed,
        once the calendar agrees that no more ticks can come.
        """
        settle_us = round(self.settle_seconds * SECOND_US)
        now_us = self.booker.clock.now_us()
        ended = self.session_end(now_us)
        if ended is not None and 0 <= ended - answer.server_us <= STANDS_US and now_us >= ended + settle_us:
            return now_us - settle_us
        return min(answer.server_us - settle_us, now_us)  # a provider's clock that runs ahead closes nothing by itself

    def _see(self, answer: CandlePage, closed: pl.DataFrame, page: Interval, closed_before: int) -> None:
        young = [slot for slot in self.grid.slots(Interval(self.grid.floor(closed_before), max(page.end, closed_before)))
                 if self.grid.next(slot) <= answer.server_us]
        if young or len(closed):
            shown = answer.candles.filter(pl.col("ts").is_in([to_datetime(slot) for slot in young])) if young else closed.clear()
            self.early.append(Early(answer.server_us, young, shown, closed.tail(2 * YOUNG)))

    async def _commit(self, sight: PageSight, answer: CandlePage) -> None:
        gaps = self.booker.out_of_reach(sight.unreachable, answer)
        gaps += self.booker.absent(sight.absent, answer, both_sides=True)
        gaps += self._unproved_gaps(sight, answer)
        gaps += self.booker.quarantined(sight.bad, answer)
        if len(sight.unproved):
            self._unproved.append(sight.unproved)
        rejected = sight.checked.rejected if len(sight.checked.rejected) else None
        await self.writer.add(
            Batch(self.row.id, sight.checked.candles, self.source, gaps=tuple(gaps), rejected=rejected,
                  request=Request(answer.request_id, answer.asked, answer.server_us)))
        if len(sight.proved):
            self._last_known = int(sight.proved[-1])
            self._first_known = min(int(sight.proved[0]), self._first_known or self._last_known)

    def _unproved_gaps(self, sight: PageSight, answer: CandlePage) -> list[Gap]:
        """Book what lies before an answer's first row; before all that is known it may be the listing."""
        if len(sight.unproved) and len(sight.proved) and not self._knows_before(int(sight.proved[0])):
            return self.booker.before_first(sight.unproved, answer, int(sight.proved[0]))
        return self.booker.absent(sight.unproved, answer, both_sides=False)

    async def _prove_by_volume(self, slots: Slots) -> None:
        """Ask a longer timeframe about slots that no answer could prove: is its volume whole without them?"""
        await self.writer.flush()
        timeframe = longer_timeframe(self.asker.provider.capabilities, self.timeframe)
        if timeframe is None:
            return
        witness = Witness(self.asker, self.writer.lake, self.row, self.grid, Grid(timeframe, self.grid.server), self.symbol)
        for part, answer in await witness.silent(slots):
            await self._write(self.booker.absent(part, answer, both_sides=False, adds_up=timeframe.name))

    async def _book_future(self, slots: Slots, answer: CandlePage) -> None:
        """Book what lies in a provider's future though its own clock has been past it: no run ends as if it had been read.

        What no answer and no stored candle has been past is the future indeed, and left alone like our own.
        """
        reached = self.grid.floor(max(self._server_us, self.grid.next(self.row.last_us or 0)))
        if not self.is_live and answer.server_us < reached:
            await self._write(self.booker.not_reached(slots[slots < reached], answer))

    async def _write(self, gaps: list[Gap]) -> None:
        if gaps:
            await self.writer.add(Batch(self.row.id, empty_candles(), self.source, gaps=tuple(gaps)))

    async def _book_nothing(self, wanted: Slots, left: Slots, answer: CandlePage, page: Interval) -> int:
        """Book a range that was answered with nothing twice; return how many wanted slots that settles.

        When more is wanted beyond this page, a longer timeframe tells where candles begin again, so that years before a
        listing cost a few requests.
        """
        has_earlier = self._knows_before(int(left[0]))
        if (len(wanted) > len(left) or not has_earlier) and not self._days_hide:
            known = self._first_known or (None if has_earlier else self.row.first_us) or 0
            told = await next_candle(self.asker, self.grid, self.symbol, self.booker.clock.now_us(),
                                     Interval(int(left[0]), max(known, int(wanted[-1])) + 1))
            if told is not None:
                silent = wanted[wanted < (told.until_us if told.first_us is None else told.first_us)]
                is_listing = not has_earlier and told.first_us is not None
                self._days_hide = is_listing and await self._shows_before(told.first_us or 0)
                if not self._days_hide and (len(silent) > len(left) or (is_listing and len(silent))):
                    gaps = (self.booker.before_listing(silent, told.timeframe, told.first_us, answer)
                            if is_listing and told.first_us is not None else self.booker.nowhere(silent, told.timeframe, told.first_us))
                    await self._write(gaps)
                    return len(silent)
        log.info("%s: nothing in %s, asked twice", self.row.series, page)
        self._unproved.append(left)
        first = min((us for us in (self.row.first_us, self._first_known) if us is not None), default=None)
        await self._write(self.booker.absent(left, answer, both_sides=False) if has_earlier or first is None
                          else self.booker.before_first(left, answer, first))
        return len(left)

    async def _shows_before(self, first_us: int) -> bool:
        """Whether the page right before the longer timeframe's first candle holds candles: then that one hides what there is."""
        limit = max(2, self.asker.provider.capabilities.page_limit(self.timeframe))
        page = Interval(self.grid.ceil(max(0, first_us - (limit - 1) * self.timeframe.length_us)), self.grid.ceil(first_us))
        if page.is_empty:
            return False
        try:
            answer = await self.asker.page(self.symbol, self.timeframe, page)
        except TransientError:
            return True  # nobody knows: this run goes page by page
        return len(check(answer.candles, self.grid, page, answer.server_us).candles) > 0

    def _knows_before(self, slot: int) -> bool:
        earliest = [us for us in (self.row.first_us, self._first_known) if us is not None]
        return bool(earliest) and min(earliest) < slot


def _with_what_is_out_of_reach(left: Slots, wanted: Slots, answer: CandlePage) -> Slots:
    """Return the page's wanted slots, and those of later pages that the provider keeps no more either: none of them is asked for."""
    reach = 0 if answer.reachable_from is None else int(np.searchsorted(wanted, answer.reachable_from))
    return wanted[:max(len(left), reach)]

"""Completeness of series by day: what was expected, what is stored, what the ledger explains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from console.series_pages import Page, matching, page_of
from core.clock import DAY_US, EPOCH, isoformat, to_us
from core.errors import InputError
from core.interval import Interval
from core.series import Series
from core.timeframe import Grid
from feed.context import Feed
from storage.ledger import GapRow, list_gaps
from storage.series import SeriesRow, grids_of, list_series

DAYS_MAX: Final = 120
SERIES_MAX: Final = 20  # on one page


@dataclass(frozen=True, slots=True)
class Cell:
    """One day of a series, counted in candles."""

    day: str
    expected: int
    stored: int
    explained: int

    @property
    def kind(self) -> str:
        """How the cell is drawn: none, full, explained, part or lost."""
        if not self.expected:
            return "none"
        if self.stored >= self.expected:
            return "full"
        if self.stored + self.explained >= self.expected:
            return "explained"
        return "part" if self.stored else "lost"

    @property
    def text(self) -> str:
        """The cell in words."""
        if not self.expected:
            return f"{self.day}: outside the series"
        return f"{self.day}: {self.stored} of {self.expected} stored, {self.explained} explained"


def days_of(feed: Feed, slug: str, days: int, text: str = "", number: int = 1) -> Page[tuple[Series, list[Cell]]]:
    """Return the newest `days` days of a connection's series, oldest first, `SERIES_MAX` series to a page.

    Args:
        feed: the open home.
        slug: the connection.
        days: how many days, 1 to `DAYS_MAX`.
        text: only series whose symbol and timeframe hold each of its words, whatever the case.
        number: of the page, from 1; past the end it is the last one.

    Raises:
        InputError: too many days, or no page's number.
    """
    if not 1 <= days <= DAYS_MAX:
        raise InputError("days", days, f"1 to {DAYS_MAX}", "look at another part of the time")
    end = (feed.clock.now_us() // DAY_US + 1) * DAY_US
    whole = Interval(max(to_us(EPOCH), end - days * DAY_US), end)
    with feed.lake.metadata.read() as tx:
        page = page_of(matching(list_series(tx, slug), text), number, SERIES_MAX)
        grids = grids_of(tx, page.found)
        gaps = {row.id: list_gaps(tx, slug, row.series.symbol, row.series.timeframe, within=whole) for row in page.found}
    return page.showing([(row.series, _cells(feed, row, grids[row.id], gaps[row.id], whole)) for row in page.found])


def _cells(feed: Feed, row: SeriesRow, grid: Grid, gaps: Sequence[GapRow], whole: Interval) -> list[Cell]:
    starts = range(whole.start, whole.end, DAY_US)
    if row.first_us is None or row.last_us is None:
        return [Cell(isoformat(start)[:10], 0, 0, 0) for start in starts]
    stored = feed.lake.stored_slots(row.id, whole)
    held = np.searchsorted(stored, [*starts, whole.end])
    explained = _explained(grid, gaps, whole)
    series = Interval(row.first_us, grid.next(row.last_us))
    out = []
    for number, start in enumerate(starts):
        part = series.intersect(Interval(start, start + DAY_US))
        out.append(Cell(isoformat(start)[:10], 0 if part is None else grid.count(part), int(held[number + 1] - held[number]), explained[number]))
    return out


def _explained(grid: Grid, gaps: Sequence[GapRow], whole: Interval) -> Counter[int]:
    """Count the explained slots by number of the day; each gap is met with its own days only."""
    counts: Counter[int] = Counter()
    for gap in gaps:
        part = None if gap.cause == "unknown" else gap.interval.intersect(whole)
        if part is None:
            continue
        for number in range((part.start - whole.start) // DAY_US, (part.end - 1 - whole.start) // DAY_US + 1):
            start = whole.start + number * DAY_US
            counts[number] += grid.count(Interval(max(part.start, start), min(part.end, start + DAY_US)))
    return counts

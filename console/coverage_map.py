"""Completeness of series by day: what was expected, what is stored, what the ledger explains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

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


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a connection's series: each with its days, oldest first; `total` series match on `last` pages."""

    found: list[tuple[Series, list[Cell]]]
    number: int
    last: int
    total: int


def days_of(feed: Feed, slug: str, days: int, text: str = "", number: int = 1) -> Page:
    """Return the newest `days` days of a connection's series, `SERIES_MAX` to a page.

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
    if number < 1:
        raise InputError("page_number", number, "1 or more", "begin at the first page")
    words = text.casefold().split()
    with feed.lake.metadata.read() as tx:
        wanted = [row for row in list_series(tx, slug)
                  if all(word in f"{row.series.symbol} {row.series.timeframe.name}".casefold() for word in words)]
        last = max(1, -(-len(wanted) // SERIES_MAX))
        number = min(number, last)
        rows = wanted[(number - 1) * SERIES_MAX:number * SERIES_MAX]
        grids = grids_of(tx, rows)
        gaps = {row.id: list_gaps(tx, slug, row.series.symbol, row.series.timeframe) for row in rows}
    return Page([(row.series, _cells(feed, row, grids[row.id], gaps[row.id], whole)) for row in rows], number, last, len(wanted))


def _cells(feed: Feed, row: SeriesRow, grid: Grid, gaps: Sequence[GapRow], whole: Interval) -> list[Cell]:
    if row.first_us is None or row.last_us is None:
        return [Cell(isoformat(start)[:10], 0, 0, 0) for start in range(whole.start, whole.end, DAY_US)]
    stored = feed.lake.stored_slots(row.id, whole)
    series = Interval(row.first_us, grid.next(row.last_us))
    out = []
    for start in range(whole.start, whole.end, DAY_US):
        day = Interval(start, start + DAY_US)
        part = series.intersect(day)
        met = [gap.interval.intersect(day) for gap in gaps if gap.cause != "unknown"]
        held = int(np.searchsorted(stored, day.end) - np.searchsorted(stored, day.start))
        explained = sum(grid.count(item) for item in met if item is not None)
        out.append(Cell(isoformat(start)[:10], 0 if part is None else grid.count(part), held, explained))
    return out

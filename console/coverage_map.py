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
SERIES_MAX: Final = 20


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


def days_of(feed: Feed, slug: str, days: int) -> list[tuple[Series, list[Cell]]]:
    """Return the newest `days` days of a connection's series, oldest first; at most `SERIES_MAX` series."""
    if not 1 <= days <= DAYS_MAX:
        raise InputError("days", days, f"1 to {DAYS_MAX}", "look at another part of the time")
    end = (feed.clock.now_us() // DAY_US + 1) * DAY_US
    whole = Interval(max(to_us(EPOCH), end - days * DAY_US), end)
    with feed.lake.metadata.read() as tx:
        rows = list_series(tx, slug)[:SERIES_MAX]
        grids = grids_of(tx, rows)
        gaps = list_gaps(tx, slug)
    return [(row.series, _cells(feed, row, grids[row.id], [gap for gap in gaps if gap.series == row.series], whole)) for row in rows]


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

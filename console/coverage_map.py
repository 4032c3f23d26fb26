"""Completeness of series by day: what was expected, what is stored, what the ledger explains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

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
DAYS_OFFERED: Final = (30, 60, 90, DAYS_MAX)
MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SERIES_MAX: Final = 20  # on one page


@dataclass(frozen=True, slots=True)
class Cell:
    """One day of a series, counted in candles."""

    day: str
    expected: int
    stored: int
    explained: int

    @property
    def kind(self) -> Literal["none", "full", "explained", "part", "lost"]:
        """How the cell is drawn: none, full, explained, part or lost."""
        if not self.expected:
            return "none"
        if self.stored >= self.expected:
            return "full"
        if self.stored + self.explained >= self.expected:
            return "explained"
        return "part" if self.stored else "lost"

    @property
    def month(self) -> str:
        """The month that it lies in."""
        return f"{MONTHS[int(self.day[5:7]) - 1]} {self.day[:4]}"

    @property
    def text(self) -> str:
        """The cell in words."""
        if not self.expected:
            return f"{self.day}: outside the series"
        return f"{self.day}: {self.stored:,} of {self.expected:,} stored, {self.explained:,} explained"


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
    stored = feed.lake.stored_by_day([row.id for row in page.found], whole)
    names = [isoformat(start)[:10] for start in range(whole.start, whole.end, DAY_US)]

    def cells(row: SeriesRow) -> list[Cell]:
        grid = grids[row.id]
        return _cells(row, grid, names, stored[row.id].tolist(), _explained(grid, gaps[row.id], whole), whole)

    return page.showing([(row.series, cells(row)) for row in page.found])


def _cells(row: SeriesRow, grid: Grid, names: Sequence[str], stored: Sequence[int], explained: Counter[int], whole: Interval) -> list[Cell]:  # noqa: PLR0917  one for each part of a cell
    if row.first_us is None or row.last_us is None:
        return [Cell(name, 0, 0, 0) for name in names]
    series = Interval(row.first_us, grid.next(row.last_us))
    out = []
    for number, name in enumerate(names):
        start = whole.start + number * DAY_US
        part = series.intersect(Interval(start, start + DAY_US))
        out.append(Cell(name, 0 if part is None else grid.count(part), stored[number], explained[number]))
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

"""Series on pages: which ones somebody looks for, so many at a time, and where the pages before and after are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

from core.errors import InputError
from core.series import Series
from storage.series import SeriesRow

Item = TypeVar("Item")
Shown = TypeVar("Shown")
TEXT_MAX: Final = 200  # characters of a search


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """One page: `found` of the `total` that match, on page `number` of `last`."""

    found: list[Item]
    number: int
    last: int
    total: int

    def showing(self, found: list[Shown]) -> Page[Shown]:
        """Return the same page with what is shown for each of its items."""
        return Page(found, self.number, self.last, self.total)

    def links(self, **asked: str | int) -> dict[str, str | None]:
        """Return the queries of the pages `before` and `after`, None where there is none; `asked` is kept in both."""
        return {name: f"?{urlencode({**asked, 'page_number': number})}" if 1 <= number <= self.last else None
                for name, number in (("before", self.number - 1), ("after", self.number + 1))}


def matching(rows: Iterable[SeriesRow], text: str, *, with_connection: bool = False) -> list[SeriesRow]:
    """Return the series whose symbol and timeframe (and connection) hold each word of `text`, whatever the case."""
    words = text.casefold().split()
    return [row for row in rows if all(word in _name(row.series, with_connection).casefold() for word in words)]


def page_of(items: list[Item], number: int, size: int) -> Page[Item]:
    """Return page `number` (from 1) of `items`; past the end it is the last one.

    Raises:
        InputError: no page's number.
    """
    if number < 1:
        raise InputError("page_number", number, "1 or more", "begin at the first page")
    last = max(1, -(-len(items) // size))
    number = min(number, last)
    return Page(items[(number - 1) * size:number * size], number, last, len(items))


def _name(series: Series, with_connection: bool) -> str:
    name = f"{series.symbol} {series.timeframe.name}"
    return f"{series.connection} {name}" if with_connection else name

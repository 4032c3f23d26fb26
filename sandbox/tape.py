"""The tape: the ticks of a market between two instants, for the sandbox's web sockets.

Ticks are made from the candles that the same sandbox serves by REST, so that candles built from them equal those: prices
walk from open over both ends to close, sizes add up to the volume exactly. The ids of a market's trades count up by one.
Recorded trades and plain load are given instead when a switch says so.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from core.clock import HOUR_US, SECOND_US
from sandbox.market import Book, Tile

PER_CANDLE: Final = 12  # trades in one candle
MOST_QUOTES: Final = 5000  # in one candle
STEP_SIZE: Final = 100_000_000  # sizes are whole multiples of 1e-8
_KEPT_HOURS: Final = 48


class Print(NamedTuple):
    """One tick of the tape. Quotes have `ask`; trades have `size`, `is_sell` and `number`, their id."""

    us: int
    price: float
    ask: float = 0.0
    size: float = 0.0
    is_sell: bool = False
    number: int = 0


@dataclass(slots=True)
class Tape:
    """The ticks of one book. `is_quotes` for brokers."""

    book: Book
    is_quotes: bool
    _hours: OrderedDict[int, tuple[list[int], list[Print]]] = field(default_factory=OrderedDict)

    def between(self, after_us: int, until_us: int) -> list[Print]:
        """Return the ticks in (after_us, until_us], ascending."""
        out: list[Print] = []
        span = max(HOUR_US, self.book.base.length_us)
        for start in range(after_us // span * span, until_us + 1, span):
            times, prints = self._hour(start, span)
            first, last = np.searchsorted(times, [after_us, until_us], side="right")
            out += prints[first:last]
        return out

    def _hour(self, start_us: int, span_us: int) -> tuple[list[int], list[Print]]:
        if start_us not in self._hours:
            length, end = self.book.base.length_us, start_us + span_us
            rows = self.book.candles(length, start_us, end, end)  # as of its end: no candle is still forming
            number = self._rank(start_us) * PER_CANDLE
            prints: list[Print] = []
            for row in rows.iter_rows(named=True):
                made = self._quotes(row, length) if self.is_quotes else self._trades(row, length, number)
                prints += made
                number += len(made)
            self._hours[start_us] = [item.us for item in prints], prints
            if len(self._hours) > _KEPT_HOURS:
                self._hours.popitem(last=False)
        return self._hours[start_us]

    def _trades(self, row: dict[str, Any], length: int, number: int) -> list[Print]:
        total = round(row["volume"] * STEP_SIZE)
        share = total // PER_CANDLE
        sizes = [share] * (PER_CANDLE - 1) + [total - share * (PER_CANDLE - 1)]
        prices = _walk(row, PER_CANDLE, self.book.digits)
        return [
            Print(int(row["us"]) + (2 * index + 1) * length // (2 * PER_CANDLE) // 1000 * 1000, price, size=size / STEP_SIZE,
                  is_sell=index % 2 == 1, number=number + index + 1)
            for index, (price, size) in enumerate(zip(prices, sizes, strict=True))]

    def _quotes(self, row: dict[str, Any], length: int) -> list[Print]:
        count = min(max(4, round(row["volume"])), MOST_QUOTES)
        spread = row["spread"] if row["spread"] is not None else 10.0**-self.book.digits
        return [
            Print(int(row["us"]) + (2 * index + 1) * length // (2 * count) // 1000 * 1000, bid, round(bid + spread, self.book.digits))
            for index, bid in enumerate(_walk(row, count, self.book.digits))]

    def _rank(self, us: int) -> int:
        """Return how many candles the market has had before `us`: each has as many trades, so their ids count up."""
        tile: Tile | None = self.book._tile  # noqa: SLF001  the one fact that no question to a book tells
        if tile is None:
            return int(np.searchsorted(self.book.base.frame["us"].to_numpy(), us))
        turns, rest = divmod(us - tile.start_us, tile.period_us)
        within = int(np.searchsorted(tile.rows["us"].to_numpy(), tile.start_us + rest))
        return (turns + 10_000) * tile.rows.height + within


def _walk(row: dict[str, Any], count: int, digits: int) -> list[float]:
    """Return `count` prices (4 at least) from open over both ends of the candle to its close; those four as they stand."""
    ends = (row["low"], row["high"]) if row["close"] >= row["open"] else (row["high"], row["low"])
    corners = np.array([row["open"], *ends, row["close"]])
    places = np.linspace(0, 3, count)
    for corner in (1, 2):
        places[np.abs(places - corner).argmin()] = corner
    walked = np.interp(places, [0, 1, 2, 3], corners)
    rounded = np.where(places % 1 == 0, walked, walked.round(digits))
    return [float(price) for price in rounded.clip(row["low"], row["high"])]


def recorded(trades: pl.DataFrame, begun_us: int, after_us: int, until_us: int) -> list[Print]:
    """Return recorded trades as if their record had begun at `begun_us`: those in (after_us, until_us]."""
    shifted = trades.with_columns(us=pl.col("ts").dt.epoch("us") - pl.lit(trades["ts"].dt.epoch("us").min()) + begun_us)
    found = shifted.filter((pl.col("us") > after_us) & (pl.col("us") <= until_us)).sort("id")
    return [Print(us, price, size=size, is_sell=maker, number=number) for us, price, size, maker, number in
            found.select("us", "price", "qty", "buyer_maker", "id").rows()]


def load(rate: float, after_us: int, until_us: int) -> list[Print]:
    """Return `rate` made trades a second in (after_us, until_us]: numbered by time, walking between 99 and 101."""
    first, last = int(after_us * rate // SECOND_US) + 1, int(until_us * rate // SECOND_US)
    return [Print(int(number * SECOND_US // rate), 100 + (number % 201 - 100) / 100, size=(number % 7 + 1) / 100,
                  is_sell=number % 2 == 1, number=number) for number in range(first, last + 1)]

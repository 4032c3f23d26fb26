"""Candles from ticks: any timeframe, in memory that does not grow, right whatever the order in which ticks come.

A candle is closed by the clock, `lateness` after its end, so the last one of a session closes too. A tick that comes
after that is late: it is counted and told, never put into a candle that was given out. A candle that began before we
listened, or in whose time ticks were lost, is not whole and is never given out: REST has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import polars as pl

from core.candles import CANDLE_SCHEMA, TS
from core.clock import SECOND_US
from core.interval import Interval
from core.ticks import Tick
from core.timeframe import Grid

LATENESS_US: Final = SECOND_US
MOST_FORMING: Final = 8  # candles of one series that may form at once; a tick further ahead closes the oldest
_DIGITS: Final = 10  # of sums: sizes have fewer, so the rounded sum is the exact one


@dataclass(slots=True)
class Forming:
    """A candle that is forming. `end_us` is its close."""

    ts_us: int
    end_us: int
    open: float
    high: float
    low: float
    close: float
    first_us: int
    last_us: int
    volume: float = 0.0
    carry: float = 0.0  # what the sum has lost to rounding so far
    count: int = 0
    spread: float | None = None
    is_whole: bool = True

    def add_all(self, ticks: Iterable[Tick]) -> None:
        """Take ticks of this candle's time in."""
        high, low, volume, carry = self.high, self.low, self.volume, self.carry  # of a busy market: thousands a second
        for _, ts_us, _, bid, ask, told, size, _, _ in ticks:
            price = told if told is not None else bid
            if price is None:
                continue
            self.count += 1
            if price > high:  # noqa: PLR1730  a call takes thrice as long
                high = price
            if price < low:  # noqa: PLR1730  here too
                low = price
            if ts_us >= self.last_us:
                self.close, self.last_us = price, ts_us
            elif ts_us < self.first_us:
                self.open, self.first_us = price, ts_us
            if size is not None:
                total = volume + size
                carry += (volume - total) + size if volume >= size else (size - total) + volume
                volume = total
            elif ask is not None and bid is not None:
                spread = ask - bid
                self.spread = spread if self.spread is None or spread < self.spread else self.spread
        self.high, self.low, self.volume, self.carry = high, low, volume, carry

    def row(self) -> tuple[int, float, float, float, float, float, float | None]:
        """Return time and values in the order of CANDLE_SCHEMA. Quotes count as volume, as brokers do."""
        volume = round(self.volume + self.carry, _DIGITS) if self.volume or self.spread is None else float(self.count)
        return (self.ts_us, self.open, self.high, self.low, self.close, volume,
                None if self.spread is None else round(self.spread, _DIGITS))


@dataclass(slots=True)
class TickCandles:
    """The candles of one series. Quotes give candles of the bid, trades of the price.

    Attributes:
        grid: its open times.
        lateness_us: how long after its end a candle waits for ticks.
        since_us: from when on every tick is heard; None: nothing is given out.
        late: how many ticks came too late.
    """

    grid: Grid
    lateness_us: int = LATENESS_US
    since_us: int | None = None
    late: int = 0
    _forming: dict[int, Forming] = field(default_factory=dict)
    _current: Forming | None = None
    _closed_until_us: int = 0

    def add(self, tick: Tick) -> bool:
        """Take a tick in; False when it is late."""
        price = tick.price if tick.price is not None else tick.bid
        if price is None:
            return True
        now = self._current
        if now is not None and now.ts_us <= tick.ts_us < now.end_us:
            now.add_all((tick,))
            return True
        if tick.ts_us < self._closed_until_us:
            self.late += self.since_us is not None and tick.ts_us >= self.since_us
            return False
        slot = self.grid.floor(tick.ts_us)
        found = self._forming.get(slot)
        if found is None:
            is_whole = self.since_us is not None and slot >= self.since_us
            found = self._forming[slot] = Forming(
                slot, self.grid.next(slot), price, price, price, price, tick.ts_us, tick.ts_us, is_whole=is_whole)
        found.add_all((tick,))
        self._current = found
        return True

    def add_all(self, ticks: Sequence[Tick]) -> None:
        """Take ticks in, as `add` takes each one."""
        begin, now = 0, self._current
        for place, tick in enumerate(ticks):
            if now is None or not now.ts_us <= tick.ts_us < now.end_us:
                if now is not None and begin < place:
                    now.add_all(ticks[begin:place])
                self.add(tick)
                begin, now = place + 1, self._current
        if now is not None and begin < len(ticks):
            now.add_all(ticks[begin:])

    def lose(self, interval: Interval) -> None:
        """Note that ticks in `interval` were lost: candles that it touches are not given out."""
        for item in self._forming.values():
            if item.ts_us < interval.end and interval.start < item.end_us:
                item.is_whole = False

    def restart(self, since_us: int | None) -> None:
        """Begin to listen anew: what forms is not whole; whole candles begin at `since_us`, None for none yet."""
        self.since_us = since_us
        for item in self._forming.values():
            item.is_whole = False

    def close(self, now_us: int) -> list[Forming]:
        """Return the candles that ended `lateness_us` before `now_us`, oldest first, whole or not, and forget them."""
        ready = [slot for slot, item in self._forming.items() if item.end_us + self.lateness_us <= now_us]
        beyond = len(self._forming) - len(ready) - MOST_FORMING
        if beyond > 0:
            ready += sorted(set(self._forming) - set(ready))[:beyond]
        out = [self._forming.pop(slot) for slot in sorted(ready)]
        if out:
            self._closed_until_us = max(self._closed_until_us, out[-1].end_us)
            self._current = None
        return out

    def flush(self) -> list[Forming]:
        """Return all that forms, oldest first, and forget it: the session is over."""
        out = [self._forming.pop(slot) for slot in sorted(self._forming)]
        self._current = None
        return out


def candle_frame(rows: Sequence[tuple[int, float, float, float, float, float, float | None]]) -> pl.DataFrame:
    """Return rows of `Forming.row` as a frame of CANDLE_SCHEMA."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(CANDLE_SCHEMA)
    return pl.DataFrame({
        name: pl.Series(values, dtype=pl.Int64).cast(TS) if name == "ts" else pl.Series(values, dtype=pl.Float64)
        for name, values in zip(CANDLE_SCHEMA, columns, strict=True)})


def build(ticks: Iterable[Tick], grid: Grid) -> pl.DataFrame:
    """Return the candles of a whole history of ticks in time's order, as a frame of CANDLE_SCHEMA."""
    builder = TickCandles(grid, lateness_us=0, since_us=0)
    rows = []
    for tick in ticks:
        builder.add(tick)
        if len(builder._forming) > 1:  # noqa: SLF001  of this module
            rows += [item.row() for item in builder.close(tick.ts_us)]
    return candle_frame([*rows, *(item.row() for item in builder.flush())])

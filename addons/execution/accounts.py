"""Positions, profit and loss, and equity as functions of the orders: nothing of it is stored, so nothing can disagree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Trade:
    """A filled order. `sign` is 1 for a buy, -1 for a sell; `multiplier` turns a price difference of one unit into money."""

    book: str  # who holds it: mode and series without the timeframe
    at_us: int
    sign: int
    quantity: float
    price: float
    commission: float
    multiplier: float = 1.0


@dataclass(slots=True)
class Position:
    """What is held of one symbol: `quantity` is negative when short, `average` the price it was got at, money in quote."""

    book: str
    quantity: float = 0.0
    average: float = 0.0
    realised: float = 0.0
    commission: float = 0.0
    multiplier: float = 1.0

    def add(self, trade: Trade) -> float:
        """Take a trade in and return the profit it realised, its commission taken off."""
        signed, gain = trade.sign * trade.quantity, 0.0
        self.multiplier = trade.multiplier
        if self.quantity * signed >= 0:
            whole = self.quantity + signed
            self.average = (self.average * abs(self.quantity) + trade.price * trade.quantity) / abs(whole)
            self.quantity = whole
        else:
            closed = min(abs(signed), abs(self.quantity))
            side = 1 if self.quantity > 0 else -1
            gain = (trade.price - self.average) * closed * side * self.multiplier
            self.quantity += signed
            if abs(signed) > closed:  # turned over: the rest was got at this price
                self.average = trade.price
            if abs(self.quantity) < 1e-12:  # what is left of 0.1 + 0.2 - 0.3
                self.quantity = self.average = 0.0
        self.realised += gain - trade.commission
        self.commission += trade.commission
        return gain - trade.commission

    def unrealised(self, price: float) -> float:
        """Return what closing at `price` would bring."""
        return (price - self.average) * self.quantity * self.multiplier


def positions(trades: Iterable[Trade]) -> dict[str, Position]:
    """Return the positions that `trades`, in order of time, lead to."""
    out: dict[str, Position] = {}
    for trade in trades:
        out.setdefault(trade.book, Position(trade.book)).add(trade)
    return out


def equity(trades: Iterable[Trade], prices: Mapping[str, float] | None = None) -> list[tuple[int, float]]:
    """Return (instant, money made until then): after each trade realised, at its end also open positions at `prices`."""
    out: list[tuple[int, float]] = []
    held: dict[str, Position] = {}
    total = 0.0
    for trade in trades:
        total += held.setdefault(trade.book, Position(trade.book)).add(trade)
        out.append((trade.at_us, total))
    if out and prices:
        out.append((out[-1][0], total + sum(item.unrealised(prices[name]) for name, item in held.items() if name in prices)))
    return out


def realised_since(trades: Iterable[Trade], since_us: int) -> float:
    """Return the profit (negative: loss) realised at or after `since_us`, commissions taken off."""
    held: dict[str, Position] = {}
    total = 0.0
    for trade in trades:
        gain = held.setdefault(trade.book, Position(trade.book)).add(trade)
        total += gain if trade.at_us >= since_us else 0.0
    return total

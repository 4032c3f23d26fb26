"""What the exchanges' accounts have in common: market orders filled at the newest price, balances that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from sandbox.box import Ask
from sandbox.exchange import split
from sandbox.market import Book
from sandbox.orders import Taken

FUNDS: Final = {"USDT": 1000.0, "USD": 1000.0, "BTC": 0.5}
FEE_RATE: Final = 0.001


@dataclass(frozen=True, slots=True)
class Account:
    """The one account of an exchange of the sandbox."""

    ask: Ask
    venue: str

    @property
    def orders(self) -> list[Taken]:
        """All its orders, oldest first."""
        return self.ask.box.orders.of(self.venue, 0)

    def price(self, book: Book) -> float:
        """Return the newest price that the exchange shows."""
        newest = book.newest(1, book.base.length_us, self.ask.now_us + 1, self.ask.now_us)
        return float(newest["close"][-1])

    def balances(self, *coins: str) -> dict[str, float]:
        """Return what the account holds, fees paid in the quote currency."""
        held = {coin: FUNDS.get(coin, 0.0) for coin in coins}
        for order in self.orders:
            base, quote = split(order.symbol)
            sign = 1 if order.operation == "Buy" else -1
            held[base] = held.get(base, FUNDS.get(base, 0.0)) + sign * order.lots
            worth = order.lots * order.price
            held[quote] = held.get(quote, FUNDS.get(quote, 0.0)) - sign * worth - FEE_RATE * worth
        return held

    def take(self, symbol: str, book: Book, side: str, amount: float, key: str) -> Taken | None:
        """Fill a market order, None when the balance is too small."""
        price, (base, quote) = self.price(book), split(symbol)
        held = self.balances(base, quote)
        operation: Literal["Buy", "Sell"] = "Buy" if side.lower() == "buy" else "Sell"
        if (held[quote] < amount * price * (1 + FEE_RATE)) if operation == "Buy" else (held[base] < amount):
            return None
        at_us = self.ask.now_us // 1000 * 1000
        return self.ask.box.orders.take(
            platform=self.venue, user=0, symbol=symbol, operation=operation, lots=amount, price=price, at_us=at_us, wall_us=at_us,
            comment=key, magic=0)


def number(text: str) -> float | None:
    """Return a finite amount, None when it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

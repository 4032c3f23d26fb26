"""Orders at the practice broker and exchanges: taken at its own price, kept until the sandbox is reset.

MetaTrader knows no client key: the same comment and magic number sent twice are two orders. That is kept, so that a test sees
a double. `on_accept` is called between taking an order and answering: there a test can end whoever sent it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final, Literal

_FIRST_TICKET: Final = 700_001


@dataclass(frozen=True, slots=True)
class Taken:
    """One order that was filled as it came. `at_us` is UTC, `wall_us` the broker's clock, `lots` of 100,000 units, coins at exchanges."""

    ticket: int
    platform: str
    user: int
    symbol: str
    operation: Literal["Buy", "Sell"]
    lots: float
    price: float
    at_us: int
    wall_us: int
    comment: str
    magic: int


@dataclass(slots=True)
class Orders:
    """All orders of all accounts, in the order in which they were taken."""

    taken: list[Taken] = field(default_factory=list)
    on_accept: Callable[[Taken], None] | None = None
    _lock: Lock = field(default_factory=Lock)
    _next: int = _FIRST_TICKET

    def take(self, **values: Any) -> Taken:
        """Keep an order and return it with its ticket."""
        with self._lock:
            order = Taken(ticket=self._next, **values)
            self._next += 1
            self.taken.append(order)
        if self.on_accept is not None:
            self.on_accept(order)
        return order

    def of(self, platform: str, user: int) -> list[Taken]:
        """Return the orders of one account."""
        with self._lock:
            return [order for order in self.taken if order.platform == platform and order.user == user]

    def clear(self) -> None:
        """Forget everything; tickets go on."""
        with self._lock:
            self.taken.clear()
        self.on_accept = None

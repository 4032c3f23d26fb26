"""What the exchanges have in common: hosts, markets, and counting requests against a limit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from starlette.responses import Response

from core.clock import DAY_US, HOUR_US, MINUTE_US
from sandbox.box import Ask

Endpoint = Callable[["Ask", str], Response | None]
_QUOTES: Final = ("USDT", "BUSD", "USDC", "FDUSD", "USD", "EUR", "GBP", "JPY", "BTC", "ETH")
LENGTHS: Final = {
    "1m": MINUTE_US, "3m": 3 * MINUTE_US, "5m": 5 * MINUTE_US, "15m": 15 * MINUTE_US, "30m": 30 * MINUTE_US,
    "1h": HOUR_US, "2h": 2 * HOUR_US, "4h": 4 * HOUR_US, "6h": 6 * HOUR_US, "8h": 8 * HOUR_US, "12h": 12 * HOUR_US,
    "1d": DAY_US, "3d": 3 * DAY_US, "1w": 7 * DAY_US, "1M": 30 * DAY_US}


def split(symbol: str) -> tuple[str, str]:
    """Return base and quote of a symbol like BTCUSDT."""
    quote = next((quote for quote in _QUOTES if symbol.endswith(quote) and symbol != quote), symbol[-3:])
    return symbol.removesuffix(quote), quote


def decimal(value: float, digits: int = 8) -> str:
    """Return a number as exchanges write it: plain decimals in a string, NaN as its name."""
    return f"{value:.{digits}f}"


def exact(value: float) -> str:
    """Return a candle's number as `decimal`, with more than eight places where it has them: a file's very values are served."""
    text = decimal(value)
    return text if float(text) == value or value - value != 0 else format(Decimal(repr(value)), "f")


@dataclass(slots=True)
class Meter:
    """Weights spent in a sliding window of machine time.

    Args:
        limit: weight allowed per window.
        window: seconds.
        patience: refusals after which the caller is banned.
    """

    limit: int
    window: float = 60.0
    patience: int = 10
    _spent: deque[tuple[float, int]] = field(default_factory=deque)
    _refused: int = 0

    def spend(self, weight: int) -> tuple[int, float]:
        """Spend and return the weight used in the window, and the seconds to wait (0 when all is well)."""
        now = time.monotonic()
        while self._spent and self._spent[0][0] <= now - self.window:
            self._spent.popleft()
        used = sum(each for _, each in self._spent)
        if used + weight > self.limit and self._spent:
            self._refused += 1
            return used, max(self._spent[0][0] + self.window - now, 0.001)
        if used == 0:
            self._refused = 0
        self._spent.append((now, weight))
        return used + weight, 0.0

    @property
    def is_banned(self) -> bool:
        """Whether the caller went on asking after too many refusals."""
        return self._refused > self.patience

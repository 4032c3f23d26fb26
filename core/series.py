"""A series: one connection's candles of one symbol at one timeframe."""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.errors import InputError
from core.timeframe import Timeframe

_SLUG = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
SLUG_MAX = 63
SYMBOL_MAX = 100


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """The key of a series; `connection` is a slug, `symbol` the provider's own spelling."""

    connection: str
    symbol: str
    timeframe: Timeframe

    @staticmethod
    def parse(connection: str, symbol: str, timeframe: str) -> Series:
        """Return the series named by a person; each part is checked."""
        return Series(check_slug(connection), check_symbol(symbol), Timeframe.parse(timeframe))

    def __str__(self) -> str:
        return f"{self.connection} {self.symbol} {self.timeframe}"


def check_slug(text: str) -> str:
    """Return `text` if it can name a connection; else raise InputError."""
    if len(text) > SLUG_MAX or not _SLUG.fullmatch(text):
        raise InputError(
            "connection", text, f"a slug: a-z first, then a-z, 0-9, single - or _, at most {SLUG_MAX}", "e.g. kraken-spot")
    return text


def check_symbol(text: str) -> str:
    """Return `text` if it can name a symbol; else raise InputError."""
    if not text or text != text.strip() or len(text) > SYMBOL_MAX or not text.isprintable() or text in {".", ".."}:
        raise InputError(
            "symbol", text, f"1 to {SYMBOL_MAX} printable characters, no space at either end", "use the provider's spelling")
    return text

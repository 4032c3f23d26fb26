"""The mtapi bridge to MetaTrader 4, where it differs from MetaTrader 5."""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from core.clock import MINUTE_US
from sandbox.box import Ask
from sandbox.market import Book
from sandbox.mtapi import Bridge, Handler, last_price, naive, parse_wall, utc_of
from sandbox.sessions import RefusalError

LENGTHS: Final = {
    "M1": 1, "M5": 5, "M15": 15, "M30": 30, "H1": 60, "H4": 240, "D1": 1440, "W1": 10_080, "MN1": 43_200}
_COUNT_LIMIT: Final = 32_767  # the library counts in int16


class Bridge4(Bridge):
    """MetaTrader 4: /Quote and /QuoteHistory, timeframes as text, bars counted back from `from`."""

    platform = "mt4"

    def market_handlers(self) -> dict[str, Handler]:
        """Return the endpoints that only this platform has."""
        return {
            "quote": lambda bridge, ask: bridge.quote(ask, ask.text("symbol")),
            "quotehistory": lambda bridge, ask: _history(bridge, ask, ask.text("symbol")),
            "quotehistorymany": lambda bridge, ask: bridge.many(ask, "symbol", _history),
        }

    def symbols(self, ask: Ask) -> object:
        """Answer /Symbols: a list of names."""
        return self.symbol_list(ask)

    def params_of(self, name: str, book: Book) -> dict[str, Any]:
        """Return the parameters of one symbol."""
        return {"symbolName": name, "groupParams": {"minLot": 0.01, "maxLot": 100, "lotStep": 0.01},
                "group": {"name": "Forex", "description": ""},
                "symbol": {"digits": book.digits, "point": 10.0**-book.digits, "contractSize": 100000, "stopsLevel": 0,
                           "freezeLevel": 0, "spread": 0, "swapLong": -5.7, "swapShort": 0,
                           "ex": {"description": name, "sessions": []}}}

    def summary(self, ask: Ask) -> dict[str, Any]:
        """Answer /AccountSummary: no method, no synced."""
        whole = super().summary(ask)
        return {**{key: value for key, value in whole.items() if key not in {"method", "synced"}}, "type": "Demo"}

    def quote(self, ask: Ask, symbol: str) -> dict[str, Any]:
        """Answer /Quote."""
        book = self.book(ask, symbol)
        bid, ask_price, at_us = last_price(ask, book)
        return {"symbol": symbol, "bid": bid, "ask": ask_price,
                "time": naive(ask.box.switches.server_clock.wall(at_us)), "high": bid, "low": bid}


def _history(bridge: Bridge, ask: Ask, symbol: str) -> list[dict[str, Any]]:
    book = bridge.book(ask, symbol)
    name, count = ask.text("timeframe"), ask.whole("count", 0) or 0
    if name not in LENGTHS:
        raise RefusalError("DONE", f"Requested value '{name}' was not found.")
    if not 0 <= count <= _COUNT_LIMIT:
        raise RefusalError("DONE", "Value was either too large or too small for an Int16.")
    length = LENGTHS[name] * MINUTE_US
    clock = ask.box.switches.server_clock
    end_us = utc_of(ask, parse_wall(ask.text("from"))) + 1
    rows = ask.spoil(book.newest(count, length, end_us, ask.now_us, clock), length)
    if rows.is_empty():
        return []
    rows = rows.reverse() if ask.box.switches.order == "desc" else rows
    low, high = rows.select(low=pl.col("us").min(), high=pl.col("us").max()).row(0)
    return rows.select(
        time=clock.to_wall("us", low, high).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S"),
        open="open", high="high", low="low", close="close", volume=pl.col("volume").round(0)).to_dicts()

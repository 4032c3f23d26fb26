"""Trades read from whole messages of the busiest venues, in one pass for each message.

ccxt makes a dictionary of twenty entries of each trade, which takes some 70 microseconds; what a stream keeps of it are
six. A message is read here only when every trade in it is exactly what its venue's protocol says; any other one goes to
ccxt untouched, which takes it or says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final

import orjson

from core.clock import LATEST_US, Clock
from core.ticks import Tick

FrameReader = Callable[[Any], list[Tick] | None]
ID_LENGTH: Final = 64  # of a trade's id; venues use 36 at most
_TOLD_AT: Final = 200  # a message tells its kind within so many characters
_SIDES: Final = {"buy": "buy", "sell": "sell", "BUY": "buy", "SELL": "sell"}
_LATEST_MS: Final = LATEST_US // 1000
_INFINITE: Final = float("inf")
_by_time: Final = itemgetter(1)


def frame_reader(exchange: Any, symbols: Sequence[str], clock: Clock) -> FrameReader | None:
    """Return what reads a message's trades of `symbols`; None for a venue whose messages ccxt has to read.

    The reader returns the ticks of a message of trades, oldest first, and None for every message that ccxt is to read.
    """
    known = _READERS.get(exchange.id)
    markets = [exchange.market(symbol) for symbol in symbols]
    if known is None or not all(market.get("spot") is True for market in markets):
        return None
    mark, read, name = known
    named = {str(market[name]): symbol for market, symbol in zip(markets, symbols, strict=True)}

    def reader(text: Any) -> list[Tick] | None:
        if not isinstance(text, str) or mark not in text[:_TOLD_AT]:
            return None
        try:
            ticks = read(orjson.loads(text), named, clock.now_us())
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            return None  # ccxt reads it, and says what is wrong
        return None if ticks is None else sorted(ticks, key=_by_time)

    return reader


def _kraken(message: Any, named: Mapping[str, str], now_us: int) -> list[Tick] | None:
    if message["channel"] != "trade":
        return None
    return [
        Tick(named[item["symbol"]], _millis(item["timestamp"]) * 1000, now_us, None, None, _price(item["price"]), _number(item["qty"]),
             _SIDES[item["side"]], _id(item["trade_id"]))
        for item in message["data"]]


def _coinbase(message: Any, named: Mapping[str, str], now_us: int) -> list[Tick] | None:
    if message["channel"] != "market_trades":
        return None
    out: list[Tick] = []
    for event in message["events"]:
        for item in reversed(event["trades"]):  # they come newest first
            if "size_in_quote" in item:
                return None
            out.append(Tick(named[item["product_id"]], _millis(item["time"]) * 1000, now_us, None, None, _price(item["price"]),
                            _number(item["size"]), _SIDES[item["side"]], _id(item["trade_id"])))
    return out


def _binance(message: Any, named: Mapping[str, str], now_us: int) -> list[Tick] | None:
    stamp, is_sell = message["T"], message["m"]
    if message["e"] != "trade" or type(stamp) is not int or not 0 <= stamp <= _LATEST_MS or type(is_sell) is not bool:
        return None
    return [Tick(named[message["s"]], stamp * 1000, now_us, None, None, _price(message["p"]), _number(message["q"]),
                 "sell" if is_sell else "buy", _id(message["t"]))]


# What every message of trades holds, its reader, and by which name of a market.
_READERS: Final = {
    "kraken": ('"trade"', _kraken, "symbol"),
    "coinbase": ('"market_trades"', _coinbase, "id"),
    "binance": ('"trade"', _binance, "id"),
}


@lru_cache(maxsize=1024)
def _second_ms(text: str) -> int:
    """Return the milliseconds of `2024-01-31T10:00:00`; trades share their seconds."""
    if len(text) != 19 or text[10] != "T":
        raise ValueError(text)
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def _millis(text: str) -> int:
    """Return the milliseconds of a UTC time with any fraction, cut as ccxt cuts; ValueError for one in another form."""
    fraction = text[19:]
    if fraction == "Z":
        ms = 0
    elif fraction[0] == "." and fraction[-1] == "Z" and fraction[1:-1].isdecimal():
        ms = int((fraction[1:-1] + "00")[:3])
    else:
        raise ValueError(text)
    found = _second_ms(text[:19]) + ms
    if not 0 <= found <= _LATEST_MS:
        raise ValueError(text)
    return found


def _number(value: Any) -> float:
    """Return a number or a number's text as a float; ValueError for anything else, `nan` and infinities too."""
    if type(value) is bool:
        raise ValueError(value)
    number = float(value)
    if not 0 <= number < _INFINITE:
        raise ValueError(value)
    return number


def _price(value: Any) -> float:
    """Return a number as `_number` does; ValueError for zero too: nothing is traded at it."""
    number = _number(value)
    if number == 0:
        raise ValueError(value)
    return number


def _id(value: Any) -> str:
    """Return an id as text; ValueError for what is none."""
    if type(value) is int:
        return str(value)
    if type(value) is str and 0 < len(value) <= ID_LENGTH:
        return value
    raise ValueError(value)


__all__ = ["ID_LENGTH", "FrameReader", "frame_reader"]

"""Binance's dialect: spot klines, trades, account; futures hosts list no markets."""

from __future__ import annotations

import math
from typing import Any, Final

import polars as pl
from starlette.responses import Response

from core.clock import LATEST_US
from sandbox import binance_orders
from sandbox.box import Ask, json_answer
from sandbox.exchange import LENGTHS, Meter, decimal, exact, split
from sandbox.market import Book

HOSTS: Final = ("api.binance.com", "fapi.binance.com", "dapi.binance.com", "data-api.binance.vision",
                "api1.binance.com", "api2.binance.com", "api3.binance.com", "api4.binance.com", "eapi.binance.com")
_LIMIT: Final = 1000
_WEIGHTS: Final = {"klines": 2, "exchangeInfo": 20, "account": 20, "order": 4, "openOrders": 80, "myTrades": 20, "trades": 25, "aggTrades": 4, "historicalTrades": 25}
# What a client with a key asks for besides: no margin markets; the coins' networks are not played.
_KEYED: Final[dict[str, Any]] = {"allPairs": [], "allAssets": [], "getall": [], "tradeFee": []}


class Binance:
    """The spot exchange."""

    venue = "binance"
    hosts = HOSTS

    def __init__(self) -> None:
        self.meter = Meter(limit=6000)

    def answer(self, ask: Ask, host: str, path: str) -> Response:
        """Return the answer to one request; `path` begins after the host."""
        endpoint = path.rsplit("/", 1)[-1]
        headers: dict[str, str] = {}
        if ask.box.switches.strict_limits:
            used, wait = self.meter.spend(_WEIGHTS.get(endpoint, 1))
            headers["X-MBX-USED-WEIGHT-1M"] = str(used)
            if wait:
                status = 418 if self.meter.is_banned else 429
                return json_answer({"code": -1003, "msg": "Too much request weight used; current limit is 6000 request "
                                                          "weight per 1 MINUTE."},
                                   status, {**headers, "Retry-After": str(math.ceil(wait))})
        value, status = self._value(ask, host, endpoint)
        return json_answer(value, status, headers)

    def _value(self, ask: Ask, host: str, endpoint: str) -> tuple[Any, int]:
        if endpoint == "exchangeInfo":
            markets = [] if host[0] in "fde" and "api." in host[1:6] else self._markets(ask)
            return {"timezone": "UTC", "serverTime": ask.now_us // 1000, "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}],
                "exchangeFilters": [], "symbols": markets}, 200
        fixed = {**_KEYED, "ping": {}, "time": {"serverTime": ask.now_us // 1000}}
        if endpoint in fixed:
            return fixed[endpoint], 200
        if endpoint in binance_orders.ENDPOINTS:
            return binance_orders.answer(ask, endpoint)
        if endpoint in {"klines", "trades", "aggTrades", "historicalTrades"}:
            book = ask.book(self.venue, ask.text("symbol"))
            if book is None:
                return {"code": -1121, "msg": "Invalid symbol."}, 400
            return self._klines(ask, book) if endpoint == "klines" else self._trades(ask, endpoint)
        return {"code": -1000, "msg": f"unknown path {endpoint}"}, 404

    def _markets(self, ask: Ask) -> list[dict[str, Any]]:
        return [_market(symbol, book) for symbol, book in sorted(ask.box.shelf.of(self.venue).items())]

    def _klines(self, ask: Ask, book: Book) -> tuple[Any, int]:
        length = LENGTHS.get(ask.text("interval"))
        if length is None:
            return {"code": -1120, "msg": "Invalid interval."}, 400
        limit = min(ask.whole("limit", 500) or 500, _LIMIT)
        start, end = ask.whole("startTime"), ask.whole("endTime")
        end_us = LATEST_US if end is None else end * 1000 + 1
        if start is None:
            rows = book.newest(limit, length, end_us, ask.now_us)
        else:
            rows = book.oldest(limit, length, start * 1000, end_us, ask.now_us)
        return [_kline(row, length) for row in ask.spoil(rows, length).iter_rows(named=True)], 200

    def _trades(self, ask: Ask, endpoint: str) -> tuple[Any, int]:
        trades = ask.box.shelf.trades.get((self.venue, ask.text("symbol")))
        if trades is None:
            return [], 200
        limit = min(ask.whole("limit", 500) or 500, _LIMIT)
        trades = trades.with_columns(ms=pl.col("ts").dt.epoch("ms")).sort("id")
        start, end, first = ask.whole("startTime"), ask.whole("endTime"), ask.whole("fromId")
        if end is not None:
            trades = trades.filter(pl.col("ms") <= end)
        if first is not None:
            trades = trades.filter(pl.col("id") >= first).head(limit)
        elif start is not None:
            trades = trades.filter(pl.col("ms") >= start).head(limit)
        rows = trades.tail(limit).iter_rows(named=True)
        if endpoint == "aggTrades":
            return [{"a": row["id"], "p": decimal(row["price"]), "q": decimal(row["qty"]), "f": row["id"],
                     "l": row["id"], "T": row["ms"], "m": row["buyer_maker"], "M": True} for row in rows], 200
        return [{"id": row["id"], "price": decimal(row["price"]), "qty": decimal(row["qty"]),
                 "quoteQty": decimal(row["price"] * row["qty"]), "time": row["ms"], "isBuyerMaker": row["buyer_maker"],
                 "isBestMatch": True} for row in rows], 200


def _kline(row: dict[str, Any], length: int) -> list[Any]:
    quote = decimal(row["volume"] * (row["open"] + row["close"]) / 2)
    return [row["us"] // 1000, *(exact(row[name]) for name in ("open", "high", "low", "close", "volume")),
            (row["us"] + length) // 1000 - 1, quote, 0, "0.00000000", "0.00000000", "0"]


def _market(symbol: str, book: Book) -> dict[str, Any]:
    base, quote = split(symbol)
    return {
        "symbol": symbol, "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": quote,
        "quotePrecision": 8, "quoteAssetPrecision": 8, "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "MARKET"], "icebergAllowed": True, "ocoAllowed": True, "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]], "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": decimal(10.0**-book.digits), "maxPrice": "1000000.00000000",
             "tickSize": decimal(10.0**-book.digits)},
            {"filterType": "LOT_SIZE", "minQty": "0.00001000", "maxQty": "9000.00000000", "stepSize": "0.00001000"},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000"}]}

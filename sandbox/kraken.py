"""Kraken's dialect: candles are the newest 720 and the open one, whatever was asked for."""

from __future__ import annotations

from typing import Any, Final

import polars as pl
from starlette.responses import Response

from core.clock import MINUTE_US, SECOND_US, isoformat
from sandbox import kraken_orders
from sandbox.box import Ask, json_answer
from sandbox.exchange import Meter, decimal, exact, split
from sandbox.market import SCHEMA, Book

HOSTS: Final = ("api.kraken.com",)
_INTERVALS: Final = (1, 5, 15, 30, 60, 240, 1440, 10_080, 21_600)
_KEPT: Final = 720
_OLD_NAMES: Final = {"BTC": ("XXBT", "XBT"), "ETH": ("XETH", "ETH"), "LTC": ("XLTC", "LTC"), "USD": ("ZUSD", "USD"),
                     "EUR": ("ZEUR", "EUR"), "GBP": ("ZGBP", "GBP"), "JPY": ("ZJPY", "JPY")}


class Kraken:
    """The spot exchange."""

    venue = "kraken"
    hosts = HOSTS

    def __init__(self) -> None:
        self.meter = Meter(limit=15, window=15.0)

    def answer(self, ask: Ask, _host: str, path: str) -> Response:
        """Return the answer to one request; errors come with status 200."""
        if ask.box.switches.strict_limits and self.meter.spend(1)[1]:
            return _refuse("EAPI:Rate limit exceeded")
        endpoints = {"Time": _time, "SystemStatus": _status, "Assets": self._assets, "AssetPairs": self._pairs,
                     "OHLC": self._ohlc}
        name = path.rsplit("/", 1)[-1]
        if name in kraken_orders.ENDPOINTS:
            return json_answer(kraken_orders.answer(ask, name, self._find))
        endpoint = endpoints.get(name)
        return _refuse("EGeneral:Unknown method") if endpoint is None else endpoint(ask)

    def _pairs(self, ask: Ask) -> Response:
        return _give(dict(_pair(symbol, book) for symbol, book in sorted(ask.box.shelf.of(self.venue).items())))

    def _assets(self, ask: Ask) -> Response:
        names = sorted({part for symbol in ask.box.shelf.of(self.venue) for part in split(symbol)})
        return _give({_OLD_NAMES.get(name, (name, name))[0]: {
            "aclass": "currency", "altname": _OLD_NAMES.get(name, (name, name))[1], "decimals": 10,
            "display_decimals": 5, "status": "enabled"} for name in names})

    def _ohlc(self, ask: Ask) -> Response:
        found = self._find(ask)
        if found is None:
            return _refuse("EQuery:Unknown asset pair")
        interval = ask.whole("interval", 1)
        if interval not in _INTERVALS:
            return _refuse("EGeneral:Invalid arguments:interval")
        name, _, book = found
        length = (interval or 1) * MINUTE_US
        rows = _newest_filled(book, length, ask.now_us)
        last = int(rows["us"][-2]) // SECOND_US if rows.height > 1 else 0
        since = ask.whole("since")
        if since is not None:
            rows = rows.filter(pl.col("us") > since * SECOND_US)
        rows = ask.spoil(rows, length)
        return _give({name: [_row(row) for row in rows.iter_rows(named=True)], "last": last})

    def _find(self, ask: Ask) -> tuple[str, str, Book] | None:
        """Return Kraken's name, ours and the candles of the pair that is asked for."""
        wanted, found = ask.text("pair"), None
        for symbol, book in ask.box.shelf.of(self.venue).items():
            name, pair = _pair(symbol, book)
            if wanted in {name, pair["altname"], pair["wsname"]}:
                found = name, symbol, book
        return found


def _time(ask: Ask) -> Response:
    seconds = ask.now_us // SECOND_US
    return _give({"unixtime": seconds, "rfc1123": isoformat(seconds * SECOND_US)})


def _status(ask: Ask) -> Response:
    return _give({"status": "online", "timestamp": isoformat(ask.now_us // SECOND_US * SECOND_US)})


def _newest_filled(book: Book, length: int, now_us: int) -> pl.DataFrame:
    """Return the newest 720 candles and the open one; those without a trade repeat the last price with volume 0."""
    until = book.until_us(now_us, length)
    newest = (until - (1 if until < now_us else 0)) // length * length
    if length == 10_080 * MINUTE_US:  # weeks open on Thursday in Kraken's plain division of the epoch; keep the market's
        return book.newest(_KEPT + 1, length, until + 1, now_us)
    first = newest - _KEPT * length
    rows = book.candles(length, first, newest + 1, now_us)
    before = book.newest(1, length, first, now_us)
    if rows.is_empty() and before.is_empty():
        return rows
    start = first if not before.is_empty() else int(rows["us"][0])
    grid = pl.DataFrame({"us": pl.int_range(start, newest + 1, length, eager=True)}, schema={"us": pl.Int64()})
    known = pl.concat([before, rows])
    filled = grid.join(known, on="us", how="left")
    last_before = float(before["close"][0]) if not before.is_empty() else float(rows["open"][0])
    close = pl.col("close").forward_fill().fill_null(last_before)
    return filled.with_columns(close=close).with_columns(
        *(pl.col(name).fill_null(pl.col("close")) for name in ("open", "high", "low")),
        volume=pl.col("volume").fill_null(0)).select(list(SCHEMA)).cast(SCHEMA)


def _pair(symbol: str, book: Book) -> tuple[str, dict[str, Any]]:
    base, quote = (_OLD_NAMES.get(part, (part, part)) for part in split(symbol))
    is_old = len(base[0]) == 4 and base[0] != base[1] and quote[0] != quote[1]
    name = base[0] + quote[0] if is_old else base[1] + quote[1]
    return name, {
        "altname": base[1] + quote[1], "wsname": f"{base[1]}/{quote[1]}", "aclass_base": "currency", "base": base[0],
        "aclass_quote": "currency", "quote": quote[0], "lot": "unit", "pair_decimals": book.digits, "lot_decimals": 8,
        "lot_multiplier": 1, "leverage_buy": [], "leverage_sell": [], "fees": [[0, 0.26]], "fees_maker": [[0, 0.16]],
        "fee_volume_currency": "ZUSD", "margin_call": 80, "margin_stop": 40, "ordermin": "0.0001", "costmin": "0.5",
        "tick_size": decimal(10.0**-book.digits, book.digits), "status": "online"}


def _row(row: dict[str, Any]) -> list[Any]:
    traded = row["volume"] > 0
    vwap = decimal((row["high"] + row["low"]) / 2) if traded else "0.0"
    return [row["us"] // SECOND_US, *(exact(row[name]) for name in ("open", "high", "low", "close")), vwap,
            exact(row["volume"]), 1 if traded else 0]


def _give(result: object) -> Response:
    return json_answer({"error": [], "result": result})


def _refuse(error: str) -> Response:
    return json_answer({"error": [error]})

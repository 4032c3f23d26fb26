"""Coinbase's dialect: v2 currencies and v3 candles, newest first, none for a minute without a trade."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from core.clock import SECOND_US, isoformat
from sandbox import coinbase_orders
from sandbox.box import Ask, json_answer
from sandbox.exchange import LENGTHS, Meter, decimal, exact, split
from sandbox.market import Book

HOSTS: Final = ("api.coinbase.com",)
_LENGTHS: Final = {
    "ONE_MINUTE": "1m", "FIVE_MINUTE": "5m", "FIFTEEN_MINUTE": "15m", "THIRTY_MINUTE": "30m", "ONE_HOUR": "1h",
    "TWO_HOUR": "2h", "SIX_HOUR": "6h", "ONE_DAY": "1d"}
_MOST: Final = 300
_FIAT: Final = {"USD": "US Dollar", "EUR": "Euro", "GBP": "British Pound"}


class Coinbase:
    """The advanced-trade exchange."""

    venue = "coinbase"
    hosts = HOSTS

    def __init__(self) -> None:
        self.meter = Meter(limit=10, window=1.0)

    def answer(self, ask: Ask, _host: str, path: str) -> Response:
        """Return the answer to one request."""
        if ask.box.switches.strict_limits:
            _, wait = self.meter.spend(1)
            if wait:
                return json_answer({"error": "rate_limit_exceeded", "message": "Too many requests"}, 429,
                                   {"Retry-After": "1"})
        whole = ask.now_us // SECOND_US * SECOND_US
        fixed: dict[str, Any] = {
            "/v2/time": {"data": {"iso": isoformat(whole), "epoch": whole // SECOND_US}},
            "/api/v3/brokerage/time": {"iso": isoformat(whole), "epochSeconds": str(whole // SECOND_US),
                                       "epochMillis": str(ask.now_us // 1000)},
        }
        if path in fixed:
            return json_answer(fixed[path])
        is_signed = path in coinbase_orders.PATHS
        if is_signed or path.startswith("/v2/"):
            return coinbase_orders.answer(ask, path) if is_signed else self._currencies(ask, path)
        parts = path.removeprefix("/api/v3/brokerage").removeprefix("/market").strip("/").split("/")
        if parts == ["products"]:
            return self._products(ask)
        if parts[0] == "products" and len(parts) == 3 and parts[2] == "candles":
            return self._candles(ask, parts[1])
        return json_answer({"error": "NOT_FOUND", "message": f"no such path {path}"}, 404)

    def _currencies(self, ask: Ask, path: str) -> Response:
        names = {part for symbol in ask.box.shelf.of(self.venue) for part in split(symbol)}
        if path == "/v2/currencies":
            return json_answer({"data": [
                {"id": name, "name": _FIAT[name], "min_size": "0.01"} for name in sorted(names & set(_FIAT))]})
        if path == "/v2/currencies/crypto":
            return json_answer({"data": [
                {"asset_id": f"sandbox-{name}", "code": name, "name": name, "color": "#000000", "sort_index": 100,
                 "exponent": 8, "type": "crypto", "address_regex": ""} for name in sorted(names - set(_FIAT))]})
        if path == "/v2/exchange-rates":
            return json_answer({"data": {"currency": "USD", "rates": dict.fromkeys(sorted(names), "1.0")}})
        return json_answer({"errors": [{"id": "not_found", "message": "Not found"}]}, 404)

    def _products(self, ask: Ask) -> Response:
        is_spot = ask.text("product_type", "SPOT") == "SPOT"
        books = ask.box.shelf.of(self.venue) if is_spot else {}
        products = [_product(symbol, book, ask) for symbol, book in sorted(books.items())]
        return json_answer({"products": products, "num_products": len(products)})

    def _candles(self, ask: Ask, product: str) -> Response:
        book = ask.book(self.venue, product.replace("-", ""))
        if book is None or product.count("-") != 1:
            return json_answer({"error": "INVALID_ARGUMENT", "error_details": f"valid product_id is required: {product}",
                                "message": "valid product_id is required"}, 400)
        name = _LENGTHS.get(ask.text("granularity"))
        start, end = ask.whole("start"), ask.whole("end")
        if name is None or start is None or end is None:
            return _invalid("granularity, start and end are required")
        length = LENGTHS[name]
        if (end - start) * SECOND_US // length > _MOST:
            return _invalid(f"start and end argument is invalid - number of candles requested should be less than {_MOST}")
        rows = book.candles(length, start * SECOND_US, end * SECOND_US + 1, ask.now_us)
        rows = ask.spoil(rows, length).reverse()
        return json_answer({"candles": [{
            "start": str(row["us"] // SECOND_US),
            **{field: exact(row[field]) for field in ("low", "high", "open", "close", "volume")},
        } for row in rows.iter_rows(named=True)]})


def _invalid(message: str) -> Response:
    return json_answer({"error": "INVALID_ARGUMENT", "error_details": message, "message": message}, 400)


def _product(symbol: str, book: Book, ask: Ask) -> dict[str, Any]:
    base, quote = split(symbol)
    step = decimal(10.0**-book.digits, book.digits)
    newest = book.newest(1, book.base.length_us, ask.now_us + 1, ask.now_us)
    price = decimal(float(newest["close"][-1]), book.digits) if newest.height else ""
    return {
        "product_id": f"{base}-{quote}", "price": price, "price_percentage_change_24h": "0", "volume_24h": "0",
        "volume_percentage_change_24h": "0", "base_increment": "0.00000001", "quote_increment": step,
        "quote_min_size": "1", "quote_max_size": "150000000", "base_min_size": "0.00000001", "base_max_size": "3400",
        "base_name": base, "quote_name": _FIAT.get(quote, quote), "watched": False, "is_disabled": False, "new": False,
        "status": "online", "cancel_only": False, "limit_only": False, "post_only": False, "trading_disabled": False,
        "auction_mode": False, "product_type": "SPOT", "quote_currency_id": quote, "base_currency_id": base,
        "fcm_trading_session_details": None, "mid_market_price": "", "alias": "", "alias_to": [],
        "base_display_symbol": base, "quote_display_symbol": quote, "view_only": False, "price_increment": step,
        "display_name": f"{base}-{quote}", "product_venue": "CBE"}

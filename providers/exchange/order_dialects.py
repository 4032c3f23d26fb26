"""What each exchange that takes our orders does in its own way, checked against the installed ccxt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from core.clock import DAY_US
from core.errors import InputError, ProviderUnavailableError
from providers.exchange.trading import Dialect
from providers.exchange.wire import Exchanged, current_call

_TRADES: Final = 1000  # fills of one order in one answer, the most that Binance gives
_BINANCE_REFUSALS: Final = frozenset({-1002, -1013, -1014, -1022, -2010, -2014, -2015, *range(-1199, -1099)})
_NOT_THERE: Final = -2013
_OURS: Final = re.compile("cl[0-9a-f]{24}")
_KRAKEN_OURS: Final = re.compile("([0-9a-f]{12})4([0-9a-f]{3})8([0-9a-f]{9})cad1e0")
# Kraken's words for what went no further; every other one (EService, Internal error, limits, nonces) may have come late.
_KRAKEN_REFUSALS: Final = ("EOrder:", "EGeneral:Invalid arguments", "EGeneral:Permission denied", "EAPI:Invalid key",
                           "EAPI:Invalid signature", "EQuery:Unknown asset pair", "EAccount:")
_KRAKEN_OPEN: Final = ("EOrder:Rate limit", "EOrder:Domain rate limit")
_COINBASE_REFUSALS: Final = (
    "INSUFFICIENT_", "INVALID_", "UNSUPPORTED_", "PERMISSION_DENIED", "ORDER_ENTRY_DISABLED", "INELIGIBLE_PAIR", "PREVIEW_", "DUPLICATE")
_PAGES: Final = 20  # of ended orders, 50 or 100 each; an account with more since the order was sent cannot be looked through


class BinanceOrders:
    """Binance spot. A client id may be used again once its order has ended, so it keeps no order single: we do."""

    def key(self, client_id: str) -> str:
        """Return it as it is: up to 36 letters, digits and a few signs are allowed."""
        return client_id

    def client_id(self, key: str) -> str | None:
        """Return it as it is."""
        return key if _OURS.fullmatch(key) else None

    def parameters(self, key: str, amount: str, side: str) -> dict[str, object]:  # noqa: ARG002  Coinbase needs the rest
        """Return ccxt's name of it, which it sends as newClientOrderId."""
        return {"clientOrderId": key}

    def is_refusal(self, answer: Exchanged) -> bool:
        """Whether the code is one of a request or an order that went no further; -1006 and -1007 say that nobody knows."""
        return answer.status is not None and 400 <= answer.status < 500 and _code(answer) in _BINANCE_REFUSALS

    def is_doubtful(self, answer: Exchanged) -> bool:
        """-2010 is a new order's refusal for any reason, a duplicate among them."""
        return _code(answer) == -2010

    async def find(self, exchange: Any, symbol: str, key: str, since_us: int) -> Mapping[str, Any] | None:  # noqa: ARG002  one order is asked for, whenever it was
        """Ask for the order, then for its fills, which alone tell the fees."""
        from ccxt.base.errors import OrderNotFound  # noqa: PLC0415  ccxt is slow to import

        try:
            order = dict(await exchange.fetch_order(None, symbol, {"clientOrderId": key}))
        except OrderNotFound:
            call = current_call.get()
            if call is not None and call.failed is not None and _code(call.failed) == _NOT_THERE:
                call.failed = None
                return None
            raise ProviderUnavailableError("the exchange did not say for sure that it has no such order; it is asked again") from None
        filled = float(order.get("filled") or 0)
        if filled > 0:
            trades = await exchange.fetch_order_trades(str(order["id"]), symbol, None, _TRADES)
            told = sum(float(trade["amount"]) for trade in trades)
            if len(trades) < _TRADES and abs(told - filled) > 1e-9 * filled:
                raise ProviderUnavailableError("the exchange's fills do not make up its order yet; it is asked again")
            order["fees"] = [trade["fee"] for trade in trades]
        return order

    async def open(self, exchange: Any) -> list[Mapping[str, Any]]:
        """Ask for the open orders of all symbols."""
        exchange.options["warnOnFetchOpenOrdersWithoutSymbol"] = False
        return list(await exchange.fetch_open_orders())


def _code(answer: Exchanged) -> int | None:
    code = answer.parsed.get("code") if isinstance(answer.parsed, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else None


class KrakenOrders:
    """Kraken spot. Its `cl_ord_id` is a UUID or up to 18 characters: ours is written into the free digits of a UUID."""

    def key(self, client_id: str) -> str:
        """Return the UUID that holds it; InputError for an id that is not one of ours."""
        if not _OURS.fullmatch(client_id):
            raise InputError("client id", client_id, "cl and 24 hexadecimal digits")
        digits = client_id[2:]
        return f"{digits[:12]}4{digits[12:15]}8{digits[15:]}cad1e0"

    def client_id(self, key: str) -> str | None:
        """Return what a UUID of ours holds."""
        found = _KRAKEN_OURS.fullmatch(key.replace("-", ""))
        return "cl" + "".join(found.groups()) if found else None

    def parameters(self, key: str, amount: str, side: str) -> dict[str, object]:  # noqa: ARG002  Coinbase needs the rest
        """Return the key, which ccxt sends as cl_ord_id, and the wish to pay fees in the quote currency."""
        return {"clientOrderId": key, "oflags": "fciq"}

    def is_refusal(self, answer: Exchanged) -> bool:
        """Whether all its words are refusals."""
        words = _words(answer)
        return answer.status == 200 and bool(words) and all(
            word.startswith(_KRAKEN_REFUSALS) and not word.startswith(_KRAKEN_OPEN) for word in words)

    def is_doubtful(self, answer: Exchanged) -> bool:
        """Whether it minds the key."""
        return any("cl_ord_id" in word or "duplicate" in word.lower() for word in _words(answer))

    async def find(self, exchange: Any, symbol: str, key: str, since_us: int) -> Mapping[str, Any] | None:  # noqa: ARG002  see below
        """Look among the open orders, then among the ended ones: what ends in between is in the second."""
        for order in await self.open(exchange, {"clientOrderId": key}):
            if order["clientOrderId"] == key:
                return order
        seen = 0  # no start of time is given: Kraken checks nobody's clock, and a wrong one of ours would hide the order
        for _ in range(_PAGES):
            found = await exchange.fetch_closed_orders(symbol, None, None, {"clientOrderId": key, "ofs": seen})
            for order in _plain(found):
                if order["clientOrderId"] == key:
                    return order
            result = _result(exchange)
            page, count = result.get("closed"), result.get("count")
            if not isinstance(page, dict) or isinstance(count, bool) or not isinstance(count, int):
                raise ProviderUnavailableError("kraken sent no list of ended orders; it is asked again")
            seen += len(page)
            if seen >= count:
                return None
            if not page:
                break
        raise ProviderUnavailableError(f"kraken gave {seen} ended orders and has more; the look is not complete, it is asked again")

    async def open(self, exchange: Any, params: Mapping[str, object] | None = None) -> list[Mapping[str, Any]]:
        """Ask for the open orders of all symbols."""
        found = await exchange.fetch_open_orders(None, None, None, dict(params or {}))
        if not isinstance(_result(exchange).get("open"), dict):
            raise ProviderUnavailableError("kraken sent no list of open orders; it is asked again")
        return _plain(found)


class CoinbaseOrders:
    """Coinbase spot. It answers a key that was used before with the order that has it."""

    def key(self, client_id: str) -> str:
        """Return it as it is."""
        return client_id

    def client_id(self, key: str) -> str | None:
        """Return it as it is."""
        return key if _OURS.fullmatch(key) else None

    def parameters(self, key: str, amount: str, side: str) -> dict[str, object]:
        """Return the key as Coinbase names it (ccxt drops clientOrderId), and the amount in base: ccxt would buy for money."""
        given: dict[str, object] = {"client_order_id": key}
        if side == "buy":
            given["createMarketBuyOrderRequiresPrice"] = False
            given["order_configuration"] = {"market_market_ioc": {"base_size": amount}}
        return given

    def is_refusal(self, answer: Exchanged) -> bool:
        """Whether it names a reason of those that no order survives; UNKNOWN_FAILURE_REASON is none."""
        return answer.status is not None and 200 <= answer.status < 500 and _reason(answer).startswith(_COINBASE_REFUSALS)

    def is_doubtful(self, answer: Exchanged) -> bool:
        """Whether it minds the key."""
        return "client_order_id" in answer.body or "duplicate" in answer.body.lower()

    async def find(self, exchange: Any, symbol: str, key: str, since_us: int) -> Mapping[str, Any] | None:
        """Look through the open orders, then through all since a day before it was sent."""
        since_ms = (since_us - DAY_US) // 1000
        for since, given in ((None, {"order_status": "OPEN"}), (since_ms, {})):
            for order in await _all_of_coinbase(exchange, symbol, since, given):
                if order.get("clientOrderId") == key:
                    return order
        return None

    async def open(self, exchange: Any) -> list[Mapping[str, Any]]:
        """Ask for the open orders of all symbols."""
        return await _all_of_coinbase(exchange, None, None, {"order_status": "OPEN"})


async def _all_of_coinbase(exchange: Any, symbol: str | None, since_ms: int | None, given: Mapping[str, object]) -> list[Mapping[str, Any]]:
    """Return the orders of all pages; a page without its list or its end is no answer."""
    found: list[Mapping[str, Any]] = []
    params = dict(given)
    for _ in range(_PAGES):
        found += await exchange.fetch_orders(symbol, since_ms, 100, params)
        page = _last(exchange).parsed
        if not isinstance(page, dict) or not isinstance(page.get("orders"), list) or not isinstance(page.get("has_next"), bool):
            raise ProviderUnavailableError("coinbase sent no list of orders that says whether it goes on; it is asked again")
        if not page["has_next"]:
            return found
        if not page.get("cursor") or page["cursor"] == params.get("cursor"):
            break
        params["cursor"] = page["cursor"]
    raise ProviderUnavailableError(f"coinbase gave {len(found)} orders and has more; the look is not complete, it is asked again")


def _reason(answer: Exchanged) -> str:
    """Return why an order was refused, in Coinbase's word; empty when it is not said."""
    parsed = answer.parsed if isinstance(answer.parsed, dict) else {}
    told = parsed.get("error_response") if parsed.get("success") is False else parsed
    told = told if isinstance(told, dict) else {}
    names = ("error", "new_order_failure_reason", "preview_failure_reason")
    words = [str(told[name]) for name in names if told.get(name)]
    return next((word for word in words if not word.startswith("UNKNOWN")), "")


def _plain(orders: list[dict[str, Any]]) -> list[Mapping[str, Any]]:
    """Return orders with their UUIDs without dashes, however Kraken writes them."""
    return [{**order, "clientOrderId": str(order.get("clientOrderId") or "").replace("-", "")} for order in orders]


def _words(answer: Exchanged) -> list[str]:
    words = answer.parsed.get("error") if isinstance(answer.parsed, dict) else None
    return [str(word) for word in words] if isinstance(words, list) else []


def _result(exchange: Any) -> Mapping[str, Any]:
    """Return what the last answer of this call held: ccxt takes an answer without a list for an empty one."""
    parsed = _last(exchange).parsed
    result = parsed.get("result") if isinstance(parsed, dict) else None
    return result if isinstance(result, dict) else {}


def _last(exchange: Any) -> Exchanged:
    call = current_call.get()
    if call is None or not call.answers:
        raise ProviderUnavailableError(f"{exchange.id} was not asked; nothing is known")
    return call.answers[-1]


DIALECTS: Final[Mapping[str, Dialect]] = {"binance": BinanceOrders(), "kraken": KrakenOrders(), "coinbase": CoinbaseOrders()}

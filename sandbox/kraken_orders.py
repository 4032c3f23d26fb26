"""Kraken's signed endpoints: balances, market orders, and the lists of open and ended ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from core.clock import SECOND_US
from sandbox.box import Ask
from sandbox.exchange import decimal
from sandbox.exchange_orders import FEE_RATE, Account, number
from sandbox.market import Book
from sandbox.orders import Taken

ENDPOINTS: Final = ("BalanceEx", "AddOrder", "OpenOrders", "ClosedOrders")
LEAST_AMOUNT: Final = 0.0001
LEAST_COST: Final = 0.5
_PAGE: Final = 50
_KEY: Final = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}|[ -~]{1,18}")
FindPair = Callable[[Ask], tuple[str, str, Book] | None]


def answer(ask: Ask, endpoint: str, find: FindPair) -> dict[str, Any]:
    """Return the body of the answer to a signed request."""
    if not ask.headers.get("api-key") or not ask.headers.get("api-sign"):
        return _refuse("EAPI:Invalid key")
    if ask.whole("nonce") is None:
        return _refuse("EAPI:Invalid nonce")
    account = Account(ask, "kraken")
    if endpoint == "AddOrder":
        return _send(ask, account, find)
    if endpoint == "BalanceEx":
        held = account.balances("USD", "BTC")
        return _give({"ZUSD": {"balance": decimal(held["USD"], 4), "hold_trade": "0.0000"},
                      "XXBT": {"balance": decimal(held["BTC"], 10), "hold_trade": "0.0000000000"}})
    if endpoint == "OpenOrders":
        return _give({"open": {}})  # market orders are filled as they come
    key, start = "" if ask.box.switches.ignores_keys else ask.text("cl_ord_id"), ask.whole("start", 0) or 0
    found = [order for order in reversed(account.orders) if key in {"", order.comment} and order.at_us >= start * SECOND_US]
    first = ask.whole("ofs", 0) or 0
    return _give({"closed": {_txid(order): _written(order) for order in found[first:first + _PAGE]}, "count": len(found)})


def _send(ask: Ask, account: Account, find: FindPair) -> dict[str, Any]:
    pair, key, side, amount = find(ask), ask.text("cl_ord_id"), ask.text("type"), number(ask.text("volume"))
    if pair is None:
        return _refuse("EQuery:Unknown asset pair")
    _, symbol, book = pair
    problem = "EGeneral:Invalid arguments:volume minimum not met"
    order = None
    if key and not _KEY.fullmatch(key):
        problem = "EGeneral:Invalid arguments:cl_ord_id"
    elif ask.text("ordertype") != "market" or side not in {"buy", "sell"}:
        problem = "EGeneral:Invalid arguments:ordertype"
    elif amount is not None and amount >= LEAST_AMOUNT:
        order, problem = None, "EOrder:Cost minimum not met"
        if amount * account.price(book) >= LEAST_COST:
            order, problem = account.take(symbol, book, side, amount, key), "EOrder:Insufficient funds"
    if order is None:
        return _refuse(problem)
    return _give({"descr": {"order": f"{side} {decimal(order.lots)} {_altname(symbol)} @ market"}, "txid": [_txid(order)]})


def _written(order: Taken) -> dict[str, Any]:
    worth, at = order.lots * order.price, order.at_us / SECOND_US
    side = order.operation.lower()
    return {"refid": None, "userref": None, "cl_ord_id": order.comment, "status": "closed", "reason": None, "opentm": at, "closetm": at,
            "starttm": 0, "expiretm": 0, "descr": {
                "pair": _altname(order.symbol), "type": side, "ordertype": "market", "price": "0", "price2": "0", "leverage": "none",
                "order": f"{side} {decimal(order.lots)} {_altname(order.symbol)} @ market", "close": ""},
            "vol": decimal(order.lots), "vol_exec": decimal(order.lots), "cost": decimal(worth, 5), "fee": decimal(FEE_RATE * worth, 5),
            "price": decimal(order.price, 5), "stopprice": "0.00000", "limitprice": "0.00000", "misc": "", "oflags": "fciq"}


def _altname(symbol: str) -> str:
    return symbol.replace("BTC", "XBT")


def _txid(order: Taken) -> str:
    return f"O{order.ticket:05d}-SANDB-OXKRAK"


def _give(result: object) -> dict[str, Any]:
    return {"error": [], "result": result}


def _refuse(error: str) -> dict[str, Any]:
    return {"error": [error]}

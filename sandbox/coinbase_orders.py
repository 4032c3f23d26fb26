"""Coinbase's signed endpoints: accounts, market orders (a key used before gives its order again), and the list of orders."""

from __future__ import annotations

from typing import Any, Final

import orjson
from starlette.responses import Response

from core.clock import isoformat, parse_instant
from core.errors import InputError
from sandbox.box import Ask, json_answer
from sandbox.exchange import decimal, split
from sandbox.exchange_orders import FEE_RATE, Account, number
from sandbox.orders import Taken

_ROOT: Final = "/api/v3/brokerage"
PATHS: Final = ("/v2/accounts", f"{_ROOT}/orders", f"{_ROOT}/orders/historical/batch")
_MOST: Final = 100
_STEP: Final = 1e-8


def answer(ask: Ask, path: str) -> Response:
    """Return the answer to a signed request."""
    signed = ask.headers.get("cb-access-key") and ask.headers.get("cb-access-sign") and ask.headers.get("cb-access-timestamp")
    if not signed and not ask.headers.get("authorization", "").startswith("Bearer "):
        return Response("Unauthorized\n", 401, media_type="text/plain")
    account = Account(ask, "coinbase")
    if path == PATHS[0]:
        return json_answer({
            "pagination": {"ending_before": None, "starting_after": None, "previous_ending_before": None, "next_starting_after": None,
                           "limit": 250, "order": "desc", "previous_uri": None, "next_uri": None},
            "data": [_wallet(coin, held) for coin, held in account.balances("USD", "BTC").items()]})
    return _list(ask, account) if path == PATHS[2] else json_answer(_send(ask, account))


def _send(ask: Ask, account: Account) -> dict[str, Any]:
    given = _object(ask.body)
    symbol, side, key = str(given.get("product_id", "")).replace("-", ""), given.get("side"), str(given.get("client_order_id", ""))
    configuration = given.get("order_configuration")
    sizes = configuration.get("market_market_ioc") if isinstance(configuration, dict) else None
    before = next((order for order in account.orders if order.comment == key), None)
    if before is not None:
        return _taken(before)
    book, amount = ask.book("coinbase", symbol), number(str(sizes.get("base_size"))) if isinstance(sizes, dict) else None
    if book is None:
        return _refuse("INVALID_PRODUCT_ID")
    if not key or side not in {"BUY", "SELL"}:
        return _refuse("INVALID_REQUEST")
    if amount is None:
        return _refuse("UNSUPPORTED_ORDER_CONFIGURATION")
    if amount < _STEP:
        return _refuse("INVALID_SIZE_PRECISION")
    order = account.take(symbol, book, side, amount, key)
    return _refuse("INSUFFICIENT_FUND") if order is None else _taken(order)


def _list(ask: Ask, account: Account) -> Response:
    try:
        start_us = parse_instant(ask.text("start_date")) if ask.text("start_date") else 0
    except InputError:
        return json_answer({"error": "INVALID_ARGUMENT", "error_details": "start_date", "message": "start_date"}, 400)
    wanted = ask.text("product_id").replace("-", "")
    found = [order for order in reversed(account.orders)
             if wanted in {"", order.symbol} and order.at_us >= start_us and ask.text("order_status") != "OPEN"]
    first, limit = ask.whole("cursor", 0) or 0, min(ask.whole("limit", _MOST) or _MOST, _MOST)
    end = first + limit
    return json_answer({"orders": [_written(order) for order in found[first:end]], "sequence": "0", "has_next": end < len(found),
                        "cursor": str(end) if end < len(found) else ""})


def _taken(order: Taken) -> dict[str, Any]:
    return {"success": True, "failure_reason": "UNKNOWN_FAILURE_REASON", "order_id": _id(order), "success_response": {
        "order_id": _id(order), "product_id": _product(order.symbol), "side": order.operation.upper(), "client_order_id": order.comment},
        "order_configuration": None}


def _refuse(reason: str) -> dict[str, Any]:
    return {"success": False, "failure_reason": "UNKNOWN_FAILURE_REASON", "order_id": "", "error_response": {
        "error": reason, "message": reason.replace("_", " ").lower(), "error_details": "", "new_order_failure_reason": reason},
        "order_configuration": None}


def _written(order: Taken) -> dict[str, Any]:
    worth = order.lots * order.price
    return {"order_id": _id(order), "product_id": _product(order.symbol), "user_id": "sandbox",
            "order_configuration": {"market_market_ioc": {"base_size": decimal(order.lots)}}, "side": order.operation.upper(),
            "client_order_id": order.comment, "status": "FILLED", "time_in_force": "IMMEDIATE_OR_CANCEL",
            "created_time": isoformat(order.at_us), "completion_percentage": "100", "filled_size": decimal(order.lots),
            "average_filled_price": decimal(order.price), "fee": "", "number_of_fills": "1", "filled_value": decimal(worth),
            "pending_cancel": False, "size_in_quote": False, "total_fees": decimal(FEE_RATE * worth), "size_inclusive_of_fees": False,
            "total_value_after_fees": decimal(worth * (1 + FEE_RATE)), "trigger_status": "INVALID_ORDER_TYPE", "order_type": "MARKET",
            "reject_reason": "REJECT_REASON_UNSPECIFIED", "settled": True, "product_type": "SPOT", "reject_message": "",
            "cancel_message": ""}


def _wallet(coin: str, held: float) -> dict[str, Any]:
    return {"id": f"sandbox-{coin}", "name": f"{coin} Wallet", "primary": False, "type": "wallet", "currency": {"code": coin, "name": coin},
            "balance": {"amount": decimal(held), "currency": coin}, "resource": "account", "allow_deposits": False,
            "allow_withdrawals": False}


def _id(order: Taken) -> str:
    return f"00000000-0000-4000-8000-{order.ticket:012d}"


def _product(symbol: str) -> str:
    return "-".join(split(symbol))


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}

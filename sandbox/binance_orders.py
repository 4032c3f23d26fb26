"""Binance's signed endpoints: the account, market orders, and looking for them."""

from __future__ import annotations

import re
from typing import Any, Final

from sandbox.box import Ask
from sandbox.exchange import decimal, split
from sandbox.exchange_orders import FEE_RATE, Account, number
from sandbox.orders import Taken

ENDPOINTS: Final = ("account", "order", "openOrders", "myTrades")
LEAST_NOTIONAL: Final = 5.0
_STEP: Final = 0.00001
_KEY: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
Answer = tuple[Any, int]


def answer(ask: Ask, endpoint: str) -> Answer:
    """Return value and status of a signed request."""
    if not ask.headers.get("x-mbx-apikey") or not ask.text("signature"):
        return {"code": -2014, "msg": "API-key format invalid."}, 401
    sent, window = ask.whole("timestamp"), min(ask.whole("recvWindow", 5000) or 5000, 60_000)
    now_ms = ask.now_us // 1000
    if sent is None or not now_ms - window <= sent <= now_ms + 1000:
        return {"code": -1021, "msg": "Timestamp for this request is outside of the recvWindow."}, 400
    account = Account(ask, "binance")
    if endpoint == "account":
        return _account(account, now_ms)
    if endpoint == "openOrders":
        return [], 200  # market orders are filled as they come
    if endpoint == "myTrades":
        return [_trade(order) for order in account.orders
                if order.symbol == ask.text("symbol") and order.ticket == ask.whole("orderId", order.ticket)], 200
    return _send(ask, account) if ask.method == "POST" else _query(ask, account)


def _account(account: Account, now_ms: int) -> Answer:
    return {"makerCommission": 10, "takerCommission": 10, "buyerCommission": 0, "sellerCommission": 0,
            "canTrade": True, "canWithdraw": False, "canDeposit": False, "updateTime": now_ms,
            "accountType": "SPOT", "permissions": ["SPOT"], "uid": 1, "balances": [
                {"asset": coin, "free": decimal(free), "locked": "0.00000000"}
                for coin, free in account.balances("USDT", "BTC").items()]}, 200


def _send(ask: Ask, account: Account) -> Answer:
    symbol, side, key = ask.text("symbol"), ask.text("side"), ask.text("newClientOrderId")
    book, amount = ask.book("binance", symbol), number(ask.text("quantity"))
    if book is None:
        return {"code": -1121, "msg": "Invalid symbol."}, 400
    order = None
    if ask.text("type") != "MARKET" or side not in {"BUY", "SELL"}:
        problem = -1116, "Invalid orderType."
    elif not _KEY.fullmatch(key):
        problem = -1100, "Illegal characters found in parameter 'newClientOrderId'."
    elif amount is None:
        problem = -1102, "Mandatory parameter 'quantity' was not sent, was empty/null, or malformed."
    elif amount < _STEP or abs(amount / _STEP - round(amount / _STEP)) > 1e-6:
        problem = -1013, "Filter failure: LOT_SIZE"
    elif amount * account.price(book) < LEAST_NOTIONAL:
        problem = -1013, "Filter failure: NOTIONAL"
    else:
        order, problem = account.take(symbol, book, side, amount, key), (-2010, "Account has insufficient balance for requested action.")
    if order is None:
        return {"code": problem[0], "msg": problem[1]}, 400
    return {**_written(order), "transactTime": order.at_us // 1000, "fills": [
        {"price": decimal(order.price), "qty": decimal(order.lots), "commission": _fee(order), "commissionAsset": split(symbol)[1],
         "tradeId": order.ticket}]}, 200


def _query(ask: Ask, account: Account) -> Answer:
    symbol, key, ticket = ask.text("symbol"), ask.text("origClientOrderId"), ask.whole("orderId")
    for order in reversed(account.orders):
        if order.symbol == symbol and (order.comment == key if key else order.ticket == ticket):
            at_ms = order.at_us // 1000
            return {**_written(order), "time": at_ms, "updateTime": at_ms, "isWorking": True, "stopPrice": "0.00000000",
                    "icebergQty": "0.00000000", "origQuoteOrderQty": "0.00000000"}, 200
    return {"code": -2013, "msg": "Order does not exist."}, 400


def _written(order: Taken) -> dict[str, Any]:
    return {"symbol": order.symbol, "orderId": order.ticket, "orderListId": -1, "clientOrderId": order.comment,
            "price": "0.00000000", "origQty": decimal(order.lots), "executedQty": decimal(order.lots),
            "cummulativeQuoteQty": decimal(order.lots * order.price), "status": "FILLED", "timeInForce": "GTC", "type": "MARKET",
            "side": order.operation.upper(), "workingTime": order.at_us // 1000, "selfTradePreventionMode": "NONE"}


def _trade(order: Taken) -> dict[str, Any]:
    return {"symbol": order.symbol, "id": order.ticket, "orderId": order.ticket, "orderListId": -1, "price": decimal(order.price),
            "qty": decimal(order.lots), "quoteQty": decimal(order.lots * order.price), "commission": _fee(order),
            "commissionAsset": split(order.symbol)[1], "time": order.at_us // 1000, "isBuyer": order.operation == "Buy",
            "isMaker": False, "isBestMatch": True}


def _fee(order: Taken) -> str:
    return decimal(FEE_RATE * order.lots * order.price)

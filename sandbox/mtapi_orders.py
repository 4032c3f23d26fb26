"""The bridge's endpoints for orders: market orders at the quote, refusals as the broker words them, positions that stay open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

from core.clock import DAY_US, SECOND_US, isoformat
from sandbox.box import Ask
from sandbox.orders import Taken
from sandbox.sessions import RefusalError

if TYPE_CHECKING:
    from sandbox.mtapi import Bridge

CONTRACT: Final = 100_000
LEVERAGE: Final = 2000
BALANCE: Final = 5000.0
LEAST_LOTS: Final = 0.01
MOST_LOTS: Final = 200.0
_OPERATIONS: Final[dict[str, Literal["Buy", "Sell"]]] = {"buy": "Buy", "sell": "Sell", "0": "Buy", "1": "Sell"}


def send(bridge: Bridge, ask: Ask) -> dict[str, Any]:
    """Answer /OrderSend: fill a market order at the quote, or refuse as the broker does."""
    account = bridge.sessions.check(ask).account
    symbol, operation = ask.text("symbol"), _OPERATIONS.get(ask.text("operation").lower())
    bridge.book(ask, symbol)
    if operation is None:
        raise RefusalError("INVALID_REQUEST", "Invalid request")
    lots = _lots(ask.text("volume"))
    wall_us = bridge.wall(ask)
    if ask.box.switches.off_hours or (wall_us // DAY_US + 3) % 7 >= 5:
        raise RefusalError("MARKET_CLOSED", "Market closed")
    quote = bridge.quote(ask, symbol)
    price = float(quote["ask"] if operation == "Buy" else quote["bid"])
    held = sum(order.lots * CONTRACT * order.price / LEVERAGE for order in ask.box.orders.of(bridge.platform, account.user))
    if held + lots * CONTRACT * price / LEVERAGE > BALANCE:
        raise RefusalError("NO_MONEY", "Not enough money")
    order = ask.box.orders.take(
        platform=bridge.platform, user=account.user, symbol=symbol, operation=operation, lots=lots, price=price,
        at_us=ask.now_us // SECOND_US * SECOND_US, wall_us=wall_us // SECOND_US * SECOND_US, comment=ask.text("comment")[:31],
        magic=ask.whole("magic" if bridge.platform == "mt4" else "expertID", 0) or 0)
    return written(order)


def opened(bridge: Bridge, ask: Ask) -> list[dict[str, Any]]:
    """Answer /OpenedOrders: positions stay open, nothing closes them here."""
    account = bridge.sessions.check(ask).account
    return [written(order) for order in ask.box.orders.of(bridge.platform, account.user)]


def tickets(bridge: Bridge, ask: Ask) -> list[int]:
    """Answer /OpenedOrdersTickets."""
    account = bridge.sessions.check(ask).account
    return [order.ticket for order in ask.box.orders.of(bridge.platform, account.user)]


def written(order: Taken) -> dict[str, Any]:
    """Return an order as its platform writes it."""
    naive = isoformat(order.wall_us).removesuffix("Z")
    shared = {"ticket": order.ticket, "symbol": order.symbol, "lots": order.lots, "openPrice": order.price, "openTime": naive,
              "closePrice": order.price, "closeTime": "0001-01-01T00:00:00", "profit": 0, "swap": 0, "commission": 0,
              "comment": order.comment, "stopLoss": 0, "takeProfit": 0}
    if order.platform == "mt4":
        return {**shared, "type": order.operation, "magicNumber": order.magic}
    return {**shared, "orderType": order.operation, "dealType": f"Deal{order.operation}", "expertId": order.magic, "state": "Filled",
            "contractSize": CONTRACT, "fee": 0, "closeLots": 0, "volume": round(order.lots * 1e8),
            "openTimestampUTC": order.at_us // SECOND_US}


def _lots(text: str) -> float:
    try:
        lots = float(text)
    except ValueError:
        raise RefusalError("INVALID_VOLUME", "Invalid volume") from None
    steps = lots / LEAST_LOTS
    if not LEAST_LOTS <= lots <= MOST_LOTS or abs(steps - round(steps)) > 1e-6:
        raise RefusalError("INVALID_VOLUME", "Invalid volume")
    return lots

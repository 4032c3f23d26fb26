"""What each exchange that takes our orders does in its own way, checked against the installed ccxt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from core.errors import ProviderUnavailableError
from providers.exchange.trading import Dialect
from providers.exchange.wire import Exchanged

_TRADES: Final = 1000  # fills of one order in one answer, the most that Binance gives
_BINANCE_REFUSALS: Final = frozenset({-1002, -1013, -1014, -1022, -2010, -2014, -2015, *range(-1199, -1099)})
_NOT_THERE: Final = -2013


class BinanceOrders:
    """Binance spot. A client id may be used again once its order has ended, so it keeps no order single: we do."""

    def key(self, client_id: str) -> str:
        """Return it as it is: up to 36 letters, digits and a few signs are allowed."""
        return client_id

    def parameters(self, key: str, amount: str) -> dict[str, object]:  # noqa: ARG002  others need the amount
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

        from providers.exchange.wire import current_call  # noqa: PLC0415  beside its only use

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


DIALECTS: Final[Mapping[str, Dialect]] = {"binance": BinanceOrders()}

"""An exchange that takes our orders: the provider of its market data with three methods more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from providers.base import BrokerOrder, ConnectionSpec, PlacedOrder, RateBudget
from providers.exchange import trading
from providers.exchange.order_dialects import DIALECTS
from providers.exchange.provider import ExchangeProvider

PREFIX: Final = "cl"  # of every client id of ours


class ExchangeTradingProvider(ExchangeProvider):
    """Keeps `TradingProvider`; made only for the exchanges in DIALECTS. Spot markets, market orders in the base currency."""

    def __init__(self, spec: ConnectionSpec, budget: RateBudget) -> None:
        super().__init__(spec, budget)
        self._dialect = DIALECTS[self._id]
        self._signing = asyncio.Lock()

    async def place_order(self, order: PlacedOrder) -> BrokerOrder:
        """Send a market order once; see TradingProvider and providers.exchange.trading."""
        return await trading.place(self._desk(order), order)

    async def find_order(self, order: PlacedOrder) -> BrokerOrder | None:
        """Ask the exchange for an order by its key; see TradingProvider and providers.exchange.trading."""
        return await trading.find(self._desk(order), order)

    async def open_orders(self) -> list[BrokerOrder]:
        """Return the open orders that carry a key of ours; a spot account has no positions, only balances."""
        exchange = self._connected()
        found = await self._signed(exchange, lambda: self._dialect.open(exchange))
        return [trading.read(raw, str(raw["clientOrderId"]), exchange.markets[raw["symbol"]]) for raw in found
                if self._is_ours(exchange, raw)]

    def _desk(self, order: PlacedOrder) -> trading.Desk:
        exchange = self._connected()
        self._market(exchange, order.symbol)
        return trading.Desk(exchange, partial(self._signed, exchange), self._dialect)

    def _is_ours(self, exchange: Any, raw: Any) -> bool:
        key = str(raw.get("clientOrderId") or "")
        return key.startswith(PREFIX) and len(key) == 26 and raw.get("symbol") in exchange.markets

    async def _signed(self, exchange: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        async with self._signing:  # the keys are taken out of ccxt's hands after each call: two at once would take each other's
            return await super()._signed(exchange, call)

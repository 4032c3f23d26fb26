"""An exchange that takes our orders: the provider of its market data with three methods more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from providers.base import BrokerOrder, ConnectionSpec, PlacedOrder, RateBudget
from providers.exchange import trading
from providers.exchange.order_dialects import DIALECTS
from providers.exchange.provider import ExchangeProvider


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
        ours = ((raw, self._dialect.client_id(str(raw.get("clientOrderId") or ""))) for raw in found)
        return [trading.read(raw, client_id, exchange.markets[raw["symbol"]]) for raw, client_id in ours
                if client_id is not None and raw.get("symbol") in exchange.markets]

    def _desk(self, order: PlacedOrder) -> trading.Desk:
        exchange = self._connected()
        self._market(exchange, order.symbol)
        return trading.Desk(exchange, partial(self._signed, exchange), self._dialect)

    async def _signed(self, exchange: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        async with self._signing:  # the keys are taken out of ccxt's hands after each call: two at once would take each other's
            return await super()._signed(exchange, call)

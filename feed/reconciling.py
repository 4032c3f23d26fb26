"""Asks the brokers about real orders whose end is not known; sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from addons.execution.plugin import ask_again
from core.errors import CandlelakeError
from feed.context import Feed
from feed.trading import LiveServices, order_of
from pipeline.ports import Broker
from storage.orders import list_orders


async def reconcile(feed: Feed) -> list[Mapping[str, Any]]:
    """Ask about every real order that was sent and has not ended; return one row for each: key, client id, status, message.

    A broker that cannot be asked now leaves its orders as they are, with the reason as the row's message.
    """
    with feed.lake.metadata.read() as tx:
        waiting = [order_of(row) for row in list_orders(tx, mode="live", statuses=("sending", "acknowledged"))]
    services = LiveServices(feed)
    rows: list[Mapping[str, Any]] = []
    async with AsyncExitStack() as stack:
        brokers: dict[str, Broker | CandlelakeError] = {}
        for order in waiting:
            name = order.series.connection
            if name not in brokers:
                try:
                    brokers[name] = await stack.enter_async_context(services.broker(name))
                except CandlelakeError as error:
                    brokers[name] = error
            broker = brokers[name]
            if isinstance(broker, CandlelakeError):
                status, message = order.status, broker.message
            else:
                try:
                    after = await ask_again(order, broker, services)
                    status, message = after.status, after.error or ""
                except CandlelakeError as error:
                    status, message = order.status, error.message
            rows.append({"key": order.key, "client_id": order.client_id, "status": status, "message": message})
    return rows

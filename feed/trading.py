"""Where orders meet the store and the brokers: fills the ports of `pipeline.ports` for executors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from sqlalchemy import Connection

from addons.execution.accounts import Position, Trade, equity, positions, realised_since
from core.clock import DAY_US, SECOND_US, Clock, to_datetime, to_us
from core.errors import NotFoundError, PermanentError, UnsupportedError
from core.series import Series
from feed.context import Feed
from pipeline.ports import Broker, Fill, Order, OrderRequest
from providers.base import BrokerOrder, PlacedOrder, TradingProvider
from storage.orders import OPEN, find_order, get_order, list_orders, lock_switch, move_order, write_order
from storage.pipelines import get_pipeline
from storage.series import list_series


@dataclass(frozen=True, slots=True)
class LiveServices:
    """What executors may use in a live run; keeps `pipeline.ports.Services`."""

    feed: Feed

    @property
    def clock(self) -> Clock:
        """The present."""
        return self.feed.clock

    @property
    def orders(self) -> StoredOrders:
        """The orders of this home."""
        return StoredOrders(self.feed)

    @property
    def grace_us(self) -> int:
        """How long after it was sent an order may still arrive at the broker."""
        return int(self.feed.settings.order_grace_seconds * SECOND_US)

    def candles_after(self, series: Series, ts_us: int, count: int) -> pl.DataFrame:
        """Return up to `count` stored candles that open after `ts_us`, ascending."""
        frame = self.feed.lake.candles(series.connection, series.symbol, series.timeframe, start=ts_us + 1)
        return frame.filter(pl.col("ts") > to_datetime(ts_us)).head(count)

    def broker(self, connection: str) -> AbstractAsyncContextManager[Broker]:
        """Give the connected broker of a connection; UnsupportedError when its provider takes no orders."""
        return _broker(self.feed, connection)


@dataclass(frozen=True, slots=True)
class StoredOrders:
    """The orders of a home; keeps `pipeline.ports.OrderBook`."""

    feed: Feed

    def find(self, key: str) -> Order | None:
        """Return the order of a signal, None when there is none yet."""
        with self.feed.lake.metadata.read() as tx:
            row = find_order(tx, key)
        return None if row is None else order_of(row)

    def write_down(self, request: OrderRequest) -> Order:
        """Return the order of the request's key: a new one, or the one that is there."""
        with self.feed.lake.metadata.write() as tx:
            return order_of(write_order(tx, {
                "key": request.key, "pipeline": request.pipeline, "version": request.version,
                "connection": request.series.connection, "symbol": request.series.symbol,
                "timeframe": request.series.timeframe.name, "ts_us": request.ts_us, "mode": request.mode, "side": request.side,
                "quantity": request.quantity, "price": request.price}, self.feed.clock.now_us()))

    def begin_sending(self, key: str) -> Order | None:
        """Turn `new` into `sending`, or into `refused` by a switch or a limit; None when another caller was first."""
        now_us = self.feed.clock.now_us()
        with self.feed.lake.metadata.write() as tx:
            switch = lock_switch(tx)  # first: what the limits count stands still until the end
            row = get_order(tx, key)
            problem = _problem(self.feed, tx, row, switch)
            values = {"status": "refused", "error": problem} if problem else {
                "status": "sending", "sent_at_us": now_us, "attempts": 1}
            if not move_order(tx, key, ("new",), now_us, **values):
                return None
            return order_of(get_order(tx, key))

    def settle(self, key: str, fill: Fill) -> None:
        """Write down what the broker answered; an order that has ended stays as it is."""
        values: dict[str, Any] = {"status": fill.status, "filled_quantity": fill.quantity, "commission": fill.commission}
        if fill.quantity:
            values |= {"fill_price": fill.price, "filled_us": fill.at_us}
        if fill.broker_order_id is not None:
            values["broker_order_id"] = fill.broker_order_id
        if fill.multiplier != 1.0:
            values["detail"] = {"multiplier": fill.multiplier}
        with self.feed.lake.metadata.write() as tx:
            move_order(tx, key, OPEN, self.feed.clock.now_us(), **values)

    def give_up(self, key: str, status: Literal["rejected", "cancelled", "refused"], error: str) -> None:
        """End an order that nothing came of."""
        with self.feed.lake.metadata.write() as tx:
            move_order(tx, key, OPEN, self.feed.clock.now_us(), status=status, error=error[:2000])


def order_of(row: Mapping[str, Any]) -> Order:
    """Return a stored order as executors see it."""
    series = Series.parse(row["connection"], row["symbol"], row["timeframe"])
    return Order(row["key"], row["client_id"], series, row["side"], row["quantity"], row["mode"], row["status"], row["sent_at_us"],
                 row["error"])


def trade_of(row: Mapping[str, Any], multiplier: float = 1.0) -> Trade:
    """Return a filled order as a trade."""
    return Trade(
        f"{row['mode']} {row['connection']} {row['symbol']}", row["filled_us"], 1 if row["side"] == "buy" else -1,
        row["filled_quantity"], row["fill_price"], row["commission"], multiplier)


def trades_of(tx: Connection, **which: Any) -> list[Trade]:
    """Return the fills of the orders that match (see `list_orders`) in order of time."""
    rows = [row for row in list_orders(tx, **which) if row["filled_quantity"] and row["fill_price"] is not None]
    return [trade_of(row, float((row["detail"] or {}).get("multiplier", 1.0)))
            for row in sorted(rows, key=lambda row: (row["filled_us"], row["id"]))]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What orders led to: positions, the newest stored price of each that is open, and (instant, money made until then)."""

    positions: list[Position]
    prices: dict[str, float]
    curve: list[tuple[int, float]]


def held(feed: Feed, *, mode: str | None = None, book: str | None = None) -> Holdings:
    """Return what the stored orders lead to, of one mode or one book; the curve ends with what is open at its newest price."""
    with feed.lake.metadata.read() as tx:
        trades = [trade for trade in trades_of(tx, mode=mode) if book in {None, trade.book}]
    found = list(positions(trades).values())
    marks = {item.book: mark for item in found if item.quantity and (mark := _newest_price(feed, item.book)) is not None}
    prices = {name: price for name, (_, price) in marks.items()}
    curve = equity(trades, prices)
    if prices:
        curve[-1] = (max(curve[-1][0], *(at_us for at_us, _ in marks.values())), curve[-1][1])
    return Holdings(found, prices, curve)


def _newest_price(feed: Feed, book: str) -> tuple[int, float] | None:
    """Return when the newest stored candle of a book's symbol opened, of whichever timeframe, and its close."""
    _, connection, symbol = book.split(" ", 2)
    with feed.lake.metadata.read() as tx:
        rows = [row for row in list_series(tx, connection, symbol) if row.last_us is not None]
    if not rows:
        return None
    newest = max(rows, key=lambda row: row.last_us or 0).series
    candle = feed.lake.latest(newest.connection, newest.symbol, newest.timeframe, 1)
    return to_us(candle["ts"][0]), float(candle["close"][0])


def _problem(feed: Feed, tx: Connection, row: Mapping[str, Any], switch: Mapping[str, Any]) -> str | None:
    """Return why a real order must not be sent, None when it may."""
    if switch["is_halted"] or not feed.settings.live_trading:
        return (f"all orders are halted: {switch['reason'] or 'no reason given'}; resume with `candlelake orders resume`"
                if switch["is_halted"] else "real orders are off in the settings; CANDLELAKE_LIVE_TRADING=true allows them")
    try:
        pipeline = get_pipeline(tx, row["pipeline"])
    except NotFoundError:
        return f"pipeline {row['pipeline']} is gone"
    if not pipeline.is_live or pipeline.shadow_of is not None:
        return f"pipeline {row['pipeline']} may not send real orders; allow it with `candlelake orders allow {row['pipeline']}`"
    own = feed.connections.get(row["connection"]).settings
    if not own.get("live_trading"):
        return f"connection {row['connection']} has no setting live_trading"
    limits = {name: own.get(name) for name in ("max_order_quantity", "max_daily_loss", "max_open_orders")}
    missing = [name for name, value in limits.items() if value is None]
    if missing:
        return f"connection {row['connection']} lacks the settings {', '.join(missing)}; real orders need all three limits"
    return _over_limit(feed, tx, row, {name: float(str(value)) for name, value in limits.items()})


def _over_limit(feed: Feed, tx: Connection, row: Mapping[str, Any], limits: Mapping[str, float]) -> str | None:
    if row["quantity"] > limits["max_order_quantity"]:
        return f"quantity {row['quantity']:g} is above max_order_quantity {limits['max_order_quantity']:g}"
    waiting = list_orders(tx, connection=row["connection"], mode="live", statuses=("sending", "acknowledged"))
    if len(waiting) >= limits["max_open_orders"]:
        return f"{len(waiting)} orders are open, max_open_orders is {limits['max_open_orders']:g}"
    now_us = feed.clock.now_us()
    trades = trades_of(tx, connection=row["connection"], mode="live")
    made = realised_since(trades, now_us - now_us % DAY_US)
    book = positions(trades).get(f"live {row['connection']} {row['symbol']}")
    made += min(book.unrealised(row["price"]), 0.0) if book is not None and row["price"] is not None else 0.0
    if made <= -limits["max_daily_loss"]:
        return f"today's loss {-made:.2f} has reached max_daily_loss {limits['max_daily_loss']:g}"
    return None


@dataclass(frozen=True, slots=True)
class ProviderBroker:
    """A connected provider as executors see it; keeps `pipeline.ports.Broker`."""

    provider: TradingProvider
    feed: Feed

    async def place(self, order: Order) -> Fill:
        """Send once, unless the kill switch was pulled."""
        with self.feed.lake.metadata.write() as tx:  # the limits were checked a moment ago; the switch may have been pulled since
            switch = lock_switch(tx)
        if switch["is_halted"]:
            raise PermanentError(f"not sent: all orders are halted: {switch['reason'] or 'no reason given'}")
        return self._fill(await self.provider.place_order(_wanted(order)))

    async def find(self, order: Order) -> Fill | None:
        """Ask what became of an order."""
        found = await self.provider.find_order(_wanted(order))
        return None if found is None else self._fill(found)

    def _fill(self, answer: BrokerOrder) -> Fill:
        return Fill(
            answer.price, answer.filled, answer.at_us or self.feed.clock.now_us(), answer.commission, answer.order_id,
            answer.multiplier, answer.status)


def _wanted(order: Order) -> PlacedOrder:
    return PlacedOrder(order.client_id, order.series.symbol, order.side, order.quantity, order.sent_at_us)


@asynccontextmanager
async def _broker(feed: Feed, connection: str) -> AsyncGenerator[Broker, None]:
    async with feed.connections.open_provider(connection) as provider:
        if not isinstance(provider, TradingProvider):
            raise UnsupportedError(f"connection {connection}: {provider.capabilities.provider} takes no orders; use mode paper")
        yield ProviderBroker(provider, feed)

"""What the pipeline asks of the house around it; feed/ fills these in, so that plug-ins need no storage and no provider."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import polars as pl

from core.clock import Clock
from core.series import Series


class Resources(Protocol):
    """What a definition may name and what is copied into its version when it is saved."""

    def read(self, kind: str, owner: str, name: str) -> str:
        """Return the stored text of `name`, e.g. kind `filter_strategy`; NotFoundError when there is none."""


OrderMode = Literal["paper", "live"]
OrderStatus = Literal["new", "sending", "acknowledged", "filled", "rejected", "cancelled", "refused"]


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """What a signal asks for. `key` is the signal's: pipeline, version, series, candle; one order for each.

    Attributes:
        quantity: in the provider's unit: lots at a broker, base coins at an exchange.
        price: the signal's, in the quote currency.
    """

    key: str
    pipeline: str
    version: int
    series: Series
    ts_us: int
    side: Literal["buy", "sell"]
    quantity: float
    price: float
    mode: OrderMode


@dataclass(frozen=True, slots=True)
class Order:
    """An order as it is written down; the broker knows it by `client_id`."""

    key: str
    client_id: str
    series: Series
    side: Literal["buy", "sell"]
    quantity: float
    mode: OrderMode
    status: OrderStatus
    sent_at_us: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """What came of an order. Prices in the quote currency, commission too; `quantity` 0 while nothing is filled."""

    price: float | None
    quantity: float
    at_us: int
    commission: float = 0.0
    broker_order_id: str | None = None
    multiplier: float = 1.0  # money for a price difference of one unit: the contract size of a lot
    status: Literal["acknowledged", "filled", "rejected", "cancelled"] = "filled"


class OrderBook(Protocol):
    """The orders of this home; each call is one committed transaction."""

    def find(self, key: str) -> Order | None:
        """Return the order of a signal, None when there is none yet."""

    def write_down(self, request: OrderRequest) -> Order:
        """Return the order of the request's key: a new one (`new`), or the one that is there, whatever it says."""

    def begin_sending(self, key: str) -> Order | None:
        """Turn `new` into `sending`, or into `refused` when a switch or a limit forbids it (`error` says which).

        None: another caller was first, and this one must not send.
        """

    def settle(self, key: str, fill: Fill) -> None:
        """Write down what the broker answered."""

    def give_up(self, key: str, status: Literal["rejected", "cancelled", "refused"], error: str) -> None:
        """End an order that nothing came of."""


class Broker(Protocol):
    """Where real orders go. Nothing here is ever tried again by itself."""

    async def place(self, order: Order) -> Fill:
        """Send once.

        Raises:
            PermanentError: the broker refused it: there is no such order.
            TransientError: nobody knows; `find` tells later.
        """

    async def find(self, order: Order) -> Fill | None:
        """Return what the broker knows of the order by its client id, None when it knows none."""


class Services(Protocol):
    """What an executor may use in a live run."""

    @property
    def clock(self) -> Clock:
        """The present."""

    @property
    def orders(self) -> OrderBook:
        """The orders of this home."""

    @property
    def grace_us(self) -> int:
        """How long after it was sent an order may still arrive at the broker."""

    def broker(self, connection: str) -> AbstractAsyncContextManager[Broker]:
        """Give the connected broker of a connection; UnsupportedError when its provider takes no orders."""

    def candles_after(self, series: Series, ts_us: int, count: int) -> pl.DataFrame:
        """Return up to `count` stored candles that open after `ts_us`, ascending."""

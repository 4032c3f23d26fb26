"""What every provider that takes orders must do, brokers and exchanges alike, against the sandbox."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from core.clock import ManualClock, parse_instant
from core.errors import PermanentError, TransientError
from core.secrets import Secret
from providers.base import ConnectionSpec, PlacedOrder, TradingProvider, Unlimited
from providers.exchange.order_dialects import DIALECTS
from providers.registry import describe, open_provider
from sandbox.server import running

NOW = parse_instant("2021-06-16T10:07:30Z")
KEY = "cl" + "0123456789ab" * 2
LOGIN = {"user": "50000001", "password": "practice-only", "server": "Sandbox-Demo"}
KEYS = {"api_key": "sandbox-key-1234", "secret": "c2FuZGJveHNlY3JldDEy"}


@dataclass(frozen=True)
class Trader:
    """One provider under test: a symbol, a small amount and one beyond the balance, and the path to which orders are sent."""

    provider: str
    symbol: str
    small: float
    large: float
    send: str
    path: str = ""

    def spec(self, box):
        """Return the connection to the sandbox."""
        is_broker = self.provider.startswith("mtapi:")
        return ConnectionSpec(
            "practice", self.provider, box.url + self.path, {name: Secret(value) for name, value in (LOGIN if is_broker else KEYS).items()},
            {"server_clock": {"offset_minutes": 120, "dst": "us"}} if is_broker else {}, 20.0, True, box.clock)


TRADERS = [
    Trader("mtapi:mt5", "EURUSD", 0.02, 150.0, "/mt5/OrderSend", "/mt5"),
    Trader("mtapi:mt4", "EURUSD", 0.02, 150.0, "/mt4/OrderSend", "/mt4"),
    Trader("ccxt:binance", "BTC/USDT", 0.01, 5.0, "*/api/v3/order"),
    Trader("ccxt:kraken", "BTC/USD", 0.01, 5.0, "*/0/private/AddOrder"),
    Trader("ccxt:coinbase", "BTC/USD", 0.01, 5.0, "*/brokerage/orders"),
]


@pytest.fixture(scope="module")
def served():
    """One sandbox for the module."""
    with running(mode="replay", clock=ManualClock(NOW)) as box:
        yield box


@pytest.fixture
def box(served):
    """The sandbox as new."""
    served.reset()
    yield served
    served.reset()


@pytest.fixture(params=TRADERS, ids=lambda trader: trader.provider)
async def trading(request, box):
    """A trader, connected, and the order that it wants."""
    provider = open_provider(request.param.spec(box), Unlimited())
    await provider.connect()
    yield request.param, provider, PlacedOrder(KEY, request.param.symbol, "buy", request.param.small, NOW)
    await provider.disconnect()


def test_every_exchange_that_takes_orders_is_among_them():
    """A new order dialect joins with a line in TRADERS."""
    assert {f"ccxt:{name}" for name in DIALECTS} <= {trader.provider for trader in TRADERS}


async def test_t01_says_that_it_takes_orders(trading):
    """T01: it keeps TradingProvider, and its capabilities say so."""
    trader, provider, _ = trading
    assert isinstance(provider, TradingProvider)
    assert describe(trader.provider).has_orders


async def test_t02_an_order_is_filled_and_found(trading, box):
    """T02: the answer and the search are the same order, under our client id; another client id is not there."""
    _, provider, order = trading
    placed = await provider.place_order(order)
    assert (placed.client_id, placed.status, placed.filled) == (KEY, "filled", order.quantity)
    assert placed.price > 0
    assert placed.at_us == NOW
    assert await provider.find_order(order) == placed
    assert await provider.find_order(replace(order, client_id="cl" + "f" * 24)) is None
    assert len(box.orders.taken) == 1


async def test_t03_a_refusal_is_permanent(trading, box):
    """T03: beyond the balance the order has ended, and the broker knows none."""
    trader, provider, order = trading
    with pytest.raises(PermanentError):
        await provider.place_order(replace(order, quantity=trader.large))
    assert box.orders.taken == []
    assert await provider.find_order(order) is None


@pytest.mark.parametrize(("kind", "settings", "is_taken"), [
    ("drop", {}, False), ("drop_after", {}, True), ("status", {"status": 502}, True), ("html", {}, True), ("truncated", {}, True)])
async def test_t04_no_answer_is_unknown_and_nothing_is_sent_twice(trading, box, kind, settings, is_taken):
    """T04: without the broker's own yes or no the outcome is open; one request went out, and asking tells the truth."""
    trader, provider, order = trading
    fault = box.faults.add(kind, trader.send, **settings)
    with pytest.raises(TransientError) as caught:
        await provider.place_order(order)
    assert "\n" not in str(caught.value)
    assert fault.hits == 1
    box.faults.remove(fault)
    assert len(box.orders.taken) == is_taken
    assert (await provider.find_order(order) is not None) is is_taken


async def test_t05_a_broker_that_cannot_be_asked_is_not_a_no(trading, box):
    """T05: when every question fails the search raises, whether the order is there or not."""
    _, provider, order = trading
    await provider.place_order(order)
    box.faults.add("status", "*", status=503)
    for wanted in (order, replace(order, client_id="cl" + "f" * 24)):
        with pytest.raises(TransientError):
            await provider.find_order(wanted)

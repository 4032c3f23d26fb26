"""Signals that become orders at the sandbox's exchanges, through every switch and the real ccxt classes."""

from dataclasses import replace
from datetime import timedelta

import pytest

from addons.execution.plugin import Execution
from connections.inputs import ConnectionInput
from connections.service import ConnectionService
from core.clock import HOUR_US, ManualClock, parse_instant
from core.series import Series
from feed.pipelines import create
from feed.reconciling import reconcile
from feed.trading import LiveServices
from pipeline.stages import SignalRecord
from providers.exchange.order_dialects import DIALECTS
from providers.registry import describe
from sandbox.server import running
from storage.orders import list_orders, set_switch
from storage.pipelines import set_live
from storage.vault import KeyRing, Vault
from tests.pipeline.conftest import clock, definition, feed  # noqa: F401  fixtures

NOW = parse_instant("2021-06-16T10:07:30Z")
SYMBOL = {"binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}
SEND = {"binance": "*/api/v3/order", "kraken": "*/0/private/AddOrder", "coinbase": "*/brokerage/orders"}


@pytest.fixture(scope="module")
def venue():
    """The sandbox on a Wednesday."""
    with running(mode="replay", clock=ManualClock(NOW)) as box:
        yield box


@pytest.fixture(params=sorted(DIALECTS))
def home(request, feed, venue):  # noqa: F811  the fixture
    """A home with an account at an exchange, every switch on, and the signal of a candle."""
    venue.reset()
    venue.clock.set(NOW)
    exchange, symbol = request.param, SYMBOL[request.param]
    feed.clock.set(NOW)
    feed.settings = feed.settings.model_copy(update={"live_trading": True, "allow_private_hosts": True})
    feed.connections = ConnectionService(  # the sandbox stands any pace
        feed.lake, Vault(feed.lake.metadata, KeyRing.load(feed.settings), feed.clock), feed.settings, feed.clock,
        describe=lambda provider: replace(describe(provider), requests_per_second=1000.0))
    feed.connections.create(ConnectionInput(
        slug="real", provider=f"ccxt:{exchange}", base_url=venue.url, symbols=[symbol], timeframes=["1h"],
        credentials={"api_key": "sandbox-key-1234", "secret": "c2FuZGJveHNlY3JldDEy"}))
    feed.connections.update("real", settings={
        "live_trading": True, "max_order_quantity": 1.0, "max_daily_loss": 1e6, "max_open_orders": 10})
    create(feed, definition(series=[{"connection": "real", "symbol": symbol, "timeframe": "1h"}]), "me")
    with feed.lake.metadata.write() as tx:
        set_live(tx, "trend", live=True, now_us=NOW)
    ts = NOW - NOW % HOUR_US - HOUR_US
    series = Series.parse("real", symbol, "1h")
    yield feed, SignalRecord("trend", 1, series, ts, ts + HOUR_US, "buy", 40_000.0, 90.0, 70.0, "", {}, "", 0), SEND[exchange]
    venue.reset()


async def act(of, record, quantity=0.01):
    """Execute one signal for real."""
    return await Execution(Execution.Parameters(quantity=quantity, mode="live", max_age=1e6)).execute(record, LiveServices(of))


def rows(of):
    """Return the home's orders."""
    with of.lake.metadata.read() as tx:
        return list_orders(tx)


async def test_a_signal_is_one_order_at_the_exchange(home, venue):
    """Executed as often as one likes: one order, filled at the exchange's price with its fee."""
    of, record, _ = home
    for _ in range(3):
        assert (await act(of, record)).status == "done"
    (taken,) = venue.orders.taken
    (row,) = rows(of)
    assert (row["status"], row["filled_quantity"], row["broker_order_id"] is not None) == ("filled", 0.01, True)
    assert row["fill_price"] == pytest.approx(taken.price)
    assert row["commission"] == pytest.approx(0.001 * 0.01 * taken.price, rel=1e-4)


async def test_a_lost_answer_is_reconciled_by_asking(home, venue):
    """Taken, the answer lost, the exchange out of reach for a while: in the end one order, ours filled."""
    of, record, path = home
    fault = venue.faults.add("drop_after", path)
    assert (await act(of, record)).status == "pending"
    assert rows(of)[0]["status"] == "sending"
    venue.faults.remove(fault)
    await reconcile(of)
    assert rows(of)[0]["status"] == "filled"
    assert len(venue.orders.taken) == 1


async def test_an_order_that_never_arrived_ends_after_its_grace(home, venue):
    """Lost on the way there: asked for until its time is up, then cancelled, and never sent again."""
    of, record, path = home
    fault = venue.faults.add("drop", path)
    assert (await act(of, record)).status == "pending"
    venue.faults.remove(fault)
    assert (await act(of, record)).status == "pending"
    of.clock.advance(timedelta(seconds=of.settings.order_grace_seconds + 1))
    venue.clock.set(of.clock.now_us())
    assert (await act(of, record)).status == "refused"
    assert (rows(of)[0]["status"], venue.orders.taken) == ("cancelled", [])


@pytest.mark.parametrize(("quantity", "words"), [(0.0123456789, "multiples of"), (0.9, "nsufficient"), (2.0, "max_order_quantity")])
async def test_what_may_not_be_is_refused_in_words(home, venue, quantity, words):
    """Off the step, beyond the money, beyond our own limit: an ended order that says why."""
    of, record, _ = home
    assert (await act(of, record, quantity)).status == "refused"
    assert words in rows(of)[0]["error"]
    assert venue.orders.taken == []


async def test_the_kill_switch_holds_orders_back(home, venue):
    """Halted: nothing goes out."""
    of, record, _ = home
    with of.lake.metadata.write() as tx:
        set_switch(tx, halted=True, reason="storm", by="me", now_us=NOW)
    assert "storm" in (await act(of, record)).message
    assert venue.orders.taken == []

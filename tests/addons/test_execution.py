"""Orders: each signal acts once, whatever dies between writing it down, sending it and hearing of it."""

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.execution.accounts import Trade, equity, positions
from addons.execution.plugin import Execution
from core.clock import HOUR_US, MINUTE_US
from core.errors import NetworkError, PermanentError
from core.series import Series
from feed.pipelines import create
from feed.trading import LiveServices, StoredOrders, held
from pipeline.ports import Fill, OrderRequest
from pipeline.stages import SignalRecord
from storage.orders import list_orders, set_switch
from storage.pipelines import set_live
from storage.series import ensure_series
from tests.pipeline.conftest import SERIES, START, clock, definition, feed, market, store  # noqa: F401  fixtures

KILLS = 60


class KilledError(BaseException):
    """The process dies here."""


@dataclass
class Exchange:
    """A broker that keeps orders by client id and can lose us before or after it has taken one."""

    taken: list[str] = field(default_factory=list)
    die: str = ""

    async def place(self, order):
        if self.die == "before":
            raise KilledError
        self.taken.append(order.client_id)
        if self.die == "after":
            raise KilledError
        if self.die == "silence":
            raise NetworkError("the answer did not come")
        if self.die == "refusal":
            self.taken.pop()
            raise PermanentError("no money")
        return Fill(100.0, order.quantity, START, broker_order_id="1")

    async def find(self, order):
        return Fill(100.0, order.quantity, START, broker_order_id="1") if order.client_id in self.taken else None


@dataclass(frozen=True)
class Practice:
    """The house's services with that broker in the provider's place, and switches that are all on."""

    own: LiveServices
    exchange: Exchange

    @property
    def clock(self):
        return self.own.clock

    @property
    def orders(self):
        return self.own.orders

    @property
    def grace_us(self):
        return self.own.grace_us

    def candles_after(self, series, ts_us, count):
        return self.own.candles_after(series, ts_us, count)

    @asynccontextmanager
    async def broker(self, connection):
        yield self.exchange


def record(at=0, confidence=90.0, side="buy"):
    """Return a signal on candle `at`."""
    ts = START + at * HOUR_US
    return SignalRecord("trend", 1, SERIES, ts, ts + HOUR_US, side, 100.0, confidence, 70.0, "", {}, "", 0)


def create_live(feed):  # noqa: F811
    """Create a pipeline that may send real orders: every switch is on."""
    with feed.lake.metadata.write() as tx:
        ensure_series(tx, feed.connections.get("kraken").id, SERIES.symbol, "1h")
    create(feed, definition(), "me")
    feed.settings = feed.settings.model_copy(update={"live_trading": True})
    feed.connections.update("kraken", settings={
        "live_trading": True, "max_order_quantity": 1.0, "max_daily_loss": 1e6, "max_open_orders": 1000})
    with feed.lake.metadata.write() as tx:
        set_live(tx, "trend", live=True, now_us=START)


async def test_a_weak_signal_leaves_no_order(feed):  # noqa: F811
    """Below the threshold nothing is written down."""
    report = await Execution(Execution.Parameters(quantity=1)).execute(record(confidence=69.9), LiveServices(feed))
    assert report.status == "refused"
    with feed.lake.metadata.read() as tx:
        assert list_orders(tx) == []


async def test_a_paper_order_fills_once_at_the_next_open_against_us(feed, store):  # noqa: F811
    """Pending until the next candle is stored; then one fill at its open plus costs, and never another."""
    executor, services, candles = Execution(Execution.Parameters(quantity=2)), LiveServices(feed), market(3)
    store(candles.head(1))
    assert (await executor.execute(record(), services)).status == "pending"
    store(candles.slice(1))
    for _ in range(3):
        assert (await executor.execute(record(), services)).status == "done"
    with feed.lake.metadata.read() as tx:
        (row,) = list_orders(tx)
    assert row["fill_price"] == pytest.approx((candles["open"][1] + 0.02) * 1.0005)
    assert row["commission"] == pytest.approx(row["fill_price"] * 2 * 0.001)
    found = held(feed)
    (position,) = found.positions
    assert (position.quantity, found.curve[0][1]) == (2, pytest.approx(-row["commission"]))
    assert found.prices == {position.book: candles["close"][2]}
    open_gain = 2 * (candles["close"][2] - row["fill_price"])
    assert found.curve[-1] == (START + 2 * HOUR_US, pytest.approx(open_gain - row["commission"]))
    assert held(feed, mode="live").curve == held(feed, book="paper kraken ETH/USD").curve == []


async def test_kills_around_the_sending_make_no_second_order_and_lose_none(feed, store, clock):  # noqa: F811
    """Dead before, dead after, silence: the broker has each order at most once, and our rows say what it has."""
    store(market(3))
    create_live(feed)
    exchange = Exchange()
    services, executor = Practice(LiveServices(feed), exchange), Execution(Execution.Parameters(quantity=1, mode="live", max_age=1e6))
    ways = ("before", "after", "silence", "refusal", "")
    for at in range(KILLS):
        exchange.die = ways[at % len(ways)]
        with suppress(KilledError):
            await executor.execute(record(at), services)
        exchange.die = ""
        await executor.execute(record(at), services)
    clock.advance(timedelta(seconds=121))
    for at in range(KILLS):
        assert (await executor.execute(record(at), services)).status != "pending"
    with feed.lake.metadata.read() as tx:
        rows = list_orders(tx)
    assert len(rows) == KILLS
    assert len(set(exchange.taken)) == len(exchange.taken)
    assert {row["client_id"] for row in rows if row["status"] == "filled"} == set(exchange.taken)
    assert {row["status"] for row in rows} == {"filled", "cancelled", "rejected"}


async def test_a_real_order_does_not_go_out_long_after_its_candle(feed, clock):  # noqa: F811
    """Within a candle's length of the close it is sent; a home that comes back later refuses it, asks nobody, and says how late it is."""
    create_live(feed)
    exchange = Exchange()
    services, executor = Practice(LiveServices(feed), exchange), Execution(Execution.Parameters(quantity=1, mode="live"))
    clock.set(record(0).close_us + HOUR_US)
    assert (await executor.execute(record(0), services)).status == "done"
    clock.set(record(1).close_us + 3 * HOUR_US)
    late = await executor.execute(record(1), services)
    assert late.status == "refused"
    assert "closed 180 minutes ago; by max_age 1 a real order goes out within 60" in late.message
    minute = replace(record(2), series=Series.parse("kraken", "BTC/USD", "1m"), close_us=record(2).ts_us + MINUTE_US)
    for key_us, minutes, status in ((0, 10, "done"), (1, 11, "refused")):  # a minute's candle has ten
        clock.set(minute.close_us + minutes * MINUTE_US)
        assert (await executor.execute(replace(minute, ts_us=minute.ts_us + key_us), services)).status == status
    assert len(exchange.taken) == 2


def test_real_orders_need_every_switch(feed):  # noqa: F811
    """Off by default; the kill switch refuses before anything else."""
    orders = StoredOrders(feed)

    def ask(at):
        made = orders.write_down(OrderRequest(f"k{at}", "trend", 1, SERIES, START, "buy", 1.0, 100.0, "live"))
        return orders.begin_sending(made.key)

    assert "CANDLELAKE_LIVE_TRADING" in ask(1).error
    with feed.lake.metadata.write() as tx:
        set_switch(tx, halted=True, reason="storm", by="me", now_us=START)
    assert "storm" in ask(2).error


LIMITS = {"live_trading": True, "max_order_quantity": 1.0, "max_daily_loss": 10.0, "max_open_orders": 1}


@pytest.mark.parametrize(("what", "words"), [
    ("nothing", None),
    ("settings", "CANDLELAKE_LIVE_TRADING"),
    ("switch", "storm"),
    ("pipeline", "candlelake orders allow trend"),
    ("connection", "connection kraken has no setting live_trading"),
    ("max_daily_loss", "lacks the settings max_daily_loss"),
    ("size", "quantity 1 is above max_order_quantity 0.5"),
    ("open", "1 orders are open, max_open_orders is 1"),
    ("loss", "today's loss 50.00 has reached max_daily_loss 10"),
])
def test_each_switch_and_limit_stops_a_real_order_by_itself(feed, what, words):  # noqa: F811
    """With all switches on and all limits kept an order is sent; any one of them off or reached refuses it, in words that name it."""
    create(feed, definition(), "me")
    own = {key: value for key, value in LIMITS.items() if (what, key) != ("connection", "live_trading") and key != what}
    feed.settings = feed.settings.model_copy(update={"live_trading": what != "settings"})
    feed.connections.update("kraken", settings=own | ({"max_order_quantity": 0.5} if what == "size" else {}))
    orders = StoredOrders(feed)

    def ask(at, price=100.0):
        made = orders.write_down(OrderRequest(f"k{at}", "trend", 1, SERIES, START + at * HOUR_US, "buy", 1.0, price, "live"))
        return orders.begin_sending(made.key)

    with feed.lake.metadata.write() as tx:
        set_live(tx, "trend", live=what != "pipeline", now_us=START)
        if what == "switch":
            set_switch(tx, halted=True, reason="storm", by="me", now_us=START)
    if what in {"open", "loss"}:
        assert ask(1).status == "sending"
    if what == "loss":
        orders.settle("k1", Fill(100.0, 1.0, feed.clock.now_us(), broker_order_id="1"))
    answer = ask(2, price=50.0)
    if words is None:
        assert (answer.status, answer.error) == ("sending", None)
    else:
        assert answer.status == "refused"
        assert words in answer.error


@given(st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 50), st.integers(1, 500)), min_size=1, max_size=40))
def test_money_is_what_flowed_plus_what_is_held(steps):
    """Equity at the last price equals the cash that flowed plus the holding's worth, for any order of trades."""
    trades = [Trade("x", at, sign, float(size), float(price), 0.5) for at, (sign, size, price) in enumerate(steps)]
    last = trades[-1].price
    cash = sum(-trade.sign * trade.quantity * trade.price - trade.commission for trade in trades)
    position = positions(trades)["x"]
    assert position.quantity == sum(trade.sign * trade.quantity for trade in trades)
    assert equity(trades, {"x": last})[-1][1] == pytest.approx(cash + position.quantity * last, abs=1e-6)

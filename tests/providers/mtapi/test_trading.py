"""Market orders at the sandbox's MetaTrader brokers: sent once, found again, refused in words, unknown when nobody knows."""

from __future__ import annotations

import pytest

from core.clock import HOUR_US, ManualClock, parse_instant
from core.errors import PermanentError, TransientError
from core.interval import Interval
from core.secrets import Secret
from providers.base import ConnectionSpec, PlacedOrder, TradingProvider, Unlimited
from providers.mtapi.trading import magic_of
from providers.registry import open_provider
from sandbox.server import running

NOW = parse_instant("2021-06-16T10:07:30Z")  # a Wednesday
SATURDAY = parse_instant("2021-06-19T10:07:30Z")
LOGIN = {"user": Secret("50000001"), "password": Secret("practice-only"), "server": Secret("Sandbox-Demo")}
KEY = "cl" + "0123456789ab" * 2


@pytest.fixture(scope="module")
def served():
    """One sandbox for the module."""
    clock = ManualClock(NOW)
    with running(mode="replay", clock=clock) as box:
        yield box


@pytest.fixture
def box(served):
    """The sandbox as new, on a Wednesday."""
    served.reset()
    served.clock.set(NOW)
    yield served
    served.reset()


@pytest.fixture(params=["mt5", "mt4"])
async def provider(request, box):
    """A connected account of either platform."""
    spec = ConnectionSpec(
        "practice", f"mtapi:{request.param}", f"{box.url}/{request.param}", LOGIN,
        {"server_clock": {"offset_minutes": 120, "dst": "us"}}, 20.0, True, box.clock)
    made = open_provider(spec, Unlimited())
    await made.connect()
    yield made
    await made.disconnect()


def order(**changes):
    """Return an order we want."""
    return PlacedOrder(**({"client_id": KEY, "symbol": "EURUSD", "side": "buy", "quantity": 0.02, "sent_at_us": NOW} | changes))


async def test_an_order_is_filled_and_found_by_its_key(provider, box):
    """The answer, the search and the list of open orders tell the same; another key finds nothing."""
    assert isinstance(provider, TradingProvider)
    placed = await provider.place_order(order())
    (taken,) = box.orders.taken
    assert (placed.status, placed.filled, placed.price, placed.at_us) == ("filled", 0.02, taken.price, NOW)
    assert (taken.comment, taken.magic) == (KEY, magic_of(KEY))
    assert await provider.find_order(order()) == placed
    assert await provider.open_orders() == [placed]
    assert await provider.find_order(order(client_id="cl" + "f" * 24)) is None


async def test_the_magic_number_finds_an_order_whose_comment_was_rewritten(provider, box):
    """Brokers write over comments; number, symbol and side still tell ours, and the other side is not ours."""
    box.orders.take(platform=provider.capabilities.provider[-3:], user=50000001, symbol="EURUSD", operation="Buy", lots=0.02, price=1.1,
                    at_us=NOW, wall_us=NOW, comment="sl 1.09", magic=magic_of(KEY))
    assert (await provider.find_order(order())).filled == 0.02
    assert await provider.find_order(order(side="sell")) is None


@pytest.mark.parametrize(("changes", "word"), [
    ({"quantity": 0.013}, "INVALID_VOLUME"), ({"quantity": 150.0}, "NO_MONEY"), ({"symbol": "NOPE"}, "INVALID_SYMBOL")])
async def test_a_refusal_is_permanent_and_leaves_nothing(provider, box, changes, word):
    """The broker's plain no ends the order, in its words."""
    with pytest.raises(PermanentError, match=word):
        await provider.place_order(order(**changes))
    assert box.orders.taken == []


async def test_a_closed_market_refuses(provider, box):
    """At the weekend the broker says no: the order does not wait for Monday."""
    box.clock.set(SATURDAY)
    with pytest.raises(PermanentError, match="MARKET_CLOSED"):
        await provider.place_order(order())


@pytest.mark.parametrize(("kind", "settings", "is_taken"), [
    ("drop", {}, False), ("drop_after", {}, True), ("status", {"status": 502}, True), ("html", {}, True), ("null", {}, True),
    ("empty_object", {}, True), ("truncated", {}, True), ("redirect", {}, True)])
async def test_what_is_no_answer_is_unknown_and_sent_once(provider, box, kind, settings, is_taken):
    """Dropped before or after, 502, a web page: unknown, one request went out, and asking tells the truth."""
    box.faults.add(kind, "*/OrderSend", **settings)
    with pytest.raises(TransientError):
        await provider.place_order(order())
    assert len([asked for asked in box.requests if asked.path.endswith("/OrderSend")]) == 1
    assert (await provider.find_order(order()) is not None) is is_taken


async def test_the_broker_takes_the_same_key_twice(provider, box):
    """MetaTrader knows no key: what keeps orders single is that we never send twice."""
    await provider.place_order(order())
    await provider.place_order(order())
    assert [taken.comment for taken in box.orders.taken] == [KEY, KEY]


async def test_orders_tell_what_the_clock_was_then(provider, box):
    """Orders of both summer and winter, told by MetaTrader 5 in UTC and on the server's clock; MetaTrader 4 tells one of them only."""
    platform = provider.spec.provider.removeprefix("mtapi:")
    winter, summer = parse_instant("2021-01-20T12:00"), parse_instant("2021-06-02T12:00")
    for at, hours in ((winter, 2), (summer, 3), (parse_instant("2019-01-01T12:00"), 2)):
        box.orders.take(platform=platform, user=50000001, symbol="EURUSD", operation="Buy", lots=0.1, price=1.1, at_us=at,
                        wall_us=at + hours * HOUR_US, comment="", magic=0)
    stamps = await provider.clock_stamps(Interval.parse("2021-01-01", "2021-06-16"))
    told = [(winter, winter + 2 * HOUR_US), (summer, summer + 3 * HOUR_US)]
    assert stamps == (told if platform == "mt5" else [])

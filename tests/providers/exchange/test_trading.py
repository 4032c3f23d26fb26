"""Market orders at the sandbox's exchanges through the real ccxt classes: sent once, found again, never guessed at."""

import asyncio
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import ManualClock, parse_instant
from core.errors import BadPayloadError, InputError, PermanentError, TransientError, UnknownSymbolError
from core.secrets import Secret
from providers.base import ConnectionSpec, PlacedOrder, TradingProvider, Unlimited
from providers.exchange import open_exchange
from providers.exchange.order_dialects import DIALECTS
from providers.exchange.trading import read
from sandbox.server import running

NOW = parse_instant("2021-06-16T10:07:30Z")
KEY = "cl" + "0123456789ab" * 2
SECRET = "c2FuZGJveHNlY3JldDEy"
SYMBOL = {"binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}
SEND = {"binance": "*/api/v3/order", "kraken": "*/0/private/AddOrder", "coinbase": "*/brokerage/orders"}
ASK = {"binance": "*/api/v3/order", "kraken": "*/0/private/*Orders", "coinbase": "*/orders/historical/batch"}


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


@pytest.fixture(params=sorted(DIALECTS))
async def provider(request, box):
    """A connected account at each exchange that takes orders."""
    made = make(request.param, box)
    await made.connect()
    yield made
    await made.disconnect()


def make(exchange_id, box, **credentials):
    """Return a provider, not yet connected."""
    given = credentials or {"api_key": "sandbox-key-1234", "secret": SECRET}
    return open_exchange(ConnectionSpec(
        "practice", f"ccxt:{exchange_id}", box.url, {name: Secret(value) for name, value in given.items()}, {}, 20.0, True,
        box.clock), Unlimited())


def order(provider, **changes):
    """Return an order we want."""
    symbol = SYMBOL[name(provider)]
    return PlacedOrder(**({"client_id": KEY, "symbol": symbol, "side": "buy", "quantity": 0.01, "sent_at_us": NOW} | changes))


def name(provider):
    """Return the exchange's id."""
    return provider.capabilities.provider.removeprefix("ccxt:")


def sent(provider, box):
    """Return how many orders went out."""
    return len([asked for asked in box.requests if asked.method == "POST" and asked.path.endswith(SEND[name(provider)].lstrip("*"))])


async def test_an_order_is_filled_and_found_by_its_key(provider, box):
    """The answer and the search tell the same, fees and time included; another key finds nothing."""
    assert isinstance(provider, TradingProvider)
    placed = await provider.place_order(order(provider))
    (taken,) = box.orders.taken
    assert (placed.status, placed.filled, placed.at_us) == ("filled", 0.01, NOW)
    assert placed.price == pytest.approx(taken.price)
    assert placed.commission == pytest.approx(0.001 * 0.01 * taken.price, rel=1e-4)
    assert await provider.find_order(order(provider)) == placed
    assert await provider.open_orders() == []
    assert await provider.find_order(order(provider, client_id="cl" + "f" * 24)) is None
    assert sent(provider, box) == 1


async def test_a_sale_moves_the_balance_the_other_way(provider, box):
    """What was bought can be sold, and both are found by their own keys."""
    bought = await provider.place_order(order(provider))
    sold = await provider.place_order(order(provider, client_id="cl" + "a" * 24, side="sell"))
    assert [taken.operation for taken in box.orders.taken] == ["Buy", "Sell"]
    assert (await provider.find_order(order(provider))).order_id == bought.order_id != sold.order_id


@pytest.mark.parametrize("changes", [
    {"quantity": 0.0123456789}, {"quantity": 1e-9}, {"quantity": -1.0}, {"quantity": float("nan")}])
async def test_an_amount_that_the_market_does_not_take_is_not_sent(provider, box, changes):
    """Off the step, too small, no number: said with what is allowed, and nothing goes out."""
    with pytest.raises(InputError, match="quantity"):
        await provider.place_order(order(provider, **changes))
    assert sent(provider, box) == 0


async def test_an_unknown_symbol_is_not_sent(provider, box):
    """Neither sent nor asked for."""
    for act in (provider.place_order, provider.find_order):
        with pytest.raises(UnknownSymbolError):
            await act(order(provider, symbol="NOPE/NIX"))
    assert sent(provider, box) == 0


@pytest.mark.parametrize("changes", [{"quantity": 5.0}, {"quantity": 5.0, "side": "sell"}])
async def test_a_refusal_is_permanent_and_leaves_nothing(provider, box, changes):
    """Too little money, too few coins: the exchange's plain no ends the order."""
    with pytest.raises(PermanentError, match=r"(?i)insufficient"):
        await provider.place_order(order(provider, **changes))
    assert (box.orders.taken, sent(provider, box)) == ([], 1)


@pytest.mark.parametrize(("kind", "settings", "is_taken"), [
    ("drop", {}, False), ("drop_after", {}, True), ("status", {"status": 502}, True), ("status", {"status": 403}, True),
    ("status", {"status": 404}, True), ("html", {}, True), ("null", {}, True), ("empty_object", {}, True), ("truncated", {}, True),
    ("redirect", {}, True)])
async def test_what_is_no_answer_is_unknown_and_sent_once(provider, box, kind, settings, is_taken):
    """Dropped before or after, refused by a proxy, a web page: unknown, one request went out, and asking tells the truth."""
    fault = box.faults.add(kind, SEND[name(provider)], **settings)
    with pytest.raises(TransientError):
        await provider.place_order(order(provider))
    box.faults.remove(fault)
    assert sent(provider, box) == 1
    assert (await provider.find_order(order(provider)) is not None) is is_taken


@pytest.mark.parametrize(("kind", "settings"), [
    ("status", {"status": 502}), ("status", {"status": 404}), ("html", {}), ("null", {}), ("empty_object", {}), ("truncated", {}),
    ("drop", {})])
async def test_a_look_that_failed_is_not_a_no(provider, box, kind, settings):
    """An order that nobody knows is only told from one that nobody could look for by the exchange's own words."""
    box.faults.add(kind, ASK[name(provider)], **settings)
    with pytest.raises((TransientError, PermanentError)):
        await provider.find_order(order(provider))


async def test_without_a_key_nothing_is_sent(box):
    """Public data only: an order is bad input, before anything goes out."""
    for exchange_id in DIALECTS:
        provider = open_exchange(ConnectionSpec(
            "public", f"ccxt:{exchange_id}", box.url, {}, {}, 20.0, True, box.clock), Unlimited())
        await provider.connect()
        try:
            with pytest.raises(InputError, match="credentials"):
                await provider.place_order(order(provider))
            assert sent(provider, box) == 0
        finally:
            await provider.disconnect()


async def test_orders_at_once_keep_their_keys(provider, box):
    """Two orders and the account asked for at the same time: none goes out unsigned, each is its own."""
    other = "cl" + "b" * 24
    placed = await asyncio.gather(
        provider.place_order(order(provider)), provider.account_info(), provider.place_order(order(provider, client_id=other)))
    assert {placed[0].client_id, placed[2].client_id} == {KEY, other}
    assert len(box.orders.taken) == 2


async def test_keys_do_not_show(provider, box):
    """Neither the sandbox's log nor an error holds what signs."""
    box.faults.add("status", SEND[name(provider)], status=502)
    with pytest.raises(TransientError) as caught:
        await provider.place_order(order(provider))
    told = f"{caught.value!r} {box.requests!r} {provider!r}"
    assert "sandbox-key-1234" not in told
    assert SECRET not in told


@pytest.mark.parametrize(("raw", "status", "filled"), [
    ({"status": "open", "filled": 0.0}, "acknowledged", 0.0), ({"status": "expired", "filled": 0.0}, "cancelled", 0.0),
    ({"status": "rejected"}, "rejected", 0.0), ({"status": None}, "acknowledged", 0.0),
    ({"status": "expired", "filled": 0.4, "average": 2.0}, "filled", 0.4),
    ({"status": "open", "filled": 0.4, "cost": 0.8}, "acknowledged", 0.4)])
def test_states_are_read_as_they_are(raw, status, filled):
    """What an ended order filled in part counts as filled by that much; an open one goes on."""
    found = read({"id": "7", **raw}, KEY, {"base": "BTC", "quote": "USDT"})
    assert (found.status, found.filled) == (status, filled)
    assert found.price == (2.0 if filled else None)


@pytest.mark.parametrize("raw", [
    {"status": "closed", "filled": 0.0}, {"status": "closed", "filled": 1.0}, {"status": "odd"}, {"status": "open", "filled": []},
    {"status": "closed", "filled": "nan", "average": 1.0}])
def test_an_order_that_says_too_little_is_not_used(raw):
    """A filled order without amount or price, a state without a name, a number that is none."""
    with pytest.raises(BadPayloadError):
        read({"id": "7", **raw}, KEY, {"base": "BTC", "quote": "USDT"})


async def test_binance_tells_the_largest_amount(box):
    """Above it nothing goes out."""
    provider = make("binance", box)
    await provider.connect()
    try:
        with pytest.raises(InputError, match="to 9000"):
            await provider.place_order(order(provider, quantity=9001.0))
        assert sent(provider, box) == 0
    finally:
        await provider.disconnect()


async def test_binance_refuses_too_small_an_amount_of_money(box):
    """The least notional is the exchange's to know: its no is permanent."""
    provider = make("binance", box)
    await provider.connect()
    try:
        with pytest.raises(PermanentError, match="NOTIONAL"):
            await provider.place_order(order(provider, quantity=0.0001))
    finally:
        await provider.disconnect()


@pytest.mark.parametrize("code", [-1006, -1007])
async def test_binance_can_say_that_it_does_not_know(box, code):
    """Codes that leave the execution open leave the order open, whatever the status."""
    provider = make("binance", box)
    await provider.connect()
    try:
        box.faults.add("status", SEND["binance"], status=400, body=f'{{"code": {code}, "msg": "Execution status unknown."}}')
        with pytest.raises(TransientError, match="unknown"):
            await provider.place_order(order(provider))
    finally:
        await provider.disconnect()


@pytest.mark.parametrize("quantity", [0.01, 5.0])
async def test_binance_refusing_a_duplicate_is_asked_first(box, quantity):
    """An order that is there is returned, not given up; one that is not there yet stays unknown."""
    provider = make("binance", box)
    await provider.connect()
    try:
        box.faults.add("status", SEND["binance"], status=400, count=1, body='{"code": -2010, "msg": "Duplicate order sent."}')
        if quantity == 5.0:  # too much for the balance: nothing was taken
            with pytest.raises(TransientError, match="not found yet"):
                await provider.place_order(order(provider, quantity=quantity))
        else:
            assert (await provider.place_order(order(provider))).filled == quantity
        assert sent(provider, box) == 1
    finally:
        await provider.disconnect()


async def test_binance_is_asked_again_until_the_fills_make_up_the_order(box):
    """Fees come from the fills: too few of them are no answer yet."""
    provider = make("binance", box)
    await provider.connect()
    try:
        await provider.place_order(order(provider))
        box.faults.add("status", "*/myTrades", status=200, body="[]")
        with pytest.raises(TransientError, match="fills"):
            await provider.find_order(order(provider))
    finally:
        await provider.disconnect()


def test_capabilities_say_who_takes_orders(box):
    """Data and protocol agree, for the exchanges that take orders and for one that does not."""
    for exchange_id in (*DIALECTS, "kucoin"):
        provider = make(exchange_id, box)
        assert provider.capabilities.has_orders is isinstance(provider, TradingProvider) is (exchange_id in DIALECTS)


@given(st.text("0123456789abcdef", min_size=24, max_size=24))
def test_every_exchange_carries_our_key_in_its_own_format(digits):
    """The key follows from the client id, leads back to it, and fits: Kraken wants a UUID, Binance at most 36 characters."""
    for dialect in DIALECTS.values():
        key = dialect.key("cl" + digits)
        assert dialect.client_id(key) == "cl" + digits
        assert len(key) <= 36
    kraken = UUID(DIALECTS["kraken"].key("cl" + digits))
    assert (kraken.version, kraken.variant) == (4, RFC_4122)
    assert DIALECTS["kraken"].client_id(str(uuid4())) is None
    assert DIALECTS["binance"].client_id("x-TKT5PX2F123") is None


@pytest.mark.parametrize("body", [
    '{"error":[],"result":{"closed":{},"count":51}}', '{"error":[],"result":{"closed":{}}}', '{"error":[],"result":{"count":0}}',
    '{"error":[],"result":{}}', '{"error":["EService:Unavailable"]}', '{"error":["EGeneral:Internal error"]}'])
async def test_kraken_must_show_all_its_ended_orders(box, body):
    """A page that says there are more and gives none, one without its count, an error: not told from a lost order."""
    provider = make("kraken", box)
    await provider.connect()
    try:
        box.faults.add("status", "*/ClosedOrders", status=200, body=body)
        with pytest.raises(TransientError):
            await provider.find_order(order(provider))
    finally:
        await provider.disconnect()


async def test_kraken_is_paged_where_it_does_not_filter(box):
    """Ended orders of others on the first pages: ours is found on the third, or known not to be there when all were seen."""
    provider = make("kraken", box)
    await provider.connect()
    try:
        for number in range(120):
            box.orders.take(platform="kraken", user=0, symbol="BTCUSD", operation="Buy", lots=0.01, price=1.0, at_us=NOW, wall_us=NOW, magic=0,
                            comment=DIALECTS["kraken"].key(KEY) if not number else "")
        box.set(ignores_keys=True)
        assert (await provider.find_order(order(provider))).filled == 0.01
        assert await provider.find_order(order(provider, client_id="cl" + "f" * 24)) is None
        assert len([asked for asked in box.requests if asked.path.endswith("/ClosedOrders")]) == 6
    finally:
        await provider.disconnect()


@pytest.mark.parametrize(("error", "kind"), [
    ("EOrder:Cost minimum not met", PermanentError), ("EGeneral:Invalid arguments:volume", PermanentError),
    ("EService:Timeout", TransientError), ("EService:Unavailable", TransientError), ("EGeneral:Internal error", TransientError),
    ("EAPI:Invalid nonce", TransientError), ("EOrder:Rate limit exceeded", TransientError),
    ("EOrder:Duplicate cl_ord_id", TransientError)])
async def test_krakens_words_end_an_order_or_leave_it_open(box, error, kind):
    """Its refusals are permanent; what may have come after the order was taken is not."""
    provider = make("kraken", box)
    await provider.connect()
    try:
        box.faults.add("status", SEND["kraken"], status=200, body=f'{{"error": ["{error}"]}}')
        with pytest.raises(kind):
            await provider.place_order(order(provider, quantity=5.0))
    finally:
        await provider.disconnect()


@pytest.mark.parametrize("body", [
    '{"orders": []}', '{"has_next": false}', '{"orders": [], "has_next": true, "cursor": ""}',
    '{"orders": [], "has_next": true, "cursor": "same"}'])
async def test_coinbase_must_show_all_its_orders(box, body):
    """A list that does not say whether it goes on, or goes on without an end: not told from a lost order."""
    provider = make("coinbase", box)
    await provider.connect()
    try:
        box.faults.add("status", "*/orders/historical/batch", status=200, body=body)
        with pytest.raises(TransientError):
            await provider.find_order(order(provider))
    finally:
        await provider.disconnect()


async def test_coinbase_is_looked_through_page_by_page(box):
    """Hundreds of newer orders before ours: it is found, and one that is not there is known to be not there."""
    provider = make("coinbase", box)
    await provider.connect()
    try:
        for number in range(250):
            box.orders.take(platform="coinbase", user=0, symbol="BTCUSD", operation="Buy", lots=0.01, price=1.0, at_us=NOW, wall_us=NOW,
                            magic=0, comment=KEY if not number else f"other-{number}")
        assert (await provider.find_order(order(provider))).filled == 0.01
        assert await provider.find_order(order(provider, client_id="cl" + "f" * 24)) is None
        fault = box.faults.add("status", "*/orders/historical/batch", status=502)
        with pytest.raises(TransientError):
            await provider.find_order(order(provider))
        assert fault.hits == 1
    finally:
        await provider.disconnect()


@pytest.mark.parametrize(("reason", "kind"), [
    ("INVALID_PRODUCT_ID", PermanentError), ("UNSUPPORTED_ORDER_CONFIGURATION", PermanentError),
    ("UNKNOWN_FAILURE_REASON", TransientError), ("SOMETHING_NEW", TransientError)])
async def test_coinbases_reasons_end_an_order_or_leave_it_open(box, reason, kind):
    """Reasons that no order survives are permanent; an unknown one is not taken for a no."""
    provider = make("coinbase", box)
    await provider.connect()
    try:
        box.faults.add("status", SEND["coinbase"], status=200,
                       body=f'{{"success": false, "error_response": {{"error": "{reason}", "message": "no"}}}}')
        with pytest.raises(kind):
            await provider.place_order(order(provider))
    finally:
        await provider.disconnect()


async def test_coinbase_gives_a_key_used_before_its_order_again(box):
    """The same key twice is one order there: what we send is under its own name, not under one of ccxt's making."""
    provider = make("coinbase", box)
    await provider.connect()
    try:
        assert await provider.place_order(order(provider)) == await provider.place_order(order(provider))
        assert [taken.comment for taken in box.orders.taken] == [KEY]
    finally:
        await provider.disconnect()

"""Streams of every provider that pushes, against the sandbox's web sockets, which run some hundred times as fast."""

import asyncio
from contextlib import aclosing

import pytest

from core.clock import MINUTE_US, parse_instant, to_us
from core.errors import (
    AddressRefusedError,
    BadPayloadError,
    NetworkError,
    TransientError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.secrets import Secret
from core.ticks import Recent
from core.timeframe import Timeframe
from providers.base import ConnectionSpec, StreamingProvider, Unlimited
from providers.exchange.stream import Buffer
from providers.exchange.transport import GuardedSession
from providers.registry import open_provider
from sandbox.clocks import FastClock
from sandbox.server import running

NOW = parse_instant("2021-06-16T10:07:30Z")  # a Wednesday
M1 = Timeframe.parse("1m")
ACCOUNT = {"user": "50000001", "password": "practice-only", "server": "Sandbox-Demo"}
VENUES = {
    "mtapi:mt5": ("EURUSD", "/mt5", ACCOUNT, "/mt5/*"), "mtapi:mt4": ("EURUSD", "/mt4", ACCOUNT, "/mt4/*"),
    "ccxt:binance": ("BTC/BUSD", "", {}, "/stream.binance.com*"), "ccxt:kraken": ("BTC/USD", "", {}, "/ws.kraken.com*"),
    "ccxt:coinbase": ("BTC/USD", "", {}, "/advanced-trade-ws*"),
}


@pytest.fixture
def box():
    with running(mode="replay", clock=FastClock(NOW, 100)) as box:
        yield box


# MetaTrader 4 speaks as 5 does over its sockets, and Binance as Kraken in ccxt's hands: their turns come with the slow tests.
@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.slow) if name in {"mtapi:mt4", "ccxt:binance"} else name for name in VENUES])
async def venue(request, box):
    """A connected provider, its symbol, and the path pattern of its sockets."""
    symbol, path, account, pattern = VENUES[request.param]
    provider = open_provider(spec(box, request.param, path, account), Unlimited())
    await provider.connect()
    yield provider, symbol, pattern
    await provider.disconnect()


def spec(box, provider, path, account):
    return ConnectionSpec("streams", provider, box.url + path, {name: Secret(text) for name, text in account.items()},
                          timeout=20.0, allow_private_hosts=True, clock=box.clock)


async def collect(stream, count):
    """Return the batches of a stream until they hold `count` items."""
    batches = []
    async with asyncio.timeout(60), aclosing(stream):
        async for batch in stream:
            batches.append(batch)
            if sum(map(len, batches)) >= count:
                break
    return batches


async def test_ticks_come_in_order_once_the_subscription_stands(venue):
    """The first list is empty and says that the subscription stands; then come ticks of that symbol alone, oldest first."""
    provider, symbol, _ = venue
    assert isinstance(provider, StreamingProvider)
    assert provider.capabilities.has_streams
    first, *batches = await collect(provider.stream_ticks([symbol]), 20)
    ticks = [tick for batch in batches for tick in batch]
    assert first == []
    assert {tick.symbol for tick in ticks} == {symbol}
    assert [tick.ts_us for tick in ticks] == sorted(tick.ts_us for tick in ticks)
    assert all((tick.bid is not None and tick.ask > tick.bid) if symbol == "EURUSD" else tick.price > 0 for tick in ticks)


async def test_ticks_build_the_candles_that_rest_serves(venue):
    """All ticks of one minute give its open, high, low, close and volume as REST tells them: nothing is lost on the way."""
    provider, symbol, _ = venue
    clock = provider.spec.clock if hasattr(provider, "spec") else provider._spec.clock
    recent, inside, slot = Recent(), [], None
    async with asyncio.timeout(60), aclosing(provider.stream_ticks([symbol])) as stream:
        async for batch in stream:
            if slot is None:  # the subscription stands from here on: the next minute is heard whole
                slot = clock.now_us() // MINUTE_US * MINUTE_US + MINUTE_US
            inside += [tick for tick in batch if recent.is_new(tick.key) and slot <= tick.ts_us < slot + MINUTE_US]
            if any(tick.ts_us >= slot + MINUTE_US for tick in batch):
                break
    page = await provider.fetch_candles(symbol, M1, Interval(slot, slot + MINUTE_US))
    row = next(row for row in page.candles.to_dicts() if to_us(row["ts"]) == slot)
    prices = [tick.price if tick.price is not None else tick.bid for tick in inside]
    assert (row["open"], row["high"], row["low"], row["close"]) == (prices[0], max(prices), min(prices), prices[-1])
    volume = len(inside) if symbol == "EURUSD" else round(sum(tick.size for tick in inside), 8)
    assert row["volume"] == pytest.approx(volume, abs=1e-9)


async def test_an_unknown_symbol_is_named_and_never_waited_for(venue):
    """A symbol that the venue drops without a word is an error at once."""
    provider, _, _ = venue
    with pytest.raises(UnknownSymbolError):
        await collect(provider.stream_ticks(["NOSUCH/SYMBOL"]), 1)


async def test_every_end_of_a_session_is_an_error_and_the_next_one_works(venue, box):
    """A cut, a restart, garbage and a message past all limits end the stream with a transient error; another one can begin."""
    provider, symbol, pattern = venue
    for kind in ("ws_drop", "ws_close", "ws_garbage", "ws_huge"):
        box.faults.add(kind, pattern, count=1)
        with pytest.raises(TransientError) as caught:
            await collect(provider.stream_ticks([symbol]), 10_000)
        assert isinstance(caught.value, BadPayloadError if kind == "ws_garbage" else (NetworkError, BadPayloadError))
        assert sum(map(len, await collect(provider.stream_ticks([symbol]), 3))) >= 3


async def test_a_refused_handshake_is_an_error(venue, box):
    """A host that answers the handshake with HTTP 503 is a transient error, and no loop of our own hides it."""
    provider, symbol, pattern = venue
    box.faults.add("ws_refuse", pattern)
    with pytest.raises(TransientError):
        await collect(provider.stream_ticks([symbol]), 1)


async def test_candles_stream_where_the_venue_has_them(venue):
    """Forming candles come with their newest values; Coinbase has none and says so."""
    provider, symbol, _ = venue
    stream = provider.stream_candles([(symbol, M1)])
    if provider.capabilities.provider == "ccxt:coinbase":
        with pytest.raises(UnsupportedError, match="build them"):
            await collect(stream, 1)
        return
    candles = [candle for batch in await collect(stream, 5) for candle in batch]
    assert all(candle.low <= candle.open <= candle.high and candle.ts_us % MINUTE_US == 0 for candle in candles)
    assert {(candle.symbol, candle.timeframe) for candle in candles} == {(symbol, M1)}


async def test_a_bridge_repeats_its_last_quotes_after_a_reconnect(box):
    """What a bridge sends again is passed on and recognised by its key."""
    provider = open_provider(spec(box, "mtapi:mt5", "/mt5", ACCOUNT), Unlimited())
    await provider.connect()
    recent = Recent()
    first = [tick for batch in await collect(provider.stream_ticks(["EURUSD"]), 30) for tick in batch]
    assert all(recent.is_new(tick.key) for tick in first)
    again = [tick for batch in await collect(provider.stream_ticks(["EURUSD"]), 5) for tick in batch]
    await provider.disconnect()
    assert again[0].ts_us <= first[-1].ts_us + MINUTE_US


async def test_a_symbol_that_a_bridge_forgot_is_subscribed_again_on_the_same_socket(box):
    """A bridge that drops one symbol without a word brings it again after `resubscribe`; exchanges say that they cannot."""
    provider = open_provider(spec(box, "mtapi:mt5", "/mt5", ACCOUNT), Unlimited())
    await provider.connect()
    seen = []
    async with asyncio.timeout(60), aclosing(provider.stream_ticks(["EURUSD", "XAUUSD"])) as stream:
        async for batch in stream:
            seen += [tick.symbol for tick in batch]
            if "XAUUSD" in seen:
                break
        box.faults.add("ws_mute", "/mt5/On*", symbol="XAUUSD", count=1)
        async for batch in stream:
            names = {tick.symbol for tick in batch}
            if box.faults.active[0].hits and "XAUUSD" not in names:
                break
        await provider.resubscribe(["XAUUSD"])
        async for batch in stream:
            if any(tick.symbol == "XAUUSD" for tick in batch):
                break
    await provider.disconnect()
    exchange = open_provider(spec(box, "ccxt:kraken", "", {}), Unlimited())
    with pytest.raises(UnsupportedError, match="once in a session"):
        await exchange.resubscribe(["BTC/USD"])


async def test_a_host_without_onquote_is_asked_for_events(box):
    """Where the socket of quotes is missing, the one that mixes all events serves."""
    box.set(no_sockets="OnQuote")
    provider = open_provider(spec(box, "mtapi:mt5", "/mt5", ACCOUNT), Unlimited())
    await provider.connect()
    assert await collect(provider.stream_ticks(["EURUSD"]), 3)
    box.set(no_sockets="OnQuote,Events")
    with pytest.raises(UnsupportedError, match="REST"):
        await collect(provider.stream_ticks(["EURUSD"]), 1)
    await provider.disconnect()


async def test_web_sockets_go_through_the_address_guard(box):
    """An exchange's session opens no web socket to a private address without leave, whatever its URL says."""
    session = GuardedSession(None, allow_private=False)
    with pytest.raises(AddressRefusedError):
        async with session.ws_connect(box.url.replace("http", "ws") + "/ws.kraken.com/v2"):
            pass
    await session.close()


async def test_a_slow_reader_is_told_what_it_lost():
    """Past its limit the buffer sheds, and the reader gets an error after what was kept: nothing is lost in silence."""
    buffer = Buffer(limit=3)
    for number in range(5):
        buffer.put(number)
    assert buffer.take() == [0, 1, 2]
    with pytest.raises(TransientError, match="lost"):
        buffer.take()

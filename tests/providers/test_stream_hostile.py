"""Hostile messages over web sockets: each one is an error of ours, none is a tick, and none reaches further than its session."""

import asyncio
import gzip
import zlib
from collections import deque
from types import SimpleNamespace

import orjson
import pytest

from core.clock import ManualClock, parse_instant
from core.errors import BadPayloadError
from core.server_clock import ServerClock
from core.timeframe import Timeframe
from providers.exchange.frames import frame_reader
from providers.exchange.stream import Buffer, CandleTap, _check_packed, _receive, read_trade
from providers.exchange.transport import MESSAGE_LIMIT
from providers.mtapi.stream import _parse, _quote

NOW = parse_instant("2021-06-16T10:07:30Z")
CLOCKS = [ServerClock.fixed(120, "us"), ServerClock.fixed(120, "eu"), ServerClock.fixed(-600)]
TRADE = {"timestamp": NOW // 1000, "price": 1.0, "amount": 1.0, "side": "buy", "id": "1"}
QUOTE = {"symbol": "EURUSD", "bid": 1.1, "ask": 1.2, "time": "2021-06-16T12:07:30"}


@pytest.mark.parametrize("changed", [
    {"price": float("nan")}, {"price": float("inf")}, {"price": -1.0}, {"price": 0}, {"price": None}, {"amount": float("nan")},
    {"amount": -1}, {"amount": float("inf")}, {"timestamp": 10**15}, {"timestamp": -1}, {"timestamp": None}, {"timestamp": "now"}])
def test_a_trade_out_of_range_is_no_tick(changed):
    """No number, a negative one, none at all, or a time beyond 2100 ends the session."""
    with pytest.raises(BadPayloadError, match="streamed trade"):
        read_trade({**TRADE, **changed}, "A", NOW)


def test_a_side_that_is_none_is_unknown():
    """Whatever stands where the side should be, the tick has buy, sell or nothing."""
    assert read_trade(TRADE, "A", NOW).side == "buy"
    assert [read_trade({**TRADE, "side": side}, "A", NOW).side for side in (["buy"], {"a": 1}, 5, "BUY", None)] == [None] * 5


@pytest.mark.parametrize("values", [[float("nan")] * 5, [1, 1, 1, 0, 1], [1, 1, -1, 1, 1], [1, 1, 1, 1, -1], [1, 1, 1, 1, float("inf")]])
def test_a_candle_out_of_range_is_refused(values):
    """A streamed candle with a value that no market has ends the session."""
    tap = CandleTap("A", Timeframe.parse("1m"), Buffer(), ManualClock(NOW))
    with pytest.raises(BadPayloadError):
        tap.append([NOW // 1000, *values])


@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00", "9999-12-31T23:59:59", "1969-12-31T00:00:00", "2021-13-01T00:00:00", 5, None])
def test_a_quote_out_of_time_is_refused_by_every_clock(clock, time):
    """A time that no clock rule reaches is an error of the message, never one of ours."""
    with pytest.raises(BadPayloadError):
        _quote({**QUOTE, "time": time}, clock, NOW)
    assert _quote(QUOTE, clock, NOW).bid == 1.1


@pytest.mark.parametrize("changed", [{"bid": -1}, {"ask": "1.2"}, {"bid": True}, {"bid": None}, {"symbol": 5}, {"bid": float("inf")}])
def test_a_quote_with_other_values_is_refused(changed):
    """Prices are numbers from 0, symbols are text."""
    with pytest.raises(BadPayloadError):
        _quote({**QUOTE, **changed}, CLOCKS[0], NOW)


@pytest.mark.parametrize("text", [b"\xff\xfe", "[" * 5000 + "]" * 5000, '{"bid":NaN}', '{"bid":1e999}', "[]", "5", "", "{" * 100])
def test_what_is_no_object_is_refused(text):
    """Binary junk, depth without end, numbers that are none, and other shapes end the session."""
    with pytest.raises(BadPayloadError):
        _parse(text, "host")


@pytest.mark.parametrize("changed", [{"p": "0"}, {"p": "-1"}, {"p": "nan"}, {"q": "inf"}, {"T": 10**14}, {"T": True}, {"s": "OTHER"}, {"t": None}])
def test_a_frame_that_is_not_plain_goes_to_the_library(changed):
    """The quick reader takes exact trades of subscribed symbols only; ccxt says what is wrong with anything else."""
    exchange = SimpleNamespace(id="binance", market=lambda symbol: {"spot": True, "id": symbol.replace("/", "")})
    read = frame_reader(exchange, ["BTC/USDT"], ManualClock(NOW))
    plain = {"e": "trade", "s": "BTCUSDT", "t": 1, "p": "1.5", "q": "2", "T": NOW // 1000, "m": False}
    assert [tick.price for tick in read(orjson.dumps(plain).decode())] == [1.5]
    assert read(orjson.dumps({**plain, **changed}).decode()) is None


def packed(data, is_gzip):
    maker = zlib.compressobj(wbits=zlib.MAX_WBITS | 16 if is_gzip else -zlib.MAX_WBITS)
    return maker.compress(data) + maker.flush()


@pytest.mark.parametrize("is_gzip", [True, False])
def test_a_packed_bomb_is_refused_before_it_is_unpacked(is_gzip):
    """A few kilobytes that unpack to more than a message may have end the session, as do cut ones; ordinary ones pass."""
    client = SimpleNamespace(gunzip=is_gzip, inflate=not is_gzip)
    _check_packed(client, packed(b'{"a":1}', is_gzip))
    _check_packed(client, "text")
    for data in (packed(bytes(4 * MESSAGE_LIMIT), is_gzip), packed(b'{"a":1}' * 99, is_gzip)[:-9], b"\xff\xfejunk", gzip.compress(b"x") * 2):
        with pytest.raises(BadPayloadError, match="unpack"):
            _check_packed(client, data)


async def test_a_full_socket_is_read_in_turns():
    """However much waits in the library's buffer, what was read is passed on every few milliseconds, in its order, none left out."""
    read, turns, loop = [], [], asyncio.get_running_loop()
    waiting = deque((number, 10) for number in range(200))
    client = SimpleNamespace(buffer=waiting, closed=lambda: False, asyncio_loop=loop)

    def handle(message):
        read.append(message)
        end = loop.time() + 0.001
        while loop.time() < end:
            pass

    def receive():
        turns.append(None)
        read.extend(message for message, _ in waiting)
        waiting.clear()

    client.handle_message = handle
    client.receive_loop = lambda: _receive(client, receive)
    client.receive_loop()
    while turns[-1:] != [None]:
        turns.append(len(read))
        await asyncio.sleep(0)
    assert read == list(range(200))
    assert len(turns) > 5

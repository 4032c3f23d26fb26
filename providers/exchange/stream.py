"""Streams of an exchange through ccxt.pro, with its silent losses closed.

ccxt keeps what it hears in rings of 1,000 and hands out what changed since the last look: a slow reader loses the rest
without a word. Here taps stand in the rings' place and pass every trade on, in its order, to one bounded buffer whose
overrun is an error. A message that ccxt stumbles over would end its reading loop and leave the reader waiting for ever:
here it ends the session, as every other fault does. Nothing reconnects by itself: whoever reads starts another session.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import lru_cache, partial
from typing import Any, Final, Generic, TypeVar

from ccxt.async_support.base.ws.client import MSG_SIZE_OVERHEAD  # type: ignore[attr-defined]  # by which aiohttp counts
from ccxt.base.errors import BadResponse, BaseError
from ccxt.base.exchange import Exchange

from core.clock import LATEST_US, Clock
from core.errors import BadPayloadError, CandlelakeError, OverrunError, StalledError, UnsupportedError
from core.ticks import Tick
from core.timeframe import Timeframe
from providers.base import StreamedCandle
from providers.exchange.errors import translate
from providers.exchange.frames import ID_LENGTH, FrameReader, frame_reader
from providers.exchange.guard import Guards
from providers.exchange.transport import MESSAGE_LIMIT

TURN_SECONDS: Final = 0.001  # of reading messages, before what they brought is passed on: longer ones rarely fit into a share of a busy processor
BUFFER: Final = 200_000  # ticks, or changes of candles, that may wait for the reader
KEEP_ALIVE_MS: Final = 10_000  # between pings at most; a dead peer is noticed after two that stay unanswered
CONFIRM_SECONDS: Final = 30.0  # an exchange that confirms subscriptions does so by then
QUIET_SECONDS: Final = 600.0  # of others the first trade may be long in coming
_STUMBLES: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, BaseError)
# What says that a subscription stands, and whether each symbol gets one; elsewhere any message does.
_ANY: Final = (re.compile(""), False)
_CONFIRMS: Final = {
    "binance": (re.compile(r'"result"\s*:'), False),
    "kraken": (re.compile(r'"method"\s*:\s*"subscribe"'), True),
    "coinbase": (re.compile(r'"channel"\s*:\s*"subscriptions"'), False),
}
_SIDES: Final = ("buy", "sell")
INFINITE: Final = float("inf")
Item = TypeVar("Item")


class StreamGuards(Guards):
    """Mixed in before ccxt.pro's class of an exchange."""

    confirmed: int = 0  # messages that say that a subscription stands
    awaited: int = 1
    confirm_seconds: float | None = None  # how long to wait for them; None is what suits the exchange
    take_frame: Callable[[Any], bool] | None = None  # True when it has taken a message's text

    def client(self, url: Any) -> Any:
        """Return ccxt's client of a socket, made so that no message can end its reading loop without an error."""
        client = super().client(url)  # type: ignore[no-untyped-call]  # ccxt is untyped here
        if not hasattr(client, "is_guarded"):
            read = client.handle_message
            confirms, _ = _CONFIRMS.get(self.id, _ANY)

            def guarded(message: Any) -> None:
                if self.confirmed < self.awaited and isinstance(message.data, str) and confirms.search(message.data[:1000]):
                    self.confirmed += 1
                try:
                    _check_packed(client, message.data)
                    if self.take_frame is None or not self.take_frame(message.data):
                        read(message)
                    else:
                        client.last_message_at = Exchange.milliseconds()  # type: ignore[no-untyped-call]  # as ccxt's own reader notes it
                except CandlelakeError as error:
                    client.on_error(BadResponse(str(error)))
                except _STUMBLES as error:
                    kind = type(error).__name__
                    client.on_error(error if isinstance(error, BaseError) else BadResponse(f"a message that is not its protocol's: {kind}"))
                # Whoever speaks is alive. Some classes note a pong by our clock, which ccxt then compares with the machine's.
                client.lastPong = client.last_message_at

            client.is_guarded, client.handle_message = True, guarded
            client.keepAlive = min(client.keepAlive, KEEP_ALIVE_MS)  # ccxt has three minutes for Binance
            client.receive_loop = partial(_receive, client, client.receive_loop)
        return client


def _check_packed(client: Any, data: Any) -> None:
    """Refuse a packed message that is no such thing, or larger than any message may be: ccxt unpacks whatever comes.

    Raises:
        BadPayloadError: with what was received.
    """
    if not isinstance(data, bytes) or not (client.gunzip or client.inflate):
        return
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16 if client.gunzip else -zlib.MAX_WBITS)
    try:
        size = len(unpacking.decompress(data, MESSAGE_LIMIT))
    except zlib.error:
        raise BadPayloadError(f"received a message of {len(data)} bytes that does not unpack") from None
    if not unpacking.eof or unpacking.unused_data:
        raise BadPayloadError(f"received a message of {len(data)} bytes that unpacks to {size} bytes and more, or is cut short; "
                              f"allowed: whole ones of {MESSAGE_LIMIT} bytes at most")


def _receive(client: Any, receive: Callable[[], None]) -> None:
    """Take what waits in ccxt's client, a millisecond at a time: ccxt takes all of it before anybody gets the first trade."""
    waiting = None if client.closed() else client.buffer
    begun, taken = time.perf_counter(), 0
    while waiting and len(waiting) > 1 and time.perf_counter() - begun < TURN_SECONDS:
        message, size = waiting.popleft()
        taken += size + MSG_SIZE_OVERHEAD
        client.handle_message(message)
    if waiting and taken:  # ccxt's way of telling the transport: whoever takes the next message takes these bytes off with it
        waiting[0] = waiting[0][0], waiting[0][1] + taken
    if waiting and len(waiting) > 1:
        client.asyncio_loop.call_soon(client.receive_loop)
    else:
        receive()


@lru_cache
def streaming_class(exchange_id: str) -> Any:
    """Return ccxt.pro's class of an exchange with the guards on; the first call takes seconds.

    Raises:
        UnsupportedError: ccxt has no streaming class of that exchange.
    """
    import ccxt.pro as library  # noqa: PLC0415  slow to import

    found = getattr(library, exchange_id, None)
    if found is None:
        raise UnsupportedError(f"{exchange_id} has no streams in ccxt; its candles come by REST")
    return type(f"Streaming_{exchange_id}", (StreamGuards, found), {"streaming": {"keepAlive": KEEP_ALIVE_MS}})


def expect(exchange: Any, subscriptions: int) -> None:
    """Say how many subscriptions of an instance must stand before its stream counts as begun."""
    exchange.awaited = subscriptions if _CONFIRMS.get(exchange.id, _ANY)[1] else 1


class Buffer(Generic[Item]):
    """What was heard and not yet read; `limit` items at most."""

    def __init__(self, limit: int = BUFFER) -> None:
        self._limit = limit
        self._items: list[Item] = []
        self.is_overrun = False
        self.bell = asyncio.Event()

    def put(self, item: Item) -> None:
        """Take an item; past the limit it is lost, and the reader will be told."""
        if len(self._items) >= self._limit:
            self.is_overrun = True
        else:
            self._items.append(item)
        self.bell.set()

    def put_all(self, items: Sequence[Item]) -> None:
        """Take items; those past the limit are lost, and the reader will be told."""
        room = self._limit - len(self._items)
        if len(items) > room:
            self.is_overrun, items = True, items[:room]
        self._items += items
        self.bell.set()

    def take(self) -> list[Item]:
        """Return all that waits.

        Raises:
            OverrunError: what waited before was read, and more was lost.
        """
        self.bell.clear()
        items, self._items = self._items, []
        if self.is_overrun and not items:
            raise OverrunError(f"more than {self._limit} messages waited to be read; later ones are lost, the stream starts anew")
        return items


class TradeTap(list[Any]):
    """Stands where ccxt keeps the trades of a symbol; passes each one on."""

    def __init__(self, symbol: str, buffer: Buffer[Tick], clock: Clock) -> None:
        super().__init__()
        self._symbol, self._buffer, self._clock = symbol, buffer, clock

    def append(self, trade: Any) -> None:
        """Pass a trade on."""
        self._buffer.put(read_trade(trade, self._symbol, self._clock.now_us()))

    def getLimit(self, _symbol: Any, limit: Any) -> Any:  # noqa: N802  ccxt's name
        """Return what ccxt asks its rings for."""
        return limit


class CandleTap(list[Any]):
    """Stands where ccxt keeps the candles of a symbol and timeframe; passes each change on."""

    def __init__(self, symbol: str, timeframe: Timeframe, buffer: Buffer[StreamedCandle], clock: Clock) -> None:
        super().__init__()
        self._symbol, self._timeframe, self._buffer, self._clock = symbol, timeframe, buffer, clock

    def append(self, row: Any) -> None:
        """Pass a candle on."""
        stamp, *values = row
        numbers = [float(value) for value in values[:5]]
        if not isinstance(stamp, int) or not 0 <= stamp <= LATEST_US // 1000 or len(numbers) != 5:
            raise BadPayloadError("a streamed candle has no time from 1970 to 2100, or lacks a value")
        if not all(0 < price < INFINITE for price in numbers[:4]) or not 0 <= numbers[4] < INFINITE:
            raise BadPayloadError("a streamed candle has a value out of range; allowed: prices above 0, volumes from 0")
        self._buffer.put(StreamedCandle(self._symbol, self._timeframe, stamp * 1000, self._clock.now_us(), *numbers))

    getLimit = TradeTap.getLimit  # noqa: N815  ccxt's name


def read_trade(trade: Any, symbol: str, received_us: int) -> Tick:
    """Return ccxt's unified trade as a tick; BadPayloadError without a time, a price or an amount."""
    stamp, price, amount = trade.get("timestamp"), trade.get("price"), trade.get("amount")
    if not isinstance(stamp, int) or not 0 <= stamp <= LATEST_US // 1000 or price is None or amount is None:
        raise BadPayloadError("a streamed trade has no time from 1970 to 2100, no price or no amount")
    if not 0 < float(price) < INFINITE or not 0 <= float(amount) < INFINITE:
        raise BadPayloadError("a streamed trade has a price or an amount out of range; allowed: prices above 0, amounts from 0")
    named, side = trade.get("id"), trade.get("side")
    if named is not None and len(str(named)) > ID_LENGTH:
        raise BadPayloadError(f"a streamed trade has an id of {len(str(named))} characters; allowed: {ID_LENGTH} at most")
    return Tick(symbol, stamp * 1000, received_us, None, None, float(price), float(amount), side if side in _SIDES else None,
                None if named is None else str(named))


async def stream_trades(exchange: Any, symbols: Sequence[str], clock: Clock) -> AsyncGenerator[list[Tick], None]:
    """Yield the trades of `symbols`; see StreamingProvider.stream_ticks."""
    if exchange.has.get("watchTrades") is not True:
        raise UnsupportedError(f"{exchange.id} streams no trades through ccxt")
    buffer: Buffer[Tick] = Buffer()
    taps = {symbol: TradeTap(symbol, buffer, clock) for symbol in symbols}
    exchange.trades = dict(taps)
    exchange.take_frame = _taking(frame_reader(exchange, symbols, clock), buffer)
    expect(exchange, len(symbols))

    async def watch(names: list[str]) -> None:
        while True:
            if exchange.has.get("watchTradesForSymbols") is True:
                await exchange.watch_trades_for_symbols(names)
            else:
                await exchange.watch_trades(names[0])
            if any(exchange.trades.get(name) is not taps[name] for name in names):
                raise UnsupportedError(f"{exchange.id} keeps its streamed trades in a way that may lose some; its candles come by REST")

    at_once = exchange.has.get("watchTradesForSymbols") is True
    groups = [list(symbols)] if at_once else [[symbol] for symbol in symbols]
    async for batch in _session([exchange], buffer, [watch(names) for names in groups]):
        yield batch


def _taking(read: FrameReader | None, buffer: Buffer[Tick]) -> Callable[[Any], bool] | None:
    """Return what puts a message's trades into the buffer; False of it: ccxt is to read the message."""
    if read is None:
        return None

    def take(text: Any) -> bool:
        ticks = read(text)
        if ticks is None:
            return False
        buffer.put_all(ticks)
        return True

    return take


async def stream_candles(
    watched: Sequence[tuple[Any, str, Timeframe, str]], clock: Clock,
) -> AsyncGenerator[list[StreamedCandle], None]:
    """Yield the forming candles of (instance, symbol, timeframe, ccxt's name of it); see StreamingProvider.stream_candles."""
    buffer: Buffer[StreamedCandle] = Buffer()
    for exchange, symbol, timeframe, theirs in watched:
        if exchange.has.get("watchOHLCV") is not True:
            raise UnsupportedError(f"{exchange.id} streams no candles; build them from its trades")
        expect(exchange, sum(1 for other, *_ in watched if other is exchange))
        exchange.ohlcvs = {**(exchange.ohlcvs or {}), symbol: {theirs: CandleTap(symbol, timeframe, buffer, clock)}}

    async def watch(exchange: Any, symbol: str, theirs: str) -> None:
        while True:
            await exchange.watch_ohlcv(symbol, theirs)

    exchanges = list({id(exchange): exchange for exchange, *_ in watched}.values())
    async for batch in _session(exchanges, buffer, [watch(exchange, symbol, theirs) for exchange, symbol, _, theirs in watched]):
        yield batch


async def _session(
    exchanges: Sequence[Any], buffer: Buffer[Item], watchers: Sequence[Coroutine[Any, Any, None]],
) -> AsyncGenerator[list[Item], None]:
    """Run `watchers` and yield what comes into the buffer, after an empty list once every exchange has answered."""
    tasks = [asyncio.create_task(watcher) for watcher in watchers]
    for task in tasks:
        task.add_done_callback(lambda _task: buffer.bell.set())
    try:
        await _confirmed(exchanges, tasks)
        yield []
        while True:
            items = buffer.take()
            if items:
                yield items
                continue
            for task in tasks:
                if task.done():
                    raise _failure(task, str(exchanges[0].id))
            await buffer.bell.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _confirmed(exchanges: Sequence[Any], tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait until every exchange has answered to all subscriptions; what comes meanwhile waits in the buffer.

    Raises:
        StalledError: one that confirms subscriptions has not done so in time; one that does not gets longer, its market may be quiet.
        CandlelakeError: a watcher ended.
    """
    begun = time.monotonic()
    while lacking := [exchange for exchange in exchanges if exchange.confirmed < exchange.awaited]:
        for task in tasks:
            if task.done():
                raise _failure(task, str(lacking[0].id))
        limit = max(exchange.confirm_seconds or (CONFIRM_SECONDS if exchange.id in _CONFIRMS else QUIET_SECONDS) for exchange in lacking)
        if time.monotonic() - begun > limit:
            raise StalledError(f"{lacking[0].id}: {lacking[0].confirmed} of {lacking[0].awaited} subscriptions confirmed within {limit:g} s")
        await asyncio.wait(tasks, timeout=0.01, return_when=asyncio.FIRST_COMPLETED)


def _failure(task: asyncio.Task[None], exchange_id: str) -> CandlelakeError:
    error = task.exception()
    if error is None:
        return BadPayloadError(f"{exchange_id} ended its stream")
    if isinstance(error, CandlelakeError):
        return error.with_traceback(None)
    failure = translate(error, exchange_id)
    failure.__context__ = None
    return failure

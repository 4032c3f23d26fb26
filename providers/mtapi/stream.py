"""Streams of the bridge: one-way web sockets whose subscriptions are made by REST.

The socket is opened first and the subscriptions after, so that nothing falls between. Some hosts have `/OnQuote`, some
only `/Events`. Unknown symbols are dropped without a word, so the bridge is asked what it has subscribed. After a
connect the last quotes come again, and outside of market hours they may be zero: repeats are passed on, zeros are not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus, WebSocketException

from core.clock import HOUR_US, LATEST_US
from core.errors import (
    BadPayloadError,
    NetworkError,
    ProviderTimeoutError,
    TransientError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.server_clock import ServerClock
from core.ticks import Tick
from core.timeframe import Timeframe
from providers.addresses import Target, resolve
from providers.base import ConnectionSpec, StreamedCandle
from providers.http import status_error
from providers.mtapi.client import Session
from providers.mtapi.parse import local_us
from providers.tls import client_context

MESSAGE_LIMIT: Final = 1024 * 1024  # bytes of one message
WAITING: Final = 4096  # messages that may wait to be read; then the bridge waits
BATCH: Final = 1000  # messages read at once
PING_SECONDS: Final = 15.0
_SILENT: Final = logging.Logger("providers.mtapi.silent", level=logging.CRITICAL + 1)  # noqa: LOG001  the library logs addresses, and ours hold a token


class Dial(connect):
    """A web socket's dialling that follows no redirect."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect for what it is here: a failure."""
        return exc


async def stream_quotes(
    session: Session, symbols: Sequence[str], clock: ServerClock, spec: ConnectionSpec,
) -> AsyncGenerator[list[Tick], None]:
    """Yield quotes; see StreamingProvider.stream_ticks."""
    wanted = frozenset(symbols)
    async with _open(session, ("/OnQuote", "/Events"), spec) as socket:
        await session.call("/SubscribeMany", [("symbols", symbol) for symbol in symbols])
        await _check_subscribed(session, wanted)
        yield []
        async for messages in _read(socket, session.http.host):
            now_us = spec.clock.now_us()
            found = (_quote(data, clock, now_us) for data in _of_type(messages, "Quote"))
            ticks = [tick for tick in found if tick is not None and tick.symbol in wanted]
            if ticks:
                yield ticks


async def resubscribe_quotes(session: Session, symbols: Sequence[str]) -> None:
    """Subscribe quotes anew: a host that takes a symbol for subscribed does nothing when it is asked again."""
    named = [("symbols", symbol) for symbol in symbols]
    await session.call("/UnSubscribeMany", named)
    await session.call("/SubscribeMany", named)
    await _check_subscribed(session, frozenset(symbols))


async def stream_bars(
    session: Session, pairs: Sequence[tuple[str, Timeframe]], clock: ServerClock, spec: ConnectionSpec,
) -> AsyncGenerator[list[StreamedCandle], None]:
    """Yield forming candles of up to 1h; see StreamingProvider.stream_candles."""
    lengths = {timeframe.minutes: timeframe for _, timeframe in pairs}
    for timeframe in lengths.values():
        if timeframe.length_us > HOUR_US:
            raise UnsupportedError(f"timeframe: received {timeframe}; allowed in the bridge's streams: up to 1h; build it from ticks")
    async with _open(session, ("/OnOhlc", "/Events"), spec) as socket:
        for symbol, timeframe in pairs:
            await session.call("/SubscribeOhlc", [("symbol", symbol), ("timeframe", str(timeframe.minutes)), ("interval", "1")])
        yield []
        async for messages in _read(socket, session.http.host):
            now_us = spec.clock.now_us()
            found = [_bar(data, clock, lengths, now_us) for data in _of_type(messages, "Ohlc")]
            candles = [candle for candle in found if (candle.symbol, candle.timeframe) in pairs]
            if candles:
                yield candles


async def _check_subscribed(session: Session, wanted: frozenset[str]) -> None:
    told, _ = await session.call("/SubscribedSymbols")
    names = told if isinstance(told, list) else []
    missing = sorted(wanted - {name for name in names if isinstance(name, str)})
    if missing:
        raise UnknownSymbolError(
            f"{session.http.host} did not subscribe {', '.join(missing[:5])} and gave no reason; allowed: symbols of its /SymbolList")


@asynccontextmanager
async def _open(session: Session, paths: Sequence[str], spec: ConnectionSpec) -> AsyncIterator[ClientConnection]:
    """Open the first of `paths` that the host has."""
    host = session.http.host
    for path in paths:
        try:
            socket = await _dial(session, path, spec)
        except UnsupportedError:
            continue
        try:
            yield socket
        finally:
            await socket.close()
        return
    raise UnsupportedError(f"{host} has none of the sockets {', '.join(paths)}; its candles come by REST")


async def _dial(session: Session, path: str, spec: ConnectionSpec) -> ClientConnection:
    target = session.http.target
    addresses = await asyncio.to_thread(resolve, target.host, target.port, spec.allow_private_hosts)
    token = await session.token()
    secure = target.scheme in {"https", "wss"}
    root = Target("wss" if secure else "ws", target.host, target.port, target.path)
    headers = [("ApiKey", key.reveal())] if (key := spec.credentials.get("api_key")) else []
    try:
        return await Dial(
            f"{root.url}{path}?id={token.reveal()}", host=addresses[0], port=target.port, ssl=client_context() if secure else None, proxy=None,
            max_size=MESSAGE_LIMIT, max_queue=WAITING, open_timeout=spec.timeout, ping_interval=PING_SECONDS, ping_timeout=PING_SECONDS, close_timeout=2,
            additional_headers=headers, user_agent_header="candlelake", logger=_SILENT)
    except InvalidStatus as error:
        raise _refused(error, target.host, spec) from None
    except TimeoutError:
        raise ProviderTimeoutError(f"{target.host} did not open a web socket in time") from None
    except (InvalidHandshake, InvalidMessage, WebSocketException) as error:
        raise BadPayloadError(f"{target.host} opened no web socket ({type(error).__name__})") from None
    except OSError as error:
        raise NetworkError(f"{target.host} is out of reach ({type(error).__name__})") from None


def _refused(error: InvalidStatus, host: str, spec: ConnectionSpec) -> Exception:
    response = error.response
    found = status_error(response.status_code, dict(response.headers.raw_items()), host, spec.clock.now_us())
    return found or BadPayloadError(f"{host} answered the handshake with HTTP {response.status_code}")


async def _read(socket: ClientConnection, host: str) -> AsyncIterator[list[Any]]:
    """Yield the messages that have come, parsed, until the session ends."""
    while True:
        try:
            texts = [await socket.recv()]
            while len(texts) < BATCH and len(socket.recv_messages.frames):  # what waits is read with it
                texts.append(await socket.recv())
        except ConnectionClosed as error:
            raise _closed(error, host) from None
        yield [_parse(text, host) for text in texts]


def _closed(error: ConnectionClosed, host: str) -> TransientError:
    ours = error.sent if error.rcvd is None else error.rcvd
    if error.sent is not None and error.sent.code in {1002, 1007, 1009}:  # we closed it: the message was hostile or broken
        return BadPayloadError(f"{host} sent a message that was not taken (code {error.sent.code}); more than {MESSAGE_LIMIT} bytes?")
    code = ours.code if ours is not None else 1006
    return NetworkError(f"{host} closed the web socket (code {code})")


def _parse(text: str | bytes, host: str) -> Any:
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise BadPayloadError(f"{host} sent {len(text)} bytes over its web socket that are not JSON") from None
    if not isinstance(message, dict):
        raise BadPayloadError(f"{host} sent a {type(message).__name__} over its web socket; allowed: objects")
    return message


def _of_type(messages: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the data of the messages of a kind; `/Events` mixes them."""
    found = [message.get("data") for message in messages if message.get("type") == kind]
    if not all(isinstance(data, dict) for data in found):
        raise BadPayloadError(f"a {kind} of the web socket has no object as its data")
    return found  # type: ignore[return-value]  # checked above


def _quote(data: dict[str, Any], clock: ServerClock, now_us: int) -> Tick | None:
    """Return a quote, None for the zeros of a closed market."""
    symbol, bid, ask = data.get("symbol"), _number(data, "bid"), _number(data, "ask")
    if not isinstance(symbol, str):
        raise BadPayloadError("a quote has no symbol")
    if bid == 0 or ask == 0:
        return None
    return Tick(symbol, _time(data, clock), now_us, bid, ask)


def _bar(data: dict[str, Any], clock: ServerClock, lengths: dict[int, Timeframe], now_us: int) -> StreamedCandle:
    symbol, length = data.get("symbol"), data.get("timeframe")
    if not isinstance(symbol, str) or not isinstance(length, int) or length not in lengths:
        raise BadPayloadError("a streamed candle is of no symbol and timeframe that was subscribed")
    volume = _number(data, "tickVolume" if "tickVolume" in data else "volume")
    return StreamedCandle(symbol, lengths[length], _time(data, clock), now_us, _number(data, "open"), _number(data, "high"),
                          _number(data, "low"), _number(data, "close"), volume)


def _number(data: dict[str, Any], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise BadPayloadError(f"a message of the web socket has {key!r} as {type(value).__name__}; allowed: numbers from 0")
    return float(value)


def _time(data: dict[str, Any], clock: ServerClock) -> int:
    local = local_us(data.get("time"), "time of a streamed message")
    us = clock.to_utc_us(local) if 0 <= local <= LATEST_US else -1  # no rule of a clock reaches further
    if not 0 <= us <= LATEST_US:
        raise BadPayloadError("a streamed message has a time outside 1970 to 2100")
    return us

"""Web sockets of the sandbox: one task for each, which sends what the tape brings in the venue's dialect.

Faults (paths as everywhere, e.g. `/ws.kraken.com/*`): `ws_refuse` the handshake with a status; `ws_drop` cuts the
connection; `ws_close` closes it with code 1012, as a restart does; `ws_stall` stays open and says nothing more;
`ws_lose` swallows what was to be sent; `ws_repeat` sends the last `rows` messages again; `ws_reorder` sends a batch in
another order; `ws_late` brings all that follows `seconds` late, as an overloaded venue does; `ws_garbage` and `ws_huge` send what is no message; `ws_mute` drops one `symbol` without a
word and goes on with the others. `clock_skew` moves the times in messages.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson
from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from core.clock import LATEST_US, SECOND_US
from sandbox.box import Ask, Box
from sandbox.faults import STREAM, Fault
from sandbox.tape import Print, Tape, load, recorded
from sandbox.wire import cut, forget

STEP_SECONDS: Final = 0.005
REPEATED: Final = 5  # messages that a bridge sends again to each new socket
HUGE: Final = 8 * 1024 * 1024


class Stream(ABC):
    """One socket of a venue: what it subscribed to, and how its messages look."""

    venue = ""
    is_quotes = False

    def __init__(self, box: Box, ask: Ask) -> None:
        self.box, self.ask = box, ask
        self.symbols: dict[str, str] = {}  # the venue's name in messages -> the shelf's symbol

    @abstractmethod
    def hear(self, message: Any) -> list[Any]:
        """Take a client's message and return the answers."""

    @abstractmethod
    def write(self, name: str, prints: list[Print], skew_us: int) -> list[Any]:
        """Return the messages that bring these ticks of a symbol."""

    def encode(self, name: str, prints: list[Print], skew_us: int) -> list[bytes]:
        """Return what `write` returns as bytes; a dialect that is fast at it lets a load cost little beside who reads it."""
        return [orjson.dumps(message) for message in self.write(name, prints, skew_us)]

    def mute(self, name: str) -> None:
        """Drop a symbol without a word."""
        self.symbols.pop(name, None)

    def bars(self, now_us: int) -> list[Any]:  # noqa: ARG002  the dialects that have them use it
        """Return messages of forming candles."""
        return []

    def greet(self) -> list[Any]:
        """Return what is sent at once."""
        return []


class Streams:
    """All sockets of a box. `tapes` are made once for each market."""

    def __init__(self, box: Box, dialects: dict[str, Callable[[Box, Ask], Stream | None]]) -> None:
        self.box = box
        self.dialects = dialects  # by the first part of the path
        self.tapes: dict[tuple[str, str], Tape] = {}

    async def serve(self, socket: WebSocket) -> None:
        """Serve one socket to its end."""
        path = socket.url.path
        now_us = self.box.clock.now_us()
        ask = Ask(self.box, path, tuple(parse_qsl(socket.url.query)), dict(socket.headers.items()), now_us)
        dialect = self.dialects.get(path.strip("/").split("/", 1)[0])
        stream = dialect(self.box, ask) if dialect is not None else None
        refused = self.box.faults.strike(path, ("ws_refuse",))
        if stream is None or refused:
            await socket.send_denial_response(Response("", refused[0].status if refused else 404))
            return
        await socket.accept()
        try:
            await _Session(self, socket, stream, path).run()
        finally:
            forget(socket)

    def tape(self, stream: Stream, symbol: str) -> Tape:
        """Return the tape of a market."""
        key = stream.venue, symbol
        if key not in self.tapes:
            self.tapes[key] = Tape(self.box.shelf.of(stream.venue)[symbol], stream.is_quotes)
        return self.tapes[key]


class _Session:
    """One accepted socket."""

    def __init__(self, streams: Streams, socket: WebSocket, stream: Stream, path: str) -> None:
        self.streams, self.socket, self.stream, self.path = streams, socket, stream, path
        self.sent: deque[bytes] = deque(maxlen=1000)
        self.begun_us = streams.box.clock.now_us()
        self.cursors: dict[str, int] = {}
        self.loaded = 0  # ticks of a load in the messages of this step
        self.is_stalled = False
        self.late_us = 0

    async def run(self) -> None:
        hearing = asyncio.create_task(self._hear())
        try:
            await self._send(self.stream.greet())
            while not hearing.done():
                await self._step()
                await asyncio.wait([hearing], timeout=STEP_SECONDS)
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has left, or a fault has cut it off
        finally:
            hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError, ValueError):
                await hearing
            if self.socket.application_state == WebSocketState.CONNECTED:
                with contextlib.suppress(RuntimeError, OSError, WebSocketDisconnect):
                    await self.socket.close()

    async def _hear(self) -> None:
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                text = await self.socket.receive_text()
                await self._send(self.stream.hear(orjson.loads(text)))

    async def _step(self) -> None:
        now_us = self.streams.box.clock.now_us()
        faults = self.streams.box.faults.strike(self.path, STREAM) if self.stream.symbols else []
        for fault in faults:
            await self._suffer(fault)
        now_us -= self.late_us
        messages = [message for name, symbol in list(self.stream.symbols.items()) for message in self._new(name, symbol, now_us)]
        messages += self.stream.bars(now_us)
        kinds = {fault.kind for fault in faults}
        if "ws_lose" in kinds or self.is_stalled:
            return
        if "ws_reorder" in kinds:
            messages.reverse()
        await self._send(messages)
        self.streams.box.loaded, self.loaded = self.streams.box.loaded + self.loaded, 0

    def _new(self, name: str, symbol: str, now_us: int) -> list[Any]:
        box = self.streams.box
        after = self.cursors.setdefault(name, self._first_cursor(symbol, now_us))
        self.cursors[name] = now_us = max(after, now_us)
        trades = box.shelf.trades.get((self.stream.venue, symbol))
        if box.switches.load_rate > 0:
            prints = load(box.switches.load_rate, after, now_us)
            self.loaded += len(prints)
            return self.stream.encode(name, prints, box.faults.skew_us(self.path)) if prints else []
        if box.switches.tape == "recorded" and trades is not None:
            prints = recorded(trades, self.begun_us, after, now_us)
        else:
            prints = self.streams.tape(self.stream, symbol).between(after, now_us)
        return self.stream.write(name, prints, box.faults.skew_us(self.path)) if prints else []

    def _first_cursor(self, symbol: str, now_us: int) -> int:
        """Return since when ticks are sent: a bridge begins with its last quotes once more."""
        if not self.stream.is_quotes:
            return now_us
        length = self.streams.tape(self.stream, symbol).book.base.length_us
        before = self.streams.tape(self.stream, symbol).between(now_us - length, now_us)
        return before[-REPEATED].us - 1 if len(before) >= REPEATED else now_us

    async def _suffer(self, fault: Fault) -> None:
        if fault.kind == "ws_drop":
            cut(self.socket)
            raise WebSocketDisconnect(1006)
        if fault.kind == "ws_close":
            await self.socket.close(1012)
            raise WebSocketDisconnect(1012)
        if fault.kind == "ws_mute":
            self.stream.mute(fault.symbol)
        elif fault.kind == "ws_late":
            self.late_us = round(fault.seconds * SECOND_US)
        elif fault.kind == "ws_stall":
            self.is_stalled = True
        elif fault.kind == "ws_repeat":
            for text in list(self.sent)[-fault.rows:]:
                await self.socket.send_text(text.decode())
        elif fault.kind == "ws_garbage":
            await self.socket.send_text('{"type":"Quote","channel":"trade","e":"trade","data":[{"symbol": nonsense')
        elif fault.kind == "ws_huge":
            await self.socket.send_text(" " * HUGE)

    async def _send(self, messages: list[Any]) -> None:
        for message in messages:
            text = message if isinstance(message, bytes) else orjson.dumps(message)
            self.sent.append(text)
            await self.socket.send_text(text.decode())


def newest_bar(box: Box, venue: str, symbol: str, length_us: int, now_us: int) -> dict[str, Any] | None:
    """Return the candle that is forming, or the last one when none is."""
    book = box.shelf.of(venue).get(symbol)
    rows = None if book is None else book.newest(1, length_us, min(now_us + 1, LATEST_US), now_us)
    return None if rows is None or rows.is_empty() else rows.row(-1, named=True)

"""Faults of transport: what happens to an answer, or to the connection, on its way out."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.faults import Fault

_TICK: Final = 0.05
_HUGE: Final = 64 * 1024 * 1024
_TEXTS: Final = {
    "html": ("<!DOCTYPE html><html><body>We are under maintenance</body></html>", "text/html"),
    "empty_object": ("{}", "application/json"),
    "null": ("null", "application/json"),
}
_TRANSPORTS: Final[dict[tuple[str, int], asyncio.Transport]] = {}


class Protocol(H11Protocol):
    """uvicorn's protocol, with the connection within reach, so that it can be reset."""

    def connection_made(self, transport: Any) -> None:
        """Remember the connection by its peer."""
        super().connection_made(transport)
        _TRANSPORTS[transport.get_extra_info("peername")[:2]] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        _TRANSPORTS.pop(self.transport.get_extra_info("peername")[:2], None)
        super().connection_lost(exc)


def reset(request: Request) -> None:
    """Cut the connection of a request at once, with a TCP reset."""
    client = request.client
    transport = _TRANSPORTS.get((client.host, client.port)) if client else None
    if transport is not None:
        held = transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def cut(socket_: WebSocket) -> None:
    """Cut a web socket's connection at once, with a TCP reset."""
    client = socket_.client
    transport = _TRANSPORTS.pop((client.host, client.port), None) if client else None
    if transport is not None:
        held = transport.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def forget(socket_: WebSocket) -> None:
    """Forget the connection of a web socket that has ended: the upgraded protocol does not say so itself."""
    if socket_.client:
        _TRANSPORTS.pop((socket_.client.host, socket_.client.port), None)


async def hang(request: Request, stopping: asyncio.Event) -> None:
    """Wait until the caller gives up or the sandbox stops."""
    while not stopping.is_set() and not await request.is_disconnected():  # noqa: ASYNC110  leaving callers ring no bell
        await asyncio.sleep(_TICK)


def spoil(answer: Response, fault: Fault) -> Response:
    """Return the answer as a fault of transport leaves it."""
    after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    if fault.kind in _TEXTS:
        text, kind = _TEXTS[fault.kind]
        return Response(text, 200, after, kind)
    if fault.kind == "status":
        return Response(fault.body, fault.status, after, "text/html")
    if fault.kind == "redirect":
        return Response("", 302, {"Location": fault.location})
    body, kind = bytes(answer.body), answer.media_type or "application/json"
    if fault.kind == "truncated":
        return Response(body[: len(body) // 2], answer.status_code, media_type=kind)
    stream = _many_blanks() if fault.kind == "huge" else _drip(body, fault.seconds)
    return StreamingResponse(stream, answer.status_code, media_type=kind)


async def _many_blanks() -> AsyncIterator[bytes]:
    for _ in range(_HUGE // 65_536):
        yield b" " * 65_536
        await asyncio.sleep(0)


async def _drip(body: bytes, pause: float) -> AsyncIterator[bytes]:
    for position in range(len(body)):
        yield body[position:position + 1]
        await asyncio.sleep(pause)

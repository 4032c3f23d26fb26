"""Faults of transport: what happens to an answer, or to the connection, on its way out."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.faults import Fault

_TICK: Final = 0.05
_HUGE: Final = 64 * 1024 * 1024
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


async def hang(request: Request, stopping: asyncio.Event) -> None:
    """Wait until the caller gives up or the sandbox stops."""
    while not stopping.is_set() and not await request.is_disconnected():
        await asyncio.sleep(_TICK)


def spoil(answer: Response, fault: Fault) -> Response:
    """Return the answer as a fault of transport leaves it."""
    body = bytes(answer.body)
    after = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    if fault.kind == "status":
        return Response(fault.body, fault.status, after, "text/html")
    if fault.kind == "html":
        return Response("<!DOCTYPE html><html><body>We are under maintenance</body></html>", 200, after, "text/html")
    if fault.kind == "truncated":
        return Response(body[: len(body) // 2], answer.status_code, media_type="application/json")
    if fault.kind == "redirect":
        return Response("", 302, {"Location": fault.location})
    if fault.kind == "huge":
        return StreamingResponse(_many_blanks(), 200, media_type="application/json")
    if fault.kind == "slow":
        return StreamingResponse(_drip(body, fault.seconds), answer.status_code, media_type=answer.media_type)
    return Response("{}" if fault.kind == "empty_object" else "null", 200, media_type="application/json")


async def _many_blanks() -> AsyncIterator[bytes]:
    for _ in range(_HUGE // 65_536):
        yield b" " * 65_536
        await asyncio.sleep(0)


async def _drip(body: bytes, pause: float) -> AsyncIterator[bytes]:
    for position in range(len(body)):
        yield body[position:position + 1]
        await asyncio.sleep(pause)

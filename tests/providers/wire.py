"""A tiny HTTP server on loopback for tests: a function from request to reply, and every way to break an answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

import orjson


@dataclass(frozen=True)
class Request:
    """What was asked."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What to answer; `cut` sends only so many bytes of the body, `raw` replaces the whole answer."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    raw: bytes | None = None
    wait: float = 0.0


def json_reply(value: object, status: int = 200) -> Reply:
    """Return a JSON reply."""
    return Reply(orjson.dumps(value), status, {"Content-Type": "text/json"})


class Wire:
    """A running server; `requests` holds what was asked."""

    def __init__(self, handler: Callable[[Request], Reply]) -> None:
        self.handler = handler
        self.requests: list[Request] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        target = urlsplit(head[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        request = Request(target.path, dict(parse_qsl(target.query)), headers)
        self.requests.append(request)
        reply = self.handler(request)
        await asyncio.sleep(reply.wait)
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        lines = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(reply.body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        writer.write(reply.raw if reply.raw is not None else "\r\n".join([*lines, "", ""]).encode() + body)
        try:
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(handler: Callable[[Request], Reply]) -> AsyncIterator[Wire]:
    """Serve `handler` on a free loopback port."""
    wire = Wire(handler)
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()

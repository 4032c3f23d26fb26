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
        self.tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = b""
            while b"\r\n\r\n" not in head and not head.startswith(b"\x16"):  # 0x16 begins a TLS greeting
                part = await reader.read(65536)
                if not part:
                    return
                head += part
            writer.write(b"plain text\r\n\r\n" if head.startswith(b"\x16") else await self._answer(head))
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self.tasks.discard(task)

    async def _answer(self, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")
        target = urlsplit(lines[0].split(" ")[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)}
        request = Request(target.path, dict(parse_qsl(target.query)), headers)
        self.requests.append(request)
        reply = self.handler(request)
        await asyncio.sleep(reply.wait)
        if reply.raw is not None:
            return reply.raw
        out = [f"HTTP/1.1 {reply.status} X", f"Content-Length: {len(reply.body)}", "Connection: close"]
        out += [f"{name}: {value}" for name, value in reply.headers.items()]
        return "\r\n".join([*out, "", ""]).encode() + (reply.body if reply.cut is None else reply.body[: reply.cut])


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
        running = list(wire.tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.sleep(0.01)  # lets closed transports go

"""Around every request: allowed hosts, a bound on bodies, and the headers that keep a browser from being misused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.problems import HOST, INPUT, TOO_LARGE, Kind

BODY_MAX: Final = 1_000_000  # bytes: a form, never a file
BODY_SECONDS: Final = 20.0
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; font-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a browser calls the origin of our own forms null
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Guard:
    """ASGI middleware; `hosts` are the names under which the console answers (DNS rebinding ends here).

    `origins` are the web origins whose pages may read the API: with a token in its header, never with a session's cookie.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], origins: frozenset[str] = frozenset()) -> None:
        self._app, self._hosts, self._origins = app, hosts, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if _host(headers.get("host", "")) not in self._hosts:
            answer = _refusal(scope, HOST, "unknown host; set CANDLELAKE_CONSOLE_HOSTS to the names the console answers to")
            await answer(scope, receive, _with_headers(send, scope))
            return
        origin = headers.get("origin", "")
        if origin in self._origins and scope["path"].startswith("/api/"):
            send = _with_origin(send, origin)
            if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                await PlainTextResponse("", 204)(scope, receive, _with_headers(send, scope))
                return
        if "\0" in scope["path"] or b"%00" in scope["query_string"] or b"\0" in scope["query_string"]:
            answer = _refusal(scope, INPUT, "the address holds a NUL character; send it without")
            await answer(scope, receive, _with_headers(send, scope))
            return
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit() and len(length) < 20) or int(length) > BODY_MAX:
            answer = _refusal(scope, TOO_LARGE, f"bodies of at most {BODY_MAX} bytes are taken")
            await answer(scope, receive, _with_headers(send, scope))
            return
        await self._app(scope, _bounded(receive), _with_headers(send, scope))


def is_for_programs(path: str) -> bool:
    """Whether a path answers in JSON, errors too."""
    return path.startswith("/api/") or path in {"/api", "/livez", "/readyz", "/metrics"}


def _refusal(scope: Scope, kind: Kind, text: str) -> Response:
    return JSONResponse(kind.body(text), kind.status) if is_for_programs(scope["path"]) else PlainTextResponse(text + "\n", kind.status)


def _with_origin(send: Send, origin: str) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["access-control-allow-origin"] = origin
            headers["access-control-allow-headers"] = "authorization"
            headers["access-control-allow-methods"] = "GET"
            headers["access-control-max-age"] = "600"
            headers["cross-origin-resource-policy"] = "cross-origin"
            headers["vary"] = "Origin"
        await send(message)

    return adding


def _host(value: str) -> str:
    name = value.rsplit(":", 1)[0] if not value.endswith("]") else value
    return name.strip("[]").lower()


def _bounded(receive: Receive) -> Receive:
    seen, is_whole, loop = 0, False, asyncio.get_running_loop()
    until = loop.time() + BODY_SECONDS

    async def counted() -> Message:
        nonlocal seen, is_whole
        try:
            async with asyncio.timeout_at(None if is_whole else until):  # once it is whole, only the end of the connection comes
                message = await receive()
        except TimeoutError:
            raise HTTPException(408) from None
        seen += len(message.get("body", b""))
        is_whole = is_whole or not message.get("more_body", False)
        if seen > BODY_MAX:
            raise HTTPException(413)  # the one kind of exception that passes through the parsing of bodies
        return message

    return counted


def _with_headers(send: Send, scope: Scope) -> Send:
    async def adding(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            if scope["scheme"] == "https":
                headers["strict-transport-security"] = "max-age=31536000"
            if not scope["path"].startswith("/static/"):
                headers["cache-control"] = "no-store"  # pages hold what is not for the next one at this screen
        await send(message)

    return adding

"""The HTTP session that ccxt is given: addresses checked and pinned, no redirects, no proxies of the environment, capped bodies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partialmethod
from typing import Any, Final

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDictProxy

from core.errors import BadPayloadError, SessionLostError
from providers.addresses import resolve

BODY_LIMIT: Final = 64 * 1024 * 1024  # decompressed; the largest list of markets is about 20 MB
MESSAGE_LIMIT: Final = 4 * 1024 * 1024  # one message of a web socket, decompressed
_CHUNK: Final = 64 * 1024


class GuardedResolver(AbstractResolver):
    """Resolves through the address guard; aiohttp connects to exactly what comes back."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET,  # noqa: ARG002  aiohttp gives it
    ) -> list[ResolveResult]:
        """Return the addresses of `host` that we may connect to.

        Raises:
            AddressRefusedError, NetworkError: see providers.addresses.resolve.
        """
        found = await asyncio.to_thread(resolve, host, port, self._allow_private)
        return [
            ResolveResult(
                hostname=host, host=address, port=port, proto=socket.IPPROTO_TCP, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET)
            for address in found
        ]

    async def close(self) -> None:
        """Nothing is held."""


class Answer:
    """What ccxt needs of an HTTP answer, read completely and not beyond the cap."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: CIMultiDictProxy[str] = response.headers
        self.content = body

    async def text(self, errors: str = "replace") -> str:
        """Return the body as UTF-8, which JSON is, whatever charset the headers claim."""
        return self.content.decode("utf-8", errors)


class GuardedSession:
    """The part of aiohttp.ClientSession that ccxt calls. Used by one event loop.

    Args:
        ssl_context: for https.
        allow_private: whether loopback and private addresses may be reached.
    """

    def __init__(self, ssl_context: Any, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self.headers: dict[str, str] = {}  # ccxt adds them to every request
        connector = aiohttp.TCPConnector(ssl=ssl_context, resolver=GuardedResolver(allow_private=allow_private))
        trace = aiohttp.TraceConfig()
        trace.on_request_redirect.append(_refuse_redirect)  # a web socket's handshake cannot be told not to follow
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, trace_configs=[trace])

    @asynccontextmanager
    async def request(self, method: str, url: yarl.URL, **options: Any) -> AsyncIterator[Answer]:
        """Send one request and read its answer.

        Raises:
            AddressRefusedError: the host is not one we may connect to.
            SessionLostError: the session was closed.
            BadPayloadError: a redirect, or a body beyond BODY_LIMIT.
            aiohttp.ClientError, TimeoutError: no answer; ccxt translates these.
        """
        if self._session.closed:
            raise SessionLostError(f"the session to {url.host} was closed while a request was on its way; connect again")
        if _is_address(str(url.host)):
            # aiohttp asks no resolver about a literal address
            await asyncio.to_thread(resolve, str(url.host), url.port or 443, self._allow_private)
        async with self._session.request(method, url, allow_redirects=False, **options) as response:
            if 300 <= response.status < 400:
                raise BadPayloadError(
                    f"{url.host} answered HTTP {response.status}, a redirect; redirects are not followed, check the base URL")
            yield Answer(response, await _read(response, str(url.host)))

    def ws_connect(self, url: str, **options: Any) -> _Dial:
        """Return what opens a web socket when it is entered; its messages are at most MESSAGE_LIMIT long.

        Raises, when entered:
            AddressRefusedError, SessionLostError, BadPayloadError: as `request`.
            aiohttp.ClientError, TimeoutError: no handshake.
        """
        return _Dial(self, url, {**options, "max_msg_size": MESSAGE_LIMIT})

    async def dial(self, url: str, options: dict[str, Any]) -> aiohttp.ClientWebSocketResponse:
        """Open a web socket to an address that was judged."""
        target = yarl.URL(url)
        if self._session.closed:
            raise SessionLostError(f"the session to {target.host} was closed; connect again")
        if _is_address(str(target.host)):
            await asyncio.to_thread(resolve, str(target.host), target.port or 443, self._allow_private)
        opened: aiohttp.ClientWebSocketResponse = await self._session.ws_connect(target, **options)
        return opened

    get = partialmethod(request, "GET")
    post = partialmethod(request, "POST")
    put = partialmethod(request, "PUT")
    delete = partialmethod(request, "DELETE")
    patch = partialmethod(request, "PATCH")

    async def close(self) -> None:
        """Close all sockets. Idempotent."""
        await self._session.close()


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: Any, details: aiohttp.TraceRequestRedirectParams,
) -> None:
    raise BadPayloadError(f"{details.url.host} answered with a redirect; redirects are not followed, check the base URL")


class _Dial:
    """A web socket about to be opened. ccxt enters it, keeps the socket and forgets this: nothing is closed with it."""

    def __init__(self, session: GuardedSession, url: str, options: dict[str, Any]) -> None:
        self._session, self._url, self._options = session, url, options

    async def __aenter__(self) -> aiohttp.ClientWebSocketResponse:
        return await self._session.dial(self._url, self._options)

    async def __aexit__(self, *_: object) -> None:
        """Leave the socket to whoever took it."""


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def _read(response: aiohttp.ClientResponse, host: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > BODY_LIMIT:
            response.close()
            raise BadPayloadError(f"{host} sent more than {BODY_LIMIT >> 20} MB in one answer; nothing of it is used")
    return bytes(body)

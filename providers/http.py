"""HTTP for providers whose protocol is ours to speak: pinned addresses, capped bodies, one table of errors.

No message made here holds a query string: queries carry passwords and signatures.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpcore
import httpx
import orjson

from core.clock import SECOND_US, Clock, to_us
from core.errors import (
    AddressRefusedError,
    BadPayloadError,
    CandlelakeError,
    CredentialsRefusedError,
    NetworkError,
    NotPermittedError,
    PermanentError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    TransientError,
    UnsupportedError,
)
from core.secrets import Secret, quiet_library_logs, redact
from providers.addresses import Target, check_url, resolve
from providers.tls import client_context

BODY_LIMIT: Final = 64 * 1024 * 1024  # decoded bytes: a page of candles is far below it
RETRY_AFTER_LIMIT: Final = 3600.0  # seconds; a longer wait is asked for again when it is over
Parameters = Sequence[tuple[str, str]]

# First match wins. Every exception class of httpx and httpcore must find its row: a test enumerates them.
_TRANSLATION: Final[tuple[tuple[type[Exception], type[CandlelakeError], str], ...]] = (
    (httpx.TimeoutException, ProviderTimeoutError, "did not answer in time"),
    (httpcore.TimeoutException, ProviderTimeoutError, "did not answer in time"),
    (TimeoutError, ProviderTimeoutError, "did not answer in time"),
    (httpx.UnsupportedProtocol, AddressRefusedError, "has an address that is not http or https"),
    (httpcore.UnsupportedProtocol, AddressRefusedError, "has an address that is not http or https"),
    (httpx.InvalidURL, AddressRefusedError, "has a malformed address"),
    (httpx.LocalProtocolError, PermanentError, "was asked with a malformed request; check the credentials for line breaks"),
    (httpcore.LocalProtocolError, PermanentError, "was asked with a malformed request; check the credentials for line breaks"),
    (httpx.DecodingError, BadPayloadError, "sent a body that does not decompress"),
    (httpx.TooManyRedirects, BadPayloadError, "answered with redirects"),
    (httpx.CookieConflict, BadPayloadError, "sent contradicting cookies"),
    (httpx.RemoteProtocolError, NetworkError, "cut its answer short"),
    (httpcore.RemoteProtocolError, NetworkError, "cut its answer short"),
    (httpx.HTTPStatusError, ProviderUnavailableError, "answered with an error"),
    (httpx.StreamError, NetworkError, "closed its answer"),
    (httpx.HTTPError, NetworkError, "is out of reach"),
    (httpcore.ConnectionNotAvailable, NetworkError, "is out of reach"),
    (httpcore.NetworkError, NetworkError, "is out of reach"),
    (httpcore.ProtocolError, NetworkError, "cut its answer short"),
    (httpcore.ProxyError, NetworkError, "is out of reach"),
)
_FOREIGN: Final = tuple(row[0] for row in _TRANSLATION)


def translate(error: Exception, host: str) -> CandlelakeError:
    """Return the error of core.errors that says what an exception of httpx or httpcore means for us."""
    for foreign, ours, what in _TRANSLATION:
        if isinstance(error, foreign):
            detail = _detail(error)
            return ours(f"{host} {what}{detail}")
    return NetworkError(f"{host} is out of reach ({type(error).__name__})")


def _detail(error: Exception) -> str:
    """Name the cause where it helps: a TLS certificate is for a person to repair, not for us to retry quietly."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, ssl.SSLWantReadError):
            return f": TLS, {redact(seen.reason or type(seen).__name__)[:100]}"
        seen = seen.__cause__ or seen.__context__
    return f" ({type(error).__name__})"


@dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer: status, headers, decoded body, and our clock before and after the exchange (microseconds)."""

    host: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    asked_us: int
    answered_us: int

    def json(self) -> Any:
        """Return the body as JSON.

        Raises:
            BadPayloadError: HTML, cut or malformed JSON, NaN, another charset than UTF-8, nesting beyond 1,024 levels.
        """
        return parse_json(self.body, self.host)

    def text(self) -> str:
        """Return the body as text; what is not UTF-8 is replaced."""
        return self.body.decode("utf-8", errors="replace").strip()

    def check_status(self) -> None:
        """Raise what an HTTP status outside 200 to 299 means."""
        error = status_error(self.status, self.headers, self.host, self.answered_us)
        if error is not None:
            raise error


def parse_json(body: bytes, host: str) -> Any:
    """Return JSON from a body, or raise BadPayloadError saying what came instead."""
    text = body.removeprefix(b"\xef\xbb\xbf").strip()
    if text[:1] == b"<":
        raise BadPayloadError(f"{host} answered with a web page instead of data")
    if not text:
        raise BadPayloadError(f"{host} answered with an empty body")
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = redact(str(error))[:120]
        raise BadPayloadError(f"{host} answered with {len(body)} bytes that are not JSON: {where}") from None


_STATUSES: Final[tuple[tuple[range | frozenset[int], type[CandlelakeError], str], ...]] = (
    (frozenset({418, 429}), RateLimitedError, "too many requests"),
    (frozenset({401}), CredentialsRefusedError, "the credentials are refused; check them"),
    (frozenset({451}), NotPermittedError, "not available from this place in the world"),
    (frozenset({403, 407}), NotPermittedError, "not allowed"),
    (frozenset({404, 405, 410, 501}), UnsupportedError, "it does not know what was asked; check the base URL"),
    (frozenset({408, 504}), ProviderTimeoutError, "it ran out of time"),
    (frozenset({425, *range(500, 1000)}), ProviderUnavailableError, "it is down or overloaded"),
    (range(400, 500), PermanentError, "it refuses the request"),
    (range(400), BadPayloadError, "a redirect or no answer at all; redirects are not followed, check the base URL"),
)


def status_error(status: int, headers: Mapping[str, str], host: str, now_us: int) -> CandlelakeError | None:
    """Return what an HTTP status means, None for 200 to 299. Transient errors carry the Retry-After of the answer."""
    if 200 <= status < 300:
        return None
    kind, what = next((kind, what) for statuses, kind, what in _STATUSES if status in statuses)
    message = f"{host} answered HTTP {status}: {what}"
    if issubclass(kind, TransientError):
        return kind(message, retry_after=retry_after(headers, now_us))
    return kind(message)


def retry_after(headers: Mapping[str, str], now_us: int) -> float | None:
    """Return the seconds of a Retry-After header (a number or a date), 0 to RETRY_AFTER_LIMIT; None without one."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if not text:
        return None
    try:
        seconds = float(text) if text[:1].isdigit() else _seconds_until(text, now_us)
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)


def _seconds_until(text: str, now_us: int) -> float:
    moment = parsedate_to_datetime(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (to_us(moment) - now_us) / SECOND_US


class PinnedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the very addresses that passed the guard; names are never resolved a second time."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, judge, and connect to the first address that answers."""
        addresses = await asyncio.to_thread(resolve, host, port, self._allow_private)
        last: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
        raise last or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,  # noqa: ARG002  httpcore's signature
        timeout: float | None = None,  # noqa: ARG002, ASYNC109  httpcore's signature
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002  httpcore's signature
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no provider lives on a local socket."""
        raise AddressRefusedError("local sockets are not addresses of providers")

    async def sleep(self, seconds: float) -> None:
        """Wait; httpcore calls it between its own tries."""
        await asyncio.sleep(seconds)


class PinnedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over a PinnedBackend; Host header and TLS name stay those of the URL."""

    def __init__(self, *, allow_private: bool) -> None:
        super().__init__(verify=client_context(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=client_context(),
            max_connections=16,
            max_keepalive_connections=8,
            keepalive_expiry=30.0,
            network_backend=PinnedBackend(allow_private=allow_private),
        )


@asynccontextmanager
async def translated(host: str) -> AsyncIterator[None]:
    """Translate every foreign exception of the body: the one place where it happens."""
    try:
        yield
    except _FOREIGN as error:
        raise translate(error, host) from None


class Http:
    """GETs under one base URL. Redirects are not followed, proxies of the environment not used.

    Args:
        base_url: https://HOST[:PORT][/PATH]; checked here, resolved at each connection.
        timeout: seconds for one whole answer.
        allow_private: also addresses of our own network.
        clock: stamps the answers.
        headers: sent with every request; revealed only here.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout: float,
        allow_private: bool,
        clock: Clock,
        headers: Mapping[str, Secret] | None = None,
    ) -> None:
        quiet_library_logs()
        self.target: Target = check_url(base_url)
        self.timeout = timeout
        self._clock = clock
        self._allow_private = allow_private
        self._headers = dict(headers or {})
        self._client: httpx.AsyncClient | None = None

    @property
    def host(self) -> str:
        """The host, for messages."""
        return self.target.host

    async def get(self, path: str, parameters: Parameters = ()) -> Answer:
        """GET one answer whole, whatever its status.

        Raises:
            TransientError, AddressRefusedError: no answer; never httpx's own errors.
            BadPayloadError: a body above BODY_LIMIT, or one that does not decompress.
        """
        asked_us = self._clock.now_us()
        async with (
            translated(self.host),
            asyncio.timeout(self.timeout),
            self._open().stream("GET", self.target.url + path, params=list(parameters)) as response,
        ):
            body = await self._read(response)
            return Answer(self.host, response.status_code, dict(response.headers), body, asked_us, self._clock.now_us())

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for part in response.aiter_bytes():
            body += part
            if len(body) > BODY_LIMIT:
                raise BadPayloadError(f"{self.host} sent more than {BODY_LIMIT} bytes; nothing of it is used")
        return bytes(body)

    async def aclose(self) -> None:
        """Close the sockets; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=PinnedTransport(allow_private=self._allow_private),
                timeout=httpx.Timeout(self.timeout),
                follow_redirects=False,
                trust_env=False,
                headers={"User-Agent": "candlelake", **{name: text.reveal() for name, text in self._headers.items()}},
            )
        return self._client

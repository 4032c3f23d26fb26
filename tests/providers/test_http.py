"""HTTP of our own protocols: every failure has one name."""

from __future__ import annotations

import asyncio
import gzip
import inspect
import socket

import httpcore
import httpx
import pytest

import providers.http as provider_http
from core.clock import ManualClock, SystemClock
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
    UnsupportedError,
)
from core.secrets import Secret
from providers.http import Http, parse_json, retry_after, status_error, translate
from tests.providers.wire import Reply, json_reply, listening

NOW = 1_700_000_000_000_000


def classes(module) -> list[type[Exception]]:
    """Return the exception classes of a library."""
    return [cls for _, cls in inspect.getmembers(module, inspect.isclass)
            if issubclass(cls, Exception) and cls.__module__.startswith(("httpx", "httpcore"))]


def client(url: str, timeout: float = 5.0, **more) -> Http:
    """Return a client that may reach loopback."""
    return Http(url, timeout=timeout, allow_private=True, clock=SystemClock(), **more)


@pytest.mark.parametrize("foreign", [*classes(httpx), *classes(httpcore)], ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_every_foreign_exception_is_caught_and_translated(foreign):
    """No exception class of httpx or httpcore gets past the border, now or after an upgrade that adds one."""
    assert issubclass(foreign, provider_http._FOREIGN)
    error = foreign.__new__(foreign)
    ours = translate(error, "host.example")
    assert isinstance(ours, CandlelakeError)
    assert ours.message.startswith("host.example ")


@pytest.mark.parametrize(("status", "kind"), [
    (401, CredentialsRefusedError), (403, NotPermittedError), (451, NotPermittedError), (404, UnsupportedError),
    (418, RateLimitedError), (429, RateLimitedError), (408, ProviderTimeoutError), (504, ProviderTimeoutError),
    (500, ProviderUnavailableError), (502, ProviderUnavailableError), (503, ProviderUnavailableError), (599, ProviderUnavailableError),
    (400, PermanentError), (422, PermanentError), (302, BadPayloadError), (304, BadPayloadError), (425, ProviderUnavailableError),
])
def test_statuses_mean_one_error_each(status, kind):
    """Each HTTP status has its class; transient ones carry Retry-After."""
    error = status_error(status, {"Retry-After": "7"}, "h", NOW)
    assert type(error) is kind
    assert getattr(error, "retry_after", 7.0) == 7.0
    assert status_error(201, {}, "h", NOW) is None


@pytest.mark.parametrize(("text", "seconds"), [
    ("30", 30.0), ("0", 0.0), ("1000000000", 3600.0), ("9" * 400, 3600.0), ("Tue, 14 Nov 2023 22:14:20 GMT", 60.0),
    ("Mon, 01 Jan 2001 00:00:00 GMT", 0.0), ("Tue, 14 Nov 2623 22:14:20 GMT", 3600.0), ("soon", None), ("", None), ("-5", None),
    ("Tue, 99 Nov 2023", None),
])
def test_retry_after_is_read_and_capped(text, seconds):
    """Seconds and dates are honoured up to an hour; nonsense is no wait at all."""
    assert retry_after({"retry-after": text}, NOW) == seconds


@pytest.mark.parametrize("body", [
    b"<html>login</html>", b"", b'{"a": 1', b'[1, NaN]', b"[" * 100_000, '{"a": "\u00e9"}'.encode("latin-1"),
    '{"a": 1}'.encode("utf-16"), b"OK then",
])
def test_what_is_not_json_is_a_bad_payload(body):
    """HTML, cut JSON, NaN, 100,000 levels and other charsets are BadPayloadError, never a crash."""
    with pytest.raises(BadPayloadError, match="host"):
        parse_json(body, "host")


def test_a_byte_order_mark_is_no_fault():
    """UTF-8 with a mark before it is JSON all the same."""
    assert parse_json(b'\xef\xbb\xbf {"a": 1}', "h") == {"a": 1}


async def test_answers_come_whole_with_times_and_headers():
    """Status, headers and decoded body arrive; our headers and query are sent; no message holds the query."""
    async with listening(lambda _: Reply(gzip.compress(b'{"a": 1}'), headers={"Content-Encoding": "gzip"})) as wire:
        http = client(wire.url + "/mt5", headers={"ApiKey": Secret("k")})
        answer = await http.get("/Ping", [("password", "p&w=1"), ("a", "1"), ("a", "2")])
        assert answer.json() == {"a": 1}
        assert answer.asked_us <= answer.answered_us
        assert wire.requests[0].path == "/mt5/Ping"
        assert wire.requests[0].headers["apikey"] == "k"
        assert wire.requests[0].query["password"] == "p&w=1"
        await http.aclose()
        assert (await http.get("/Ping")).status == 200
        await http.aclose()


@pytest.mark.parametrize(("reply", "kind"), [
    (Reply(b"x" * 100, cut=10), NetworkError),
    (Reply(raw=b"garbage\r\n\r\n"), NetworkError),
    (Reply(raw=b""), NetworkError),
    (Reply(b"no gzip", headers={"Content-Encoding": "gzip"}), BadPayloadError),
    (Reply(b"{}", wait=5), ProviderTimeoutError),
])
async def test_broken_answers_are_transient_errors_without_the_query(reply, kind):
    """Cut bodies, garbage, silence and slowness have their names; the query stays out of the message."""
    async with listening(lambda _: reply) as wire:
        http = client(wire.url, timeout=2)
        with pytest.raises(kind) as caught:
            await http.get("/x", [("password", "canary")])
        assert "canary" not in str(caught.value)
        assert caught.value.__cause__ is None
        await http.aclose()


async def test_bodies_are_capped_after_decompression(monkeypatch):
    """A gzip bomb stops at the cap, not at the end of memory."""
    monkeypatch.setattr(provider_http, "BODY_LIMIT", 1_000_000)
    bomb = gzip.compress(b"0" * 50_000_000)
    async with listening(lambda _: Reply(bomb, headers={"Content-Encoding": "gzip"})) as wire:
        http = client(wire.url)
        with pytest.raises(BadPayloadError, match="1000000 bytes"):
            await http.get("/x")
        await http.aclose()


async def test_redirects_are_not_followed():
    """A redirect to a metadata service is an answer we do not like, not an address we go to."""
    target = "http://169.254.169.254/latest"
    async with listening(lambda _: Reply(status=302, headers={"Location": target})) as wire:
        http = client(wire.url)
        answer = await http.get("/x")
        with pytest.raises(BadPayloadError, match="redirect"):
            answer.check_status()
        assert len(wire.requests) == 1
        await http.aclose()


async def test_a_rebinding_resolver_gets_nowhere(monkeypatch):
    """The address that was judged is the one connected to: the resolver is asked once for each connection."""
    answers = iter(["1.1.1.1", "127.0.0.1"])
    asked, dialled = [], []

    def resolver(host, *_, **__):
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 80))]

    async def dial(_, host, *__, **___):
        dialled.append(host)
        raise httpcore.ConnectError("no network in tests")

    monkeypatch.setattr(provider_http, "resolve", lambda host, port, private: _judged(resolver, host, port, private))
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", dial)
    http = Http("http://rebind.example", timeout=2, allow_private=False, clock=ManualClock(NOW))
    with pytest.raises(NetworkError):
        await http.get("/x")
    with pytest.raises(AddressRefusedError):
        await http.get("/x")
    assert dialled == ["1.1.1.1"]
    assert asked == ["rebind.example"] * 2
    await http.aclose()


def _judged(resolver, host, port, private):
    """Resolve with a fake resolver and judge as the guard does."""
    from providers import addresses

    found = [entry[4][0] for entry in resolver(host, port)]
    if not all(addresses.is_allowed(ip, allow_private=private) for ip in found):
        raise AddressRefusedError("address not allowed")
    return found


async def test_proxies_of_the_environment_are_ignored(monkeypatch):
    """HTTP_PROXY does not see our requests."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with listening(lambda _: json_reply({"a": 1})) as wire:
        http = client(wire.url)
        assert (await http.get("/x")).json() == {"a": 1}
        await http.aclose()


async def test_loopback_is_refused_without_the_setting():
    """A base URL on loopback needs allow_private, whether anything listens or not."""
    async with listening(lambda _: json_reply({})) as wire:
        for url in (wire.url, "http://127.0.0.1:9"):
            http = Http(url, timeout=2, allow_private=False, clock=SystemClock())
            with pytest.raises(AddressRefusedError, match="not allowed"):
                await http.get("/x")
            await http.aclose()
        assert wire.requests == []


async def test_a_header_with_a_line_break_is_a_permanent_error():
    """A key with a line break in it is never sent, and not shown."""
    async with listening(lambda _: json_reply({})) as wire:
        http = client(wire.url, headers={"ApiKey": Secret("a\r\nX: canary")})
        with pytest.raises(PermanentError) as caught:
            await http.get("/x")
        assert "canary" not in str(caught.value)
        await http.aclose()


async def test_refused_connections_and_local_sockets():
    """A closed port is a NetworkError; a local socket is no address at all."""
    http = client("http://127.0.0.1:9")
    with pytest.raises(NetworkError):
        await http.get("/x")
    await http.aclose()
    backend = provider_http.PinnedBackend(allow_private=True)
    with pytest.raises(AddressRefusedError):
        await backend.connect_unix_socket("/tmp/x")
    await asyncio.wait_for(backend.sleep(0), 5)


async def test_tls_trouble_names_tls():
    """An answer in plain text on an https address says that TLS failed."""
    async with listening(lambda _: json_reply({})) as wire:
        http = client(wire.url.replace("http:", "https:"))
        with pytest.raises(NetworkError, match="TLS"):
            await http.get("/x")
        await http.aclose()

"""The session reaches what it may, and nothing else."""

import asyncio

import pytest
import yarl

from core.errors import AddressRefusedError, BadPayloadError, InputError
from providers.addresses import check_url
from providers.exchange.guard import redirect
from providers.exchange.transport import GuardedSession


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "169.254.169.254", "[::1]", "2130706433", "0x7f000001", "10.0.0.1"])
async def test_private_addresses_are_refused_before_a_connection(host, venue, opened):
    """By name or by number, a base URL does not reach into our own network unless that was allowed."""
    port = yarl.URL(venue.url).port
    provider = opened.build("binance", base_url=f"http://{host}:{port}", allow_private_hosts=False)
    with pytest.raises(AddressRefusedError):
        await provider.connect()
    assert venue.requests == []


async def test_cloud_metadata_is_refused_even_where_private_hosts_are_allowed(opened):
    """No setting opens the address where clouds keep their keys."""
    provider = opened.build("binance", base_url="http://169.254.169.254")
    with pytest.raises(AddressRefusedError):
        await provider.connect()


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://x", "https://good@evil", "https://", "https://x?y=1"])
def test_strange_base_urls_are_refused_at_once(url, opened):
    """What is not a plain http(s) address is refused before anything is opened."""
    with pytest.raises(AddressRefusedError):
        opened.build("binance", base_url=url)


async def test_a_name_that_turns_private_is_refused_at_the_connection(venue, monkeypatch):
    """Rebinding: the addresses judged are the addresses used, for each new connection."""
    import socket

    answers = iter([[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: next(answers))
    session = GuardedSession(False, allow_private=False)
    with pytest.raises(AddressRefusedError):
        async with session.request("GET", yarl.URL("http://exchange.example/")):
            pass
    await session.close()
    assert venue.requests == []


async def test_proxies_of_the_environment_are_ignored(opened, venue, monkeypatch):
    """HTTP_PROXY does not lead our requests elsewhere."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    provider = await opened("kraken")
    assert provider.is_connected
    assert venue.requests


async def test_every_request_goes_to_base_host_path(opened, venue):
    """The real host becomes the first part of the path."""
    await opened("coinbase")
    assert venue.requests
    assert all(path.startswith("/api.coinbase.com/") for path, *_ in venue.requests)


def test_redirect_rewrites_the_whole_tree():
    """Hosts with placeholders are filled, web sockets stay web sockets, other values stay."""
    urls = {"rest": "https://{hostname}/v5", "deep": {"ws": "wss://stream.x.com/ws"}, "note": "x", "none": None}
    assert redirect(urls, check_url("http://127.0.0.1:4280/ex"), "www.okx.com") == {
        "rest": "http://127.0.0.1:4280/ex/www.okx.com/v5", "deep": {"ws": "ws://127.0.0.1:4280/ex/stream.x.com/ws"},
        "note": "x", "none": None}
    assert redirect("wss://a/b", check_url("https://h"), "") == "wss://h/a/b"


@pytest.mark.parametrize(("config", "words"), [
    ({"verbose": True}, "market_types, options, sandbox"), ({"market_types": ["spots"]}, "spot"),
    ({"market_types": []}, "spot"), ({"options": 3}, "object"), ({"sandbox": "yes"}, "true or false"),
])
def test_wrong_configuration_is_refused(config, words, opened):
    """An unknown key or value is named together with what is allowed."""
    with pytest.raises(InputError, match=words):
        opened.build("binance", config=config)


def test_wrong_credential_is_refused(opened):
    """A field that no exchange has is refused by name, not by value."""
    with pytest.raises(InputError, match="apikey") as caught:
        opened.build("binance", credentials={"apikey": "c4n4ry"})
    assert "c4n4ry" not in str(caught.value)


async def test_a_sandbox_that_does_not_exist_is_refused(opened):
    """Kraken has no test network: nobody is sent to the real one instead."""
    provider = opened.build("kraken", config={"sandbox": True})
    with pytest.raises(InputError, match="sandbox"):
        await provider.connect()


async def test_the_sandbox_of_an_exchange_is_redirected_too(opened, venue):
    """Test network first, then the base URL: requests carry the test network's host."""
    provider = opened.build("binance", config={"sandbox": True})
    venue.fault("", body="{}")
    with pytest.raises(BadPayloadError):
        await provider.connect()
    assert any("testnet" in path or "demo" in path for path, *_ in venue.requests)


async def test_more_kinds_of_markets_are_loaded_when_asked_for(opened, venue):
    """Spot alone by default; with `linear` Binance's futures are asked for too. `options` reach ccxt, retries do not."""
    provider = opened.build("binance", config={
        "market_types": ["spot", "linear"], "options": {"recvWindow": 7, "maxRetriesOnFailure": 9}})
    venue.fault("fapi", body='{"symbols": []}')
    await provider.connect()
    assert {path.split("/")[1] for path, *_ in venue.requests} == {"api.binance.com", "fapi.binance.com"}
    assert provider._exchange.options["recvWindow"] == 7
    assert provider._exchange.options["maxRetriesOnFailure"] == 0


async def test_a_cancelled_connect_leaves_nothing_open(opened, venue):
    """Cancelled in the middle, the session is closed: pytest turns a leaked socket into a failure."""
    venue.fault("", body="HANG")
    provider = opened.build("binance")
    task = asyncio.create_task(provider.connect())
    await venue.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not provider.is_connected

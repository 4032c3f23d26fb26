"""The session: how it logs in, and what it takes for a token."""

from __future__ import annotations

import pytest

from core.clock import ManualClock
from core.errors import BadPayloadError, SessionLostError
from core.secrets import Secret
from core.server_clock import ServerClock
from providers.base import Unlimited
from providers.http import Http
from providers.mtapi.client import Login, Session
from tests.providers.mtapi.bridge import GOOD, PASSWORD, TOKEN, Bridge, at
from tests.providers.wire import Reply, listening


def session(url: str, credentials=GOOD, clock=None) -> Session:
    """Return a session with a bridge."""
    http = Http(url, timeout=20, allow_private=True, clock=clock or ManualClock(at("2021-01-05T00:00")), headers={"ApiKey": Secret("key")})
    return Session(http, Login.of(credentials), Unlimited())


async def test_host_and_port_log_in_by_connect():
    """Credentials with an address use /Connect, those with a server name /ConnectEx; the key goes as a header."""
    clock = ManualClock(at("2021-01-05T00:00"))
    bridge = Bridge(clock, ServerClock.fixed(0))
    by_address = {"user": Secret("7"), "password": Secret(PASSWORD), "host": Secret("10.1.2.3"), "port": Secret("443")}
    async with listening(bridge) as wire:
        one = session(wire.url, by_address)
        await one.open()
        assert wire.requests[0].path == "/Connect"
        assert wire.requests[0].query["host"] == "10.1.2.3"
        assert wire.requests[0].headers["apikey"] == "key"
        value, _ = await one.call("/ServerTimezone")
        assert value == 0.0
        await one.close()
        assert wire.requests[-1].path == "/Disconnect"
        with pytest.raises(SessionLostError):
            await one.call("/ServerTimezone")


@pytest.mark.parametrize("body", [b"<html>hi</html>", b"[1]", b"true", b"12", b'{"a": 1}', b"two words", b"\xff\xfe"])
async def test_only_a_token_is_a_token(body):
    """Whatever else answers a login is a BadPayloadError, not a session."""
    async with listening(lambda _: Reply(body)) as wire:
        one = session(wire.url)
        with pytest.raises(BadPayloadError):
            await one.open()
        assert not one.is_open
        await one.close()


async def test_closing_a_dead_session_raises_nothing():
    """A bridge that is gone, or has forgotten us, is no reason to fail at the end."""
    async with listening(lambda request: Reply(TOKEN.encode()) if "Connect" in request.path and "Dis" not in request.path
                         else Reply(raw=b"")) as wire:
        one = session(wire.url)
        await one.open()
        await one.close()
        await one.close()
        assert not one.is_open

"""Rooms for calls that people wait for: bounded for each and for all, ended in time, and free again afterwards."""

import asyncio

import pytest

from connections.service import ConnectionInput
from console.turns import Room
from core.errors import ProviderTimeoutError, RateLimitedError


async def test_a_room_is_bounded_for_each_and_for_all():
    """One person keeps so many places, all together so many; whoever leaves makes room, however they left."""
    room = Room(at_once=3, each=2, seconds=60.0)
    async with room.hold("ann"), room.hold("ann"):
        with pytest.raises(RateLimitedError, match="of your calls"):
            async with room.hold("ann"):
                pass
        async with room.hold("bob"):
            with pytest.raises(RateLimitedError, match="too many people"):
                async with room.hold("eve"):
                    pass
        with pytest.raises(ZeroDivisionError):
            async with room.hold("bob"):
                raise ZeroDivisionError
        async with room.hold("eve"):
            pass
    async with room.hold("ann"), room.hold("ann"):
        pass


async def test_what_takes_too_long_is_ended():
    """A body that does not end is cancelled and said; a timeout of the body's own stays its own."""
    room = Room(at_once=1, each=1, seconds=0.05)
    with pytest.raises(ProviderTimeoutError, match="given up"):
        async with room.hold("ann"):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError, match="mine"):
        async with room.hold("ann"):
            raise TimeoutError("mine")


async def test_tests_of_connections_are_bounded(browser, token, feed, monkeypatch):
    """A person's tests beyond those that run already are answered 429 with one line; when one has ended, the next may run."""
    monkeypatch.setattr("console.actions.TESTS", Room(at_once=1, each=1, seconds=60.0))
    asked, leave = asyncio.Event(), asyncio.Event()

    async def silent(reader, writer):
        await reader.readline()
        asked.set()
        await leave.wait()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        feed.connections.create(ConnectionInput(
            slug="silent", provider="ccxt:kraken", base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", owner="ann",
            symbols=("BTC/USD",), timeframes=("1m",)))
        http, headers = browser().http, token("ann", "manage", "read")
        first = asyncio.create_task(http.post("/api/connections/silent/test", headers=headers))
        await asyncio.wait_for(asked.wait(), 60)
        refused = await http.post("/api/connections/silent/test", headers=headers)
        assert (refused.status_code, "wait until one has ended" in refused.text) == (429, True)
        leave.set()
        for answer in (await first, await http.post("/api/connections/silent/test", headers=headers)):
            assert (answer.status_code, answer.json()["type"]) == (200, "error")

"""A stream begins when its subscriptions stand, and not before; one that never stands ends."""

import asyncio

import pytest

from core.errors import StalledError
from providers.exchange.stream import Buffer, _session, expect, streaming_class


@pytest.fixture
async def kraken():
    """The streaming class of an exchange that confirms each symbol, not connected."""
    exchange = streaming_class("kraken")()
    yield exchange
    await exchange.close()


async def test_trades_before_the_last_confirmation_wait(kraken):
    """Two symbols: trades of the first one that come before the second one's confirmation are given after the empty list, none is lost."""
    expect(kraken, 2)
    buffer = Buffer()
    stream = _session([kraken], buffer, [asyncio.sleep(600)])
    first = asyncio.create_task(anext(stream))
    kraken.confirmed = 1
    buffer.put("early")
    await asyncio.sleep(0.05)
    assert not first.done()
    kraken.confirmed = 2
    assert await first == []
    assert await anext(stream) == ["early"]
    buffer.put("late")
    assert await anext(stream) == ["late"]
    await stream.aclose()


async def test_a_subscription_that_is_never_confirmed_ends_the_session(kraken):
    """Instead of waiting for ever the session ends with an error that says how many of how many stand."""
    expect(kraken, 2)
    kraken.confirmed, kraken.confirm_seconds = 1, 0.05
    stream = _session([kraken], Buffer(), [asyncio.sleep(600)])
    with pytest.raises(StalledError, match="kraken: 1 of 2 subscriptions"):
        await anext(stream)

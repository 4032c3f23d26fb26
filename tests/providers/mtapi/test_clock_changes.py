"""A broker that sets its clock by another rule than we think is caught with the first request after the change."""

from __future__ import annotations

import pytest

from core.clock import HOUR_US, MINUTE_US
from core.errors import ClockRuleError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import Timeframe
from providers.base import Unlimited
from providers.mtapi.clock import may_have_changed
from providers.registry import open_provider
from tests.providers.mtapi.bridge import Bridge, ManualClock, at, spec
from tests.providers.wire import listening

H1 = Timeframe.parse("1h")


@pytest.mark.parametrize(("ours", "theirs", "change"), [
    ("us", "eu", "2021-03-14T07:00"), ("eu", "us", "2021-03-14T07:00"),
    ("us", "none", "2021-11-07T06:00"), ("none", "eu", "2021-03-28T01:00"), ("eu", "us", "2021-10-31T01:00"),
])
async def test_a_wrong_rule_is_found_before_a_candle_is_given_out(ours, theirs, change) -> None:
    """Around each change of either rule: right before it all is well, ten minutes after it nothing is given out."""
    bridge = Bridge(ManualClock(at(change) - 8 * MINUTE_US), ServerClock.fixed(120, theirs))
    asked = Interval(at(change) - 5 * HOUR_US, at(change) - 2 * HOUR_US)
    same_before = ServerClock.fixed(120, ours).offset_us(at(change) - 1) == bridge.server.offset_us(at(change) - 1)
    async with listening(bridge) as wire:
        config = {"server_clock": {"offset_minutes": 120, "dst": ours}}
        provider = open_provider(spec(wire.url, bridge.clock, config=config), Unlimited())
        if not same_before:
            with pytest.raises(ClockRuleError, match="by its rule"):
                await provider.connect()
            return
        await provider.connect()
        assert (await provider.fetch_candles("EURUSD.m", H1, asked)).candles.height >= 3
        bridge.clock.set(at(change) + 6 * MINUTE_US)  # less than a quarter of an hour after the last look
        with pytest.raises(ClockRuleError, match="by its rule"):
            await provider.fetch_candles("EURUSD.m", H1, asked)
        await provider.disconnect()


async def test_the_right_rule_goes_on_through_the_change() -> None:
    """The same instants with the right rule: candles before and after, and the offset as measured moves by an hour."""
    bridge = Bridge(ManualClock(at("2021-03-28T00:52")), ServerClock.fixed(120, "eu"))
    async with listening(bridge) as wire:
        config = {"server_clock": {"offset_minutes": 120, "dst": "eu"}}
        provider = open_provider(spec(wire.url, bridge.clock, config=config), Unlimited())
        await provider.connect()
        assert provider.measured_offset_us == 2 * HOUR_US
        bridge.clock.set(at("2021-03-28T01:06"))
        assert (await provider.fetch_candles("EURUSD.m", H1, Interval(at("2021-03-27T20:00"), at("2021-03-27T23:00")))).candles.height >= 3
        assert provider.measured_offset_us == 3 * HOUR_US
        await provider.disconnect()
        assert provider.measured_offset_us is None


def test_when_a_clock_may_have_changed() -> None:
    """At a change by any rule and when a week opens; never within a week's quiet hours."""
    assert may_have_changed(at("2021-03-14T06:59"), at("2021-03-14T07:00"))
    assert may_have_changed(at("2021-03-28T00:59"), at("2021-03-28T01:00"))
    assert may_have_changed(at("2021-06-06T20:59"), at("2021-06-06T21:00"))
    assert not may_have_changed(at("2021-06-07T00:00"), at("2021-06-11T21:00"))
    assert not may_have_changed(at("2021-06-07T00:00"), at("2021-06-07T00:00"))

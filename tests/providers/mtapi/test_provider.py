"""MetaTrader accounts against a bridge on loopback: clock, candles, sessions."""

from __future__ import annotations

import logging
from bisect import bisect_right

import pytest

from core.calendar import FxWeek
from core.candles import check
from core.clock import DAY_US, HOUR_US, MINUTE_US, ManualClock, to_us
from core.errors import (
    BadPayloadError,
    ClockSkewError,
    CredentialsRefusedError,
    InputError,
    RateLimitedError,
    SessionLostError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.secrets import Secret
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from providers.base import MarketDataProvider, Unlimited
from providers.registry import open_provider
from tests.providers.mtapi.bridge import GOOD, PASSWORD, TOKEN, Bridge, at, error, price, spec, wall
from tests.providers.wire import Reply, json_reply, listening

H1, M1, H4, D1 = (Timeframe.parse(name) for name in ("1h", "1m", "4h", "1d"))
PLATFORMS = ["mtapi:mt5", "mtapi:mt4"]
EET = {"offset_minutes": 120, "dst": "eu"}


CLOSED = FxWeek().closed(Interval.parse("2017-01-01", "2025-01-01"))
CLOSED_FROM = [part.start for part in CLOSED]


def fx_open(us: int) -> bool:
    """Return whether FX trades at an instant of 2017 to 2024."""
    return us not in CLOSED[bisect_right(CLOSED_FROM, us) - 1]


def make(now: str, rule: str = "eu", **more) -> Bridge:
    """Return a bridge at an instant."""
    return Bridge(ManualClock(at(now)), ServerClock.fixed(120, rule), **more)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("descending", [False, True])
async def test_a_year_of_hours_has_none_doubled_and_none_missing(platform, descending):
    """Across both clock changes of a year every hour comes back once, at its own instant, in either order of rows."""
    bridge = make("2022-01-05T00:00", descending=descending)
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, platform, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        for start, end in (("2021-03-26", "2021-03-31"), ("2021-10-29", "2021-11-03")):
            asked = Interval.parse(start, end)
            page = await provider.fetch_candles("EURUSD.m", H1, asked)
            checked = check(page.candles, Grid(H1), asked, bridge.clock.now_us())
            expected = Grid(H1).slots(asked)
            assert checked.candles["ts"].dt.epoch("us").to_list() == expected
            assert checked.candles["open"].to_list() == [price(us) for us in expected]
            assert checked.rejected.is_empty()
        await provider.disconnect()


async def test_minutes_of_the_doubled_hour_are_told_apart():
    """The 120 minutes of the hour that the clock shows twice come back as 120 candles."""
    bridge = make("2021-11-02T00:00")
    asked = Interval.parse("2021-10-31T00:00", "2021-10-31T02:00")
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        page = await provider.fetch_candles("EURUSD.m", M1, asked)
        candles = check(page.candles, Grid(M1), asked, bridge.clock.now_us()).candles
        assert candles["open"].to_list() == [price(us) for us in Grid(M1).slots(asked)]
        assert candles["spread"].to_list() == pytest.approx([8e-5] * 120)
        await provider.disconnect()


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("rule", "now"), [("eu", "2021-12-10T12:07"), ("us", "2021-07-14T09:00"), ("none", "2021-12-10T00:00")])
async def test_the_rule_is_read_off_the_week_ends(platform, rule, now):
    """Without configuration the summer-time rule comes from the Friday closes, from both platforms the same."""
    bridge = make(now, rule, is_open=fx_open)
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, platform), Unlimited())
        await provider.connect()
        assert isinstance(provider, MarketDataProvider)
        assert provider.server_clock == ServerClock.fixed(120, rule)
        assert await provider.server_time_us() == pytest.approx(bridge.clock.now_us(), abs=1_000_000)
        await provider.disconnect()
        assert not provider.is_connected


@pytest.mark.parametrize("platform", PLATFORMS)
async def test_days_are_cut_at_the_servers_midnight_from_hours(platform):
    """1d and 4h candles open on the server's grid and hold open, close, extremes and volume of their hours."""
    bridge = make("2021-11-20T00:00", is_open=fx_open)
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, platform, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        for timeframe in (H4, D1):
            grid = Grid(timeframe, provider.server_clock)
            asked = Interval.parse("2021-10-25", "2021-11-06")
            page = await provider.fetch_candles("EURUSD.m", timeframe, asked)
            checked = check(page.candles, grid, page.asked, bridge.clock.now_us())
            assert checked.rejected.is_empty()
            for row in checked.candles.iter_rows(named=True):
                start = to_us(row["ts"])
                hours = [us for us in range(start, grid.next(start), HOUR_US) if fx_open(us)]
                assert row["open"] == price(hours[0])
                assert row["close"] == price(hours[-1])
                assert row["volume"] == sum(us // HOUR_US % 977 for us in hours)
                assert row["high"] == max(price(us) + 1e-4 for us in hours)
            expected = [slot for slot in grid.slots(asked) if any(fx_open(us) for us in range(slot, grid.next(slot), HOUR_US))]
            assert checked.candles["ts"].dt.epoch("us").to_list() == expected
        await provider.disconnect()


async def test_a_bad_hour_spoils_its_day_and_no_other():
    """A day that holds an hour with impossible values is rejected, never stored from the other 23 hours."""
    bridge = make("2021-06-20T00:00")

    def spoil(request):
        rows = bridge._value("/PriceHistory", request.query)
        for row in rows:
            if row["time"] == "2021-06-10T05:00:00":
                row["highPrice"] = -1.0
        return json_reply(rows)

    bridge.overrides["/PriceHistory"] = spoil
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        page = await provider.fetch_candles("EURUSD.m", D1, Interval.parse("2021-06-08T21:00", "2021-06-11T21:00"))
        checked = check(page.candles, Grid(D1, provider.server_clock), page.asked, bridge.clock.now_us())
        assert checked.candles.height == 2
        assert checked.rejected["reason"].to_list() == ["not finite"]
        await provider.disconnect()


async def test_a_configured_rule_that_the_server_contradicts_stops_the_connection():
    """A clock rule an hour off is refused at connect, before any candle can be stored shifted."""
    bridge = make("2021-07-01T00:00", "eu")
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": {"offset_minutes": 120}}), Unlimited())
        with pytest.raises(InputError, match="server clock"):
            await provider.connect()
        assert not provider.is_connected
        await provider.disconnect()


async def test_a_wrong_assumption_is_found_when_the_clocks_part():
    """A broker assumed to follow New York that follows Europe is found out in the week in which they differ."""
    bridge = make("2021-03-10T00:00", "eu", is_open=lambda _: False)
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock), Unlimited())
        await provider.connect()
        assert provider.server_clock == ServerClock.fixed(120, "us")
        bridge.clock.set(at("2021-03-16T00:00"))
        with pytest.raises(InputError, match="server clock"):
            await provider.fetch_candles("EURUSD.m", H1, Interval.parse("2021-03-15", "2021-03-16"))
        await provider.disconnect()


async def test_witnesses_that_contradict_each_other_stop_the_connection():
    """AccountDetails and ServerTimezone hours apart is a ClockSkewError, unless orders bear serverTime out."""
    bridge = make("2021-01-05T00:00", timezone=-300)
    stamp = bridge.clock.now_us() // 1_000_000 - 3600
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        with pytest.raises(ClockSkewError, match="ServerTimezone"):
            await provider.connect()
        bridge.orders = [{"openTimestampUTC": stamp, "openTime": wall(stamp * 1_000_000 + 2 * HOUR_US)}]
        await provider.connect()
        assert provider.is_connected
        await provider.disconnect()


@pytest.mark.parametrize("rule", ["eu", "us", "none"])
@pytest.mark.parametrize("late", [51 * HOUR_US + 7 * MINUTE_US, 700 * DAY_US])
async def test_a_clock_that_stands_in_the_past_is_read_by_zone_and_week_ends(rule, late):
    """At weekends, and over recorded history, the server's present lags: it is reported as it is, candles stay right."""
    bridge = make("2021-12-11T00:00", rule, is_open=fx_open)
    ours = ManualClock(bridge.clock.now_us() + late)
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, ours), Unlimited())
        await provider.connect()
        assert provider.server_clock == ServerClock.fixed(120, rule)
        assert await provider.server_time_us() == bridge.clock.now_us()
        asked = Interval.parse("2021-07-05T00:00", "2021-07-05T05:00")
        page = await provider.fetch_candles("EURUSD.m", H1, asked)
        kept = check(page.candles, Grid(H1), asked, page.server_us).candles
        assert kept["open"].to_list() == [price(us) for us in Grid(H1).slots(asked)]
        assert page.server_us == bridge.clock.now_us()
        await provider.disconnect()


async def test_a_lost_session_comes_back_by_itself():
    """INVALID_TOKEN on a read brings the session back and the read is made once more."""
    bridge = make("2021-01-05T00:00")
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        bridge.lost = 1
        page = await provider.fetch_candles("EURUSD.m", H1, Interval.parse("2021-01-04", "2021-01-04T05:00"))
        assert page.candles.height >= 5
        assert "/CheckConnect" in bridge.asked
        bridge.lost = 2
        with pytest.raises(SessionLostError):
            await provider.account_info()
        bridge.lost = 1
        bridge.overrides["/CheckConnect"] = lambda _: error("SERVICE_NOT_AVAILABLE")
        bridge.overrides["/ConnectByToken"] = lambda _: error("INVALID_TOKEN")
        assert (await provider.account_info()).login == "62333850"
        assert bridge.asked.count("/ConnectEx") == 2
        await provider.disconnect()


async def test_a_refused_login_is_never_tried_again():
    """One wrong password costs one login, however often connect is called; no message holds it."""
    bridge = make("2021-01-05T00:00")
    async with listening(bridge) as wire:
        bad = {**GOOD, "password": Secret("wrong-canary")}
        provider = open_provider(spec(wire.url, bridge.clock, credentials=bad), Unlimited())
        for _ in range(3):
            with pytest.raises(CredentialsRefusedError) as caught:
                await provider.connect()
            assert "wrong-canary" not in str(caught.value)
        assert bridge.asked == ["/ConnectEx"]
        await provider.disconnect()


async def test_too_frequent_tells_the_budget():
    """TOO_FREQUENT_* is a RateLimitedError with a wait, and everyone who shares the budget waits."""

    class Counting(Unlimited):
        """Counts penalties."""

        def __init__(self):
            self.penalties = []

        async def penalise(self, seconds):
            self.penalties.append(seconds)

    budget = Counting()
    bridge = make("2021-01-05T00:00")
    bridge.overrides["/ConnectEx"] = lambda _: error("TOO_FREQUENT_CONNECT_TO_ONE_SERVER")
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock), budget)
        with pytest.raises(RateLimitedError) as caught:
            await provider.connect()
        assert caught.value.retry_after == budget.penalties[0] > 0
        await provider.disconnect()


async def test_secrets_stay_out_of_errors_and_logs(caplog):
    """Password and token reach no message and no log line, whatever path fails."""
    caplog.set_level(logging.DEBUG)
    bridge = make("2021-01-05T00:00")
    texts = []
    replies = [Reply(b"<html>", 502), Reply(b"{", 200), error("X", f"{PASSWORD} {TOKEN}"), Reply(b"", 200), Reply(status=429),
               Reply(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), Reply(b"x" * 10, 401), error("INVALID_TOKEN", TOKEN)]
    async with listening(bridge) as wire:
        for reply in replies:
            for path in ("/ConnectEx", "/AccountDetails"):
                bridge.overrides = {path: lambda _, reply=reply: reply}
                provider = open_provider(spec(wire.url, bridge.clock), Unlimited())
                with pytest.raises(Exception) as caught:
                    await provider.connect()
                texts += [str(caught.value), repr(caught.value), repr(provider.__dict__), repr(provider._session)]
                await provider.disconnect()
    seen = " ".join([*texts, *(record.getMessage() for record in caplog.records if record.name != "asyncio")])
    assert PASSWORD not in seen
    assert TOKEN not in seen


async def test_unknown_symbols_name_near_ones_and_ticks_are_unsupported():
    """A symbol without the broker's suffix is an error that names the broker's spelling."""
    bridge = make("2021-01-05T00:00", success=201, quoted=False)
    asked = Interval.parse("2021-01-04", "2021-01-05")
    async with listening(bridge) as wire:
        for platform in PLATFORMS:
            provider = open_provider(spec(wire.url, bridge.clock, platform, config={"server_clock": EET}), Unlimited())
            with pytest.raises(SessionLostError):
                await provider.fetch_candles("EURUSD.m", H1, asked)
            await provider.connect()
            await provider.connect()
            with pytest.raises(UnknownSymbolError, match=r"EURUSD\.m"):
                await provider.fetch_candles("EURUSD", H1, asked)
            with pytest.raises(UnsupportedError):
                await provider.fetch_ticks("EURUSD.m", asked)
            with pytest.raises(UnsupportedError):
                await provider.fetch_candles("EURUSD.m", Timeframe.parse("1s"), asked)
            empty = await provider.fetch_candles("EURUSD.m", H1, Interval(asked.start + 1, asked.start + MINUTE_US))
            assert empty.candles.is_empty()
            info = await provider.account_info()
            assert (info.server, info.balance, info.is_demo, info.can_trade) == ("Practice-Demo", 5000.0, True, False)
            assert [symbol.symbol for symbol in await provider.symbols()] == ["EURUSD.m", "XAUUSD"]
            await provider.disconnect()
            await provider.disconnect()


async def test_both_platforms_tell_the_same_market():
    """MT4 and MT5 of one broker give the same candles for every timeframe that both have."""
    bridge = make("2021-11-20T00:00", is_open=fx_open)
    frames = {}
    async with listening(bridge) as wire:
        for platform in PLATFORMS:
            provider = open_provider(spec(wire.url, bridge.clock, platform, config={"server_clock": EET}), Unlimited())
            await provider.connect()
            for name in ("5m", "1h", "4h", "1d", "1w"):
                timeframe = Timeframe.parse(name)
                asked = Interval(at("2021-10-28T00:00"), at("2021-11-02T00:00") + (9 * DAY_US if name == "1w" else 0))
                page = await provider.fetch_candles("EURUSD.m", timeframe, asked)
                kept = check(page.candles, Grid(timeframe, provider.server_clock), page.asked, bridge.clock.now_us())
                frames.setdefault(name, []).append(kept.candles.drop("spread"))
            await provider.disconnect()
    for five, four in frames.values():
        assert five.height > 0
        assert five.equals(four)


async def test_a_page_is_cut_at_the_limit():
    """More than one page asked gives the first page, oldest first, and says what was asked."""
    bridge = make("2021-11-20T00:00")
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        page = await provider.fetch_candles("EURUSD.m", D1, Interval.parse("2020-01-01", "2021-11-01"))
        assert Grid(D1, provider.server_clock).count(page.asked) == 180
        assert page.asked.start == at("2020-01-01T22:00")
        await provider.disconnect()


async def test_bars_in_the_skipped_hour_break_the_answer():
    """A bar at a time that the server's clock never shows means a wrong rule: nothing of the answer is used."""
    bridge = make("2021-04-20T00:00")
    bar = {"openPrice": 1, "highPrice": 1, "lowPrice": 1, "closePrice": 1, "tickVolume": 1, "spread": 1}
    bridge.overrides["/PriceHistory"] = lambda _: json_reply([{"time": "2021-03-28T03:30:00", **bar}])
    async with listening(bridge) as wire:
        provider = open_provider(spec(wire.url, bridge.clock, config={"server_clock": EET}), Unlimited())
        await provider.connect()
        with pytest.raises(BadPayloadError, match="skips"):
            await provider.fetch_candles("EURUSD.m", H1, Interval.parse("2021-03-28", "2021-03-29"))
        await provider.disconnect()

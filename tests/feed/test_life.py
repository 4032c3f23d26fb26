"""The life of symbols: delisted ones keep their history, a reused ticker never joins two assets."""

import polars as pl
import pytest

from connections.rows import read_logs
from core.clock import DAY_US, HOUR_US, MINUTE_US, parse_instant, to_datetime
from core.errors import InputError
from core.interval import Interval
from core.series import Series
from feed.backfill import backfill, register
from feed.fetch import fetch
from feed.life import rename, say_anew, say_same
from feed.repair import repair
from providers.base import SymbolInfo
from storage.coverage import coverage
from storage.ledger import list_gaps
from storage.listings import list_listings
from storage.metadata.tables import notifications

START = 1_704_067_200_000_000  # 2024-01-01
OTHER = SymbolInfo("ETH/USDT")


def life(feed):
    with feed.lake.metadata.read() as tx:
        return {listing.symbol: listing for _, listing in list_listings(tx)}


def kinds(feed):
    with feed.lake.metadata.read() as tx:
        return [row["kind"] for row in tx.execute(notifications.select()).mappings()]


async def delisted(make_feed, series, clock, candles_of, **info):
    """Return a feed whose symbol was listed, stored and delisted."""
    feed, provider = make_feed(candles_of(600), listed=[SymbolInfo("BTC/USDT", **info), OTHER], page=6000)
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    assert life(feed)["BTC/USDT"].status == "listed"
    provider.truth = provider.truth.head(100)
    provider.listed = [OTHER]
    clock.set(START + 2 * DAY_US)
    await fetch(feed, due_only=False)
    assert life(feed)["BTC/USDT"].status == "missing"  # one list that lacks it proves nothing
    clock.set(START + 2 * DAY_US + 2 * HOUR_US)
    await fetch(feed, due_only=False)
    assert life(feed)["BTC/USDT"].status == "delisted"
    return feed, provider


async def test_a_delisted_symbol_keeps_its_history_and_is_asked_for_no_more(make_feed, series, clock, candles_of) -> None:
    """What follows the last candle is after_delisting, the candles stay, people are told once, no request goes out."""
    feed, provider = await delisted(make_feed, series, clock, candles_of)
    assert life(feed)["BTC/USDT"].delisted_us == START + 100 * MINUTE_US
    provider.asked.clear()
    await fetch(feed, due_only=False)
    await repair(feed)
    assert provider.asked == []
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 100
    assert kinds(feed) == ["delisted"]
    with feed.lake.metadata.read() as tx:
        booked = [gap for gap in list_gaps(tx) if gap.interval.start >= START + 100 * MINUTE_US]
        assert {gap.cause for gap in booked} == {"after_delisting"}
        assert any("no longer listed" in line.message for line in read_logs(tx, "played", 50))
    assert coverage(feed.lake)[0].unexplained == 0


@pytest.mark.parametrize("shown", [[], [SymbolInfo("BTC/USDT")]])
async def test_an_empty_list_delists_nothing(make_feed, series, clock, candles_of, shown) -> None:
    """Lists that are empty, however often, are not believed; and what stays listed stays."""
    feed, provider = make_feed(candles_of(600), page=6000)
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    provider.listed = shown
    for day in (2, 3, 4):
        clock.set(START + day * DAY_US)
        await fetch(feed, due_only=False)
    assert life(feed)["BTC/USDT"].status == "listed"


async def test_a_reused_ticker_is_refused_until_a_person_decides_and_never_joined(make_feed, series, clock, candles_of) -> None:
    """The ticker comes back for another asset: nothing is stored under it; `anew` keeps both apart for ever."""
    feed, provider = await delisted(make_feed, series, clock, candles_of)
    reborn = candles_of(3000, START + 3 * DAY_US).with_columns(pl.col("open", "high", "low", "close") * 50)
    provider.truth, provider.listed = reborn, [SymbolInfo("BTC/USDT", market_id="new"), OTHER]
    clock.set(START + 3 * DAY_US + 500 * MINUTE_US)
    result = await fetch(feed, due_only=False)
    assert result.status == "failed"
    assert "listings anew" in result.message
    assert "\n" not in result.message
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 100
    assert (await repair(feed)).status == "failed"
    made = say_anew(feed, "played", "BTC/USDT")
    assert (made.symbol, made.asked_as, made.generation) == ("BTC/USDT#2", "BTC/USDT", 2)
    result = await fetch(feed, due_only=False)
    assert result.status == "complete", result.message
    old, new = (feed.lake.candles("played", name, "1m") for name in ("BTC/USDT", "BTC/USDT#2"))
    assert old.height == 100
    assert old["close"].max() < 1000 < new["close"].min()
    assert new["ts"].min() >= to_datetime(START + 3 * DAY_US)
    await backfill(feed, Series.parse("played", "BTC/USDT#2", "1m"), Interval(START, START + 3 * DAY_US + 100 * MINUTE_US))
    assert feed.lake.candles("played", "BTC/USDT#2", "1m")["ts"].min() >= to_datetime(START + 3 * DAY_US)
    assert kinds(feed) == ["delisted", "ticker_reused"]


async def test_the_same_asset_goes_on(make_feed, series, clock, candles_of) -> None:
    """A symbol that was only away: after `same` the series goes on, and what was booked as after_delisting is asked for."""
    feed, provider = await delisted(make_feed, series, clock, candles_of)
    provider.truth, provider.listed = candles_of(5000), [SymbolInfo("BTC/USDT"), OTHER]
    clock.set(START + 3 * DAY_US + 200 * MINUTE_US)
    assert (await fetch(feed, due_only=False)).status == "failed"
    say_same(feed, "played", "BTC/USDT")
    await fetch(feed, due_only=False)
    await repair(feed)
    held = feed.lake.candles("played", "BTC/USDT", "1m").select(provider.truth.columns)
    assert held.equals(provider.truth.head(held.height))
    assert held.height == 3 * 1440 + 200
    with pytest.raises(InputError, match="nothing to decide"):
        say_same(feed, "played", "BTC/USDT")


@pytest.mark.parametrize(("before", "after"), [
    ({"market_id": "a1"}, {"market_id": "b2"}),
    ({"listed_us": parse_instant("2020-01-01")}, {"listed_us": parse_instant("2023-12-30")}),
])
async def test_another_market_under_a_ticker_that_never_left_is_seen(
    make_feed, series, clock, candles_of, *, before, after,
) -> None:
    """A market id or a listing date that changes under a ticker stops its series at once."""
    feed, provider = make_feed(candles_of(5000), listed=[SymbolInfo("BTC/USDT", **before)])
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    provider.listed = [SymbolInfo("BTC/USDT", **after)]
    clock.set(START + 2 * DAY_US)
    result = await fetch(feed, due_only=False)
    assert result.status == "failed"
    assert "another asset" in result.message
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 100


async def test_a_halted_market_goes_on_by_itself(make_feed, series, clock, candles_of) -> None:
    """A market that is listed but halted for two weeks counts as delisted meanwhile and goes on without a person."""
    feed, provider = make_feed(candles_of(30_000), listed=[SymbolInfo("BTC/USDT", is_active=True), OTHER], page=30_000)
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    whole, provider.truth = provider.truth, provider.truth.head(100)
    provider.listed = [SymbolInfo("BTC/USDT", is_active=False), OTHER]
    for day in (2, 5, 10, 14):
        clock.set(START + day * DAY_US)
        await fetch(feed, due_only=False)
    assert life(feed)["BTC/USDT"].status == "delisted"
    provider.truth, provider.listed = whole, [SymbolInfo("BTC/USDT"), OTHER]
    clock.set(START + 16 * DAY_US)
    await fetch(feed, due_only=False)
    assert life(feed)["BTC/USDT"].status == "listed"
    assert feed.lake.candles("played", "BTC/USDT", "1m").height > 100


async def test_a_renamed_symbol_goes_on_under_its_old_name(make_feed, series, clock, candles_of) -> None:
    """After `rename` the provider is asked for the new name and the series is one; a name that is taken is refused."""
    feed, provider = make_feed(candles_of(600))
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    provider.named, provider.listed = {"XBT/USDT": "BTC/USDT"}, [SymbolInfo("XBT/USDT")]
    rename(feed, "played", "BTC/USDT", "XBT/USDT")
    clock.set(START + 300 * MINUTE_US)
    result = await fetch(feed, due_only=False)
    assert result.status == "complete", result.message
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 300
    assert life(feed)["BTC/USDT"].asked_as == "XBT/USDT"
    register(feed, Series.parse("played", "ETH/USDT", "1m"))
    with pytest.raises(InputError, match="never joined"):
        rename(feed, "played", "ETH/USDT", "XBT/USDT")


async def test_before_a_named_listing_nothing_is_asked(make_feed, series, clock, candles_of) -> None:
    """When the provider itself says since when a market is listed, what lies before is before_listing without a request."""
    listed = START + 60 * MINUTE_US
    feed, provider = make_feed(candles_of(200, listed), listed=[SymbolInfo("BTC/USDT", listed_us=listed)])
    clock.set(START + DAY_US)
    result = await backfill(feed, series, Interval(START - 30 * DAY_US, listed + 200 * MINUTE_US))
    assert (result.status, result.stored) == ("complete", 200)
    assert min(page.start for page in provider.asked) >= listed
    with feed.lake.metadata.read() as tx:
        assert {gap.cause for gap in list_gaps(tx)} == {"before_listing"}

"""Every expected slot is stored or caused rightly: five causes side by side, real sets with known holes, downtime."""

from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

import sandbox
from connections.inputs import ConnectionInput
from core.calendar import MarketCalendar
from core.clock import DAY_US, HOUR_US, MINUTE_US, ManualClock, parse_instant, to_datetime
from core.interval import Interval
from core.series import Series
from core.settings import Settings
from feed import Feed, open_feed
from feed.backfill import backfill
from feed.calendar_learning import learn_calendar
from feed.fetch import fetch
from feed.repair import repair
from storage.calendars import put_calendar
from storage.coverage import coverage
from storage.ledger import list_gaps

DATA = Path(sandbox.__file__).parent / "data"
NEW_YORK = ZoneInfo("America/New_York")
THURSDAY = parse_instant("2024-01-04T12:00")
FRIDAY_END, SUNDAY_OPEN = parse_instant("2024-01-05T22:00"), parse_instant("2024-01-07T22:00")


def gaps(feed: Feed):
    with feed.lake.metadata.read() as tx:
        return list_gaps(tx)


def causes(feed: Feed, step: int) -> dict[int, str]:
    """Return the cause of every booked slot."""
    return {slot: gap.cause for gap in gaps(feed) for slot in range(gap.interval.start, gap.interval.end, step)}


def is_weekend(us: int) -> bool:
    """Say it by New York's wall clock, without the project's calendar."""
    local = to_datetime(us).astimezone(NEW_YORK)
    return (local.weekday() == 4 and local.hour >= 17) or local.weekday() == 5 or (local.weekday() == 6 and local.hour < 17)


def fx_minutes(candles_of, start: int, end: int) -> pl.DataFrame:
    frame = candles_of((end - start) // MINUTE_US, start)
    return frame.filter(~pl.col("ts").is_between(to_datetime(FRIDAY_END), to_datetime(SUNDAY_OPEN), closed="left"))


@pytest.fixture
def replayed(tmp_path) -> Iterator[tuple[Feed, ManualClock]]:
    """Give a home and its clock, long after all recorded candles."""
    clock = ManualClock(parse_instant("2026-01-07T12:00"))
    with open_feed(Settings(home=tmp_path / "home", settle_seconds=0), clock) as feed:
        yield feed, clock


def add(feed: Feed, slug: str, symbol: str, **config: object) -> Series:
    feed.connections.create(ConnectionInput(
        slug=slug, provider="replay", config={"folder": str(DATA), "prefix": slug, **config}, symbols=(symbol,), timeframes=("1h",)))
    return Series.parse(slug, symbol, "1h")


def recorded(name: str, interval: Interval | None = None) -> set[int]:
    slots = pl.read_parquet(DATA / f"{name}.parquet")["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_list()
    return {us for us in slots if interval is None or us in interval}


async def test_what_a_provider_keeps_no_more_costs_one_request(make_feed, series, clock, candles_of) -> None:
    """A range far older than all that the provider keeps is one entry of the ledger by its first answer; what it keeps is stored."""
    start = THURSDAY - 20 * DAY_US
    feed, provider = make_feed(candles_of(20 * 1440, start), keeps=150)
    clock.set(THURSDAY + HOUR_US)
    await backfill(feed, series, Interval(start, THURSDAY))
    with feed.lake.metadata.read() as tx:
        (gap,) = list_gaps(tx)
    assert (gap.cause, gap.interval) == ("out_of_reach", Interval(start, THURSDAY - 150 * MINUTE_US))
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 150
    assert len(provider.asked) <= 4


async def test_five_causes_and_only_the_outage_is_repaired(make_feed, series, clock, candles_of) -> None:
    """Outage, quiet minute, weekend, listing and out of reach are told apart; only the outage is asked for again and filled."""
    end = SUNDAY_OPEN + 4 * HOUR_US
    quiet, outage = THURSDAY + 10 * HOUR_US, Interval(THURSDAY + 20 * HOUR_US, THURSDAY + 21 * HOUR_US)
    truth = fx_minutes(candles_of, THURSDAY, end).filter(pl.col("ts") != to_datetime(quiet))
    feed, provider = make_feed(truth, market_type="fx", down=outage)
    clock.set(end + DAY_US)
    await backfill(feed, series, Interval(THURSDAY - DAY_US, end))
    provider.keeps = 1500  # from now on it keeps only its newest candles
    await backfill(feed, series, Interval(THURSDAY - DAY_US - HOUR_US, THURSDAY - DAY_US))
    provider.keeps, provider.down = None, None
    clock.set(clock.now_us() + HOUR_US)
    booked = causes(feed, MINUTE_US)
    assert {booked[us] for us in range(outage.start, outage.end, MINUTE_US)} == {"fetch_failed"}
    assert booked[THURSDAY - 13 * HOUR_US] == booked[THURSDAY - HOUR_US] == "provider_empty"  # one look proves no listing
    assert booked[THURSDAY - DAY_US - HOUR_US] == "out_of_reach"
    assert booked[quiet] == "provider_empty"  # seen once
    provider.asked.clear()
    result = await repair(feed)
    assert result.status == "complete_with_gaps"  # out of reach stays a gap that a person may wonder about
    after = causes(feed, MINUTE_US)
    assert after[THURSDAY - 13 * HOUR_US] == "before_listing"
    assert [after[us] for us in (THURSDAY - HOUR_US, quiet, FRIDAY_END + HOUR_US, THURSDAY - DAY_US - HOUR_US)] == [
        "before_listing", "no_trade", "market_closed", "out_of_reach"]
    assert not any(us in after for us in range(outage.start, outage.end, MINUTE_US))
    stored = feed.lake.candles("played", "BTC/USDT", "1m")
    assert stored.select(truth.columns).equals(truth)
    first_day = THURSDAY - DAY_US  # one look proves no listing: it is looked at twice as well; what is out of reach is not
    minutes = [page for page in provider.asked if page.end - page.start <= 100 * MINUTE_US]  # longer ones are witnesses
    assert all(first_day <= page.start and page.end <= outage.end + 3 * HOUR_US for page in minutes)
    (row,) = coverage(feed.lake)
    assert row.unexplained == 0
    assert row.expected == row.stored + row.explained
    clock.set(clock.now_us() + 90 * DAY_US)
    provider.asked.clear()
    await repair(feed)
    assert provider.asked == []


async def test_binance_every_hour_is_stored_or_an_outage(replayed) -> None:
    """Six years of hours with 28 outages: all 128 missing hours are proved, and learned as outages become closed time."""
    feed, clock = replayed
    series = add(feed, "binance", "BTCUSDT", market_type="crypto")
    have = recorded("binance_BTCUSDT_1h")
    first, last = min(have), max(have)
    missing = set(range(first, last, HOUR_US)) - have
    assert len(missing) == 128
    await backfill(feed, series, Interval(first, last + HOUR_US))
    assert causes(feed, HOUR_US) == dict.fromkeys(missing, "provider_empty")
    clock.set(clock.now_us() + HOUR_US)
    result = await repair(feed)
    assert result.status == "complete"
    assert causes(feed, HOUR_US) == dict.fromkeys(missing, "no_trade")
    assert all(gap.proof["both_sides"] and gap.proof["again_us"] > gap.proof["sighted_us"] for gap in gaps(feed))
    learned = learn_calendar(feed, "binance")
    assert len(learned.calendar.closures) == 28
    with feed.lake.metadata.write() as tx:
        put_calendar(tx, feed.connections.get("binance").id, "", learned.calendar, origin="learned", now_us=clock.now_us())
    result = await repair(feed)
    assert sum(item.requests for item in result.series) == 0
    assert causes(feed, HOUR_US) == dict.fromkeys(missing, "market_closed")
    assert {gap.proof["calendar"] for gap in gaps(feed)} == {"outage"}
    (row,) = coverage(feed.lake)
    assert (row.expected, row.stored, row.explained, row.unexplained) == (len(have) + 128, len(have), 128, 0)


async def test_fx_across_christmas_and_summer_time(replayed) -> None:
    """Two years of FX hours: weekends by New York's clock are closed, Christmas is proved, then learned as a holiday."""
    feed, clock = replayed
    series = add(feed, "oanda", "EURUSD")
    span = Interval.parse("2013-02-01", "2015-04-20")
    have = recorded("oanda_EURUSD_H1", span)
    missing = set(range(span.start, span.end, HOUR_US)) - have
    weekends = {us for us in missing if is_weekend(us)}
    others = missing - weekends
    assert len(others) == 4 * 27  # two Christmases, two New Years
    await backfill(feed, series, span)
    clock.set(clock.now_us() + HOUR_US)
    assert (await repair(feed)).status == "complete"
    assert causes(feed, HOUR_US) == {**dict.fromkeys(weekends, "market_closed"), **dict.fromkeys(others, "no_trade")}
    learned = learn_calendar(feed, "oanda", "EURUSD")
    assert learned.calendar.as_spec()["weekly"] == [{"from": "Fri 17:00", "to": "Sun 17:00", "why": "weekend"}]
    with feed.lake.metadata.write() as tx:
        put_calendar(tx, feed.connections.get("oanda").id, "EURUSD", learned.calendar, origin="learned", now_us=clock.now_us())
    await repair(feed)
    assert set(causes(feed, HOUR_US)) == missing
    assert {gap.proof["calendar"] for gap in gaps(feed) if gap.cause == "market_closed"} == {
        "weekend", "Christmas Eve", "New Year's Eve"}
    assert all(gap.cause == "market_closed" for gap in gaps(feed))
    (row,) = coverage(feed.lake)
    assert (row.stored, row.unexplained) == (len(have), 0)


async def test_closed_time_that_a_person_opens_is_asked_for(make_feed, series, clock, candles_of) -> None:
    """A calendar that is edited later: what was booked as closed and is open now is asked for and stored."""
    truth = candles_of(300)
    feed, _ = make_feed(truth)
    first = int(truth["ts"].dt.epoch("us")[0])
    closed = MarketCalendar.from_spec({"closed": [{"start": "2024-01-01T01:00", "end": "2024-01-01T02:00", "why": "maintenance"}]})
    clock.set(first + DAY_US)
    with feed.lake.metadata.write() as tx:
        number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        put_calendar(tx, number, "", closed, origin="set", now_us=1)
    await backfill(feed, series, Interval(first, first + 300 * MINUTE_US))
    with feed.lake.metadata.write() as tx:
        put_calendar(tx, number, "", MarketCalendar(), origin="set", now_us=2)
    await repair(feed)
    assert gaps(feed) == []
    assert feed.lake.candles("played", "BTC/USDT", "1m").height == 300


async def test_downtime_over_a_weekend_open_heals_by_itself(make_feed, series, clock, candles_of) -> None:
    """Down from Sunday noon for 19 hours: the first scheduled fetch after it makes the store complete, newest page first."""
    end = SUNDAY_OPEN + 12 * HOUR_US
    truth = fx_minutes(candles_of, THURSDAY, end)
    feed, provider = make_feed(truth, market_type="fx")
    clock.set(FRIDAY_END + 14 * HOUR_US)
    await backfill(feed, series, Interval(THURSDAY, FRIDAY_END))
    await fetch(feed)
    clock.set(SUNDAY_OPEN + 9 * HOUR_US)
    provider.asked.clear()
    result = await fetch(feed)
    assert result.status == "complete"
    assert provider.asked[0].end >= clock.now_us() - 2 * MINUTE_US  # live data first
    expected = truth.filter(pl.col("ts") < to_datetime(clock.now_us()))
    assert feed.lake.candles("played", "BTC/USDT", "1m").select(truth.columns).equals(expected)
    assert {gap.cause for gap in gaps(feed)} == {"market_closed"}
    assert coverage(feed.lake)[0].unexplained == 0


async def test_a_catching_up_that_is_cut_short_is_in_the_ledger(make_feed, series, clock, candles_of) -> None:
    """When the provider goes after the newest page, the hole behind it is booked, and the next fetch fills it."""
    truth = candles_of(1500)
    feed, provider = make_feed(truth)
    first = int(truth["ts"].dt.epoch("us")[0])
    clock.set(first + 60 * MINUTE_US)
    await backfill(feed, series, Interval(first, first + 60 * MINUTE_US))
    clock.set(first + 1300 * MINUTE_US)
    provider.answers_left = 1
    assert (await fetch(feed)).status == "failed"
    row, = coverage(feed.lake)
    assert row.stored < 300
    assert row.expected == row.stored + row.explained + row.unexplained == 1300
    held = {gap.cause for gap in gaps(feed)}
    assert held <= {"unknown", "fetch_failed"}
    assert held
    provider.answers_left = None
    clock.set(first + 1301 * MINUTE_US)
    await fetch(feed)
    clock.set(first + 1330 * MINUTE_US)
    await repair(feed)
    await fetch(feed, due_only=False)
    assert gaps(feed) == []
    assert feed.lake.candles("played", "BTC/USDT", "1m").select(truth.columns).equals(truth.head(1330))


async def test_a_long_silence_does_not_stop_live_fetches(make_feed, series, clock, candles_of) -> None:
    """Silence longer than a page, then candles again: the live fetch gets past it and books it."""
    truth = candles_of(1000).filter(~pl.col("ts").is_between(
        to_datetime(1_704_067_200_000_000 + 100 * MINUTE_US), to_datetime(1_704_067_200_000_000 + 500 * MINUTE_US), closed="left"))
    feed, _ = make_feed(truth)
    start = 1_704_067_200_000_000
    clock.set(start + 100 * MINUTE_US)
    await backfill(feed, series, Interval(start, start + 100 * MINUTE_US))
    for minute in range(150, 1000, 50):
        clock.set(start + minute * MINUTE_US)
        await fetch(feed)
    held = feed.lake.candles("played", "BTC/USDT", "1m").select(truth.columns)
    assert held.equals(truth.filter(pl.col("ts") < to_datetime(start + 950 * MINUTE_US)))


async def test_a_silence_longer_than_a_page_is_proved_by_volume(make_feed, series, clock, candles_of) -> None:
    """Where no page can hold both sides, the hourly candles prove the silence: their volume is whole, twice, apart in time."""
    start = 1_704_067_200_000_000
    hole = Interval(start + 130 * MINUTE_US, start + 470 * MINUTE_US)
    truth = candles_of(900).filter(
        ~pl.col("ts").is_between(to_datetime(hole.start), to_datetime(hole.end), closed="left")).with_columns(volume=pl.col("volume") + 1)
    feed, _ = make_feed(truth)
    span = Interval(start, start + 900 * MINUTE_US)
    clock.set(start + DAY_US)
    await backfill(feed, series, span)
    assert set(causes(feed, MINUTE_US).values()) == {"provider_empty"}
    clock.set(start + 2 * DAY_US)
    result = await backfill(feed, series, span)
    booked = causes(feed, MINUTE_US)
    assert booked == dict.fromkeys(range(hole.start, hole.end, MINUTE_US), "no_trade")
    assert result.status == "complete"
    assert {gap.proof.get("adds_up") for gap in gaps(feed)} == {"1h"}

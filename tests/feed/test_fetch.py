"""feed.fetch and feed.repair: what has closed since, with an overlap, never a partial candle, never a silent hole."""

import polars as pl

from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, to_datetime
from core.errors import ProviderUnavailableError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from core.unreadable import UNREADABLE
from feed.backfill import backfill
from feed.fetch import SOON_SECONDS, due_series, fetch, seconds_until_due
from feed.repair import repair
from storage.coverage import coverage
from storage.head import Batch
from storage.ledger import list_gaps
from storage.series import list_series
from storage.ticks.states import StreamState, write_state

START = 1_704_067_200_000_000  # 2024-01-01


def stored(feed):
    return feed.lake.candles("played", "BTC/USDT", "1m").select("ts", "open", "high", "low", "close", "volume", "spread")


def gaps(feed):
    with feed.lake.metadata.read() as tx:
        return list_gaps(tx)


async def begin(make_feed, series, clock, truth, **options):
    feed, provider = make_feed(truth, **options)
    clock.set(START + 60 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 60 * MINUTE_US))
    provider.asked.clear()
    return feed, provider


async def test_a_fetch_stores_what_has_closed_since(make_feed, series, clock, candles_of) -> None:
    """Only candles that have closed are added, with one request, and the series is due again at the next close."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    clock.set(START + 63 * MINUTE_US + 30 * SECOND_US)
    result = await fetch(feed)
    assert (result.status, result.stored, result.revised) == ("complete", 3, 0)
    assert stored(feed).equals(provider.truth.head(63))
    assert len(provider.asked) == 1
    assert due_series(feed, "played") == []
    clock.set(START + 64 * MINUTE_US)
    assert len(due_series(feed, "played")) == 1


async def test_a_fetch_without_news_writes_nothing(make_feed, series, clock, candles_of) -> None:
    """The overlap is read again and found unchanged."""
    feed, _ = await begin(make_feed, series, clock, candles_of(500))
    result = await fetch(feed, due_only=False)
    assert (result.stored, result.revised) == (0, 0)


async def test_a_provider_whose_clock_fell_far_back_fails_the_fetch_and_says_so(make_feed, series, clock, candles_of) -> None:
    """Its newest candles are rows of its own future: a run that takes none of them is not called complete. Later all of them come."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    clock.set(START + 90 * MINUTE_US)
    provider.stands_us = START + 59 * MINUTE_US  # a bridge's clock that stands at its last quote is none that fell back
    assert (await fetch(feed, due_only=False)).status == "complete"
    provider.stands_us = START + 30 * MINUTE_US
    result = await fetch(feed, due_only=False)
    assert (result.status, result.stored, result.quarantined) == ("failed", 0, 0)
    assert "it is 2024-01-01T00:30:00" in result.message
    assert "until its clock is right again" in result.message
    assert gaps(feed) == []
    provider.stands_us = None
    clock.set(START + 2 * HOUR_US)
    assert (await fetch(feed, ["played"], due_only=False)).status == "complete"
    assert stored(feed).equals(provider.truth.head(120))


async def test_a_fetch_leaves_the_time_before_the_first_candle_alone(make_feed, series, clock, candles_of) -> None:
    """However far back a page reaches, closed time before the first stored candle is not booked: nothing before it is expected."""
    feed, _ = make_feed(candles_of(3 * 1440), market_type="fx", page=50_000)
    begin_us = START + DAY_US
    clock.set(begin_us + HOUR_US)
    await backfill(feed, series, Interval(begin_us, begin_us + HOUR_US))
    clock.set(begin_us + HOUR_US + 3 * MINUTE_US)
    assert (await fetch(feed)).stored == 3
    assert [gap for gap in gaps(feed) if gap.interval.start < begin_us] == []
    (row,) = coverage(feed.lake, "played")
    assert (row.expected, row.unexplained) == (63, 0)


async def test_a_session_that_ends_badly_hides_nothing_of_what_it_stored(make_feed, series, clock, candles_of) -> None:
    """The run has failed and says so, and still tells what it stored and revised before: counts, changed range, log lines."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    clock.set(START + 63 * MINUTE_US)
    provider.truth = provider.truth.with_columns(
        close=pl.when(pl.col("ts") == to_datetime(START + 59 * MINUTE_US)).then(pl.col("high")).otherwise(pl.col("close")))
    feed.connections.ends_with = ProviderUnavailableError("gone at the end")
    result = await fetch(feed)
    assert (result.status, result.exit_code, result.stored, result.revised) == ("failed", 1, 3, 1)
    assert "gone at the end" in result.message
    assert [item.changed.end for item in result.series if item.changed] == [START + 62 * MINUTE_US + 1]
    assert stored(feed).height == 63


async def test_a_change_in_the_overlap_is_a_revision(make_feed, series, clock, candles_of) -> None:
    """A stored candle that the provider changed reads new now and old as of before."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    before = to_datetime(clock.now_us())
    clock.set(START + 61 * MINUTE_US)
    provider.truth = provider.truth.with_columns(
        close=pl.when(pl.col("ts") == to_datetime(START + 59 * MINUTE_US)).then(pl.col("high")).otherwise(pl.col("close")))
    result = await fetch(feed)
    assert (result.stored, result.revised) == (1, 1)
    assert stored(feed).equals(provider.truth.head(61))
    old = feed.lake.candles("played", "BTC/USDT", "1m", as_of=before)
    assert old.height == 60
    assert old["close"][-1] != provider.truth["close"][59]


async def test_a_late_candle_is_not_booked_and_comes_with_the_next_fetch(make_feed, series, clock, candles_of) -> None:
    """A provider that publishes 90 s late yields no partial candle and no gap; the candle is stored when it is there."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    provider.late_us = 150 * SECOND_US
    clock.set(START + 62 * MINUTE_US)
    assert (await fetch(feed)).stored == 0
    assert gaps(feed) == []
    clock.set(START + 65 * MINUTE_US)
    await fetch(feed)
    assert stored(feed).equals(provider.truth.head(stored(feed).height))
    assert stored(feed).height > 60


async def test_downtime_is_caught_up_in_pages(make_feed, series, clock, candles_of) -> None:
    """After hours of standing still one fetch gets everything, in as many pages as it takes."""
    feed, provider = await begin(make_feed, series, clock, candles_of(1500))
    clock.set(START + 1300 * MINUTE_US)
    result = await fetch(feed)
    assert result.status == "complete"
    assert stored(feed).equals(provider.truth.head(1300))


async def test_a_recent_hole_is_filled_by_the_next_fetch(make_feed, series, clock, candles_of) -> None:
    """A hole in the middle that one request reaches is asked for with the newest candles."""
    truth = candles_of(500)
    feed, provider = await begin(make_feed, series, clock, truth)
    with feed.lake.metadata.write() as tx:
        tx.exec_driver_sql("DELETE FROM gaps")
    provider.truth = truth
    hole = truth.filter(~pl.col("ts").is_between(
        to_datetime(START + 70 * MINUTE_US), to_datetime(START + 75 * MINUTE_US), closed="left"))
    provider.truth = hole
    clock.set(START + 80 * MINUTE_US)
    await fetch(feed)
    assert stored(feed).height == 75
    provider.truth = truth
    clock.set(START + 2 * HOUR_US)
    await fetch(feed)
    assert stored(feed).equals(truth.head(120))
    assert gaps(feed) == []


async def test_one_bad_connection_fails_alone_and_says_so(make_feed, series, clock, candles_of) -> None:
    """An error is in the result with the series' name, and the run is failed, not short."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    provider.error = ProviderUnavailableError("gateway says no")
    clock.set(START + 70 * MINUTE_US)
    result = await fetch(feed)
    assert result.status == "failed"
    assert "gateway says no" in result.message
    assert result.as_dict()["series"][0]["error"] == "gateway says no"


async def test_what_a_stream_told_before_it_ended_is_confirmed_by_the_next_fetch(make_feed, series, clock, candles_of) -> None:
    """A stream that dies before REST has confirmed its candles: the fetch reads them again, further back than the overlap, and once only."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    with feed.lake.metadata.read() as tx:
        (row,) = list_series(tx)
    wrong = provider.truth.slice(60, 30).with_columns(close=pl.col("open"), volume=pl.col("volume") + 1.0)
    clock.set(START + 90 * MINUTE_US)
    feed.lake.write([Batch(row.id, wrong, "stream")], run_id="stream-1")
    with feed.lake.metadata.write() as tx:
        write_state(tx, row.connection_id, StreamState("played", "stream-1", "live", None, START, clock.now_us()))
    clock.set(START + 100 * MINUTE_US)
    result = await fetch(feed)
    assert (result.stored, result.revised) == (10, 30)
    assert stored(feed).equals(provider.truth.head(100))
    provider.asked.clear()
    clock.set(START + 103 * MINUTE_US)
    assert (await fetch(feed)).stored == 3
    assert provider.asked[0].start > START + 90 * MINUTE_US


async def test_a_damaged_file_fails_its_own_series_alone(make_feed, series, clock, candles_of) -> None:
    """Of two series that one transaction would write, the one whose overlap lies in a damaged file fails with its name; the other is stored."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    hours = Series(series.connection, series.symbol, Timeframe.parse("1h"))
    await backfill(feed, hours, Interval(START, START + 60 * MINUTE_US))
    feed.lake.flush()
    (path,) = feed.lake.root.rglob("timeframe=1m/*/*.parquet")
    good = path.read_bytes()
    path.write_bytes(_with_unreadable_prices(good))
    clock.set(START + 2 * HOUR_US + MINUTE_US)
    result = await fetch(feed, due_only=False)
    assert result.status == "failed"
    told = {item["series"]: item for item in result.as_dict()["series"]}
    assert "cannot read" in told["played BTC/USDT 1m"]["error"]
    assert (told["played BTC/USDT 1h"]["error"], told["played BTC/USDT 1h"]["stored"]) == (None, 1)
    assert feed.lake.candles("played", "BTC/USDT", "1h").height == 2
    assert [row.series.timeframe.name for row in due_series(feed, "played")] == ["1m"]
    path.write_bytes(good)
    assert (await fetch(feed)).status == "complete"
    assert stored(feed).equals(provider.truth.head(121))


def _with_unreadable_prices(good: bytes) -> bytes:
    """Return a file's bytes with one flipped so that its times can still be read and its closes cannot."""
    for place in range(len(good)):
        content = bytes([*good[:place], good[place] ^ 255, *good[place + 1:]])
        try:
            times = pl.read_parquet(content, columns=["ts"])["ts"]
            if not times.equals(pl.read_parquet(good, columns=["ts"])["ts"]):
                continue
        except UNREADABLE:
            continue
        try:
            pl.read_parquet(content, columns=["close"])
        except UNREADABLE:
            return content
    raise AssertionError


async def test_a_second_run_leaves_the_connection_alone(make_feed, series, clock, candles_of) -> None:
    """While one fetch holds the connection's lease another one skips it and says why."""
    feed, _ = await begin(make_feed, series, clock, candles_of(500))
    async with feed.leases.hold("fetch:played", seconds=60):
        result = await fetch(feed, due_only=False)
    assert result.only_skipped
    assert result.status == "complete"
    assert "skipped" in result.message


async def test_repair_fills_the_middle_and_what_is_due(make_feed, series, clock, candles_of) -> None:
    """Rows that never came (a hole without an entry) and booked gaps that are due are filled without being asked."""
    truth = candles_of(1000)
    feed, provider = make_feed(truth)
    clock.set(START + DAY_US)
    await backfill(feed, series, Interval(START, START + 100 * MINUTE_US))
    await backfill(feed, series, Interval(START + 600 * MINUTE_US, START + 700 * MINUTE_US))
    result = await repair(feed)
    assert result.status == "complete"
    assert stored(feed).equals(truth.head(700))
    provider.asked.clear()
    assert (await repair(feed)).stored == 0
    assert provider.asked == []


async def test_closed_time_beyond_what_the_provider_has_reached_waits_for_it(make_feed, series, clock, candles_of) -> None:
    """A provider whose clock stands days behind ours leaves no expected slot between its present and a later weekend unexplained."""
    monday = 1_704_672_000_000_000  # 2024-01-08 00:00 UTC
    feed, provider = make_feed(candles_of(120, monday), market_type="fx")
    clock.set(monday + 2 * HOUR_US)
    await backfill(feed, series, Interval(monday, monday + HOUR_US))
    provider.stands_us = monday + 2 * HOUR_US + 61 * SECOND_US
    clock.set(monday + 16 * DAY_US)
    await fetch(feed, due_only=False)
    (row,) = coverage(feed.lake, "played")
    assert (row.stored, row.expected, row.unexplained) == (120, 120, 0)


async def test_a_fetch_that_books_a_hole_says_so(make_feed, series, clock, candles_of) -> None:
    """Candles that a provider lacks end the fetch complete with booked gaps; a fetch that meets none of them ends complete."""
    truth = candles_of(500)
    feed, provider = await begin(make_feed, series, clock, truth)
    provider.truth = truth.filter(~pl.col("ts").is_between(
        to_datetime(START + 70 * MINUTE_US), to_datetime(START + 75 * MINUTE_US), closed="left"))
    clock.set(START + 80 * MINUTE_US)
    result = await fetch(feed)
    assert (result.status, result.gaps, result.stored, result.exit_code) == ("complete_with_gaps", 1, 15, 3)
    assert result.series[0].absent == {"provider_empty": 5}
    clock.set(START + 82 * MINUTE_US)
    again = await fetch(feed)
    assert (again.status, again.gaps, again.stored) == ("complete", 0, 2)


async def test_a_weekend_is_booked_as_closed_and_not_asked_for(make_feed, series, clock, candles_of) -> None:
    """At an FX broker's weekend nothing is asked, and the weekend is one entry of the ledger however often we look."""
    friday = 1_704_488_400_000_000  # 2024-01-05 21:00 UTC: an hour to the close
    truth = candles_of(60, friday)
    feed, provider = make_feed(truth, market_type="fx")
    clock.set(friday + 60 * MINUTE_US)
    await backfill(feed, series, Interval(friday, friday + 60 * MINUTE_US))
    for hour in (1, 2, 30):
        clock.set(friday + 60 * MINUTE_US + hour * HOUR_US)
        await fetch(feed, due_only=False)
    assert [(gap.cause, gap.interval.start) for gap in gaps(feed)] == [("market_closed", friday + 60 * MINUTE_US)]
    asked = len(provider.asked)
    clock.set(friday + 40 * HOUR_US)
    result = await fetch(feed, due_only=False)
    assert len(provider.asked) == asked
    assert result.status == "complete"


async def test_a_connections_own_settings_win(make_feed, series, clock, candles_of) -> None:
    """A connection may settle later and read more again than the home says."""
    feed, provider = await begin(make_feed, series, clock, candles_of(500))
    feed.connections.settings = {"settle_seconds": 45, "overlap_candles": 0}
    clock.set(START + 61 * MINUTE_US + 30 * SECOND_US)
    provider.asked.clear()
    assert (await fetch(feed, due_only=False)).stored == 0
    assert provider.asked == []
    clock.set(START + 61 * MINUTE_US + 50 * SECOND_US)
    assert (await fetch(feed, due_only=False)).stored == 1


async def test_a_round_on_the_full_minute_waits_for_the_candle_to_settle(make_feed, series, clock, candles_of) -> None:
    """Just after a close the wait is what is left of the settle delay; a candle that is far off is not waited for."""
    feed, _ = await begin(make_feed, series, clock, candles_of(500))
    feed.connections.settings = {"settle_seconds": 5}
    clock.set(START + 62 * MINUTE_US + 6 * SECOND_US)
    await fetch(feed, due_only=False)
    clock.set(START + 63 * MINUTE_US + SECOND_US)
    assert seconds_until_due(feed, ["played"]) == 4.0
    clock.set(START + 62 * MINUTE_US + 30 * SECOND_US)
    assert seconds_until_due(feed, ["played"]) == 0.0
    clock.set(START + 63 * MINUTE_US + 5 * SECOND_US)
    assert seconds_until_due(feed, ["played"]) == 0.0
    assert SOON_SECONDS < 60

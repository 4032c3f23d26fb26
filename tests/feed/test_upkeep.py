"""feed.upkeep: retention by home, connection or request; flush, verify."""

import pytest

from core.clock import DAY_US, MINUTE_US
from core.errors import InputError, StoreCorruptError
from core.interval import Interval
from core.ticks import Tick, frame_of
from feed import upkeep
from feed.backfill import backfill
from feed.tick_candles import candle_frame
from storage.head import Batch
from storage.series import list_series

START = 1_704_067_200_000_000  # 2024-01-01


@pytest.fixture
async def filled(make_feed, series, clock, candles_of):
    """Three days of minutes, flushed."""
    feed, _ = make_feed(candles_of(3 * 1440), page=1000)
    clock.set(START + 3 * DAY_US)
    await backfill(feed, series, Interval(START, START + 3 * DAY_US))
    return feed


async def test_without_a_retention_everything_is_kept(filled) -> None:
    """No retention anywhere: an empty plan, and applying it removes nothing."""
    plan = upkeep.plan_cleanup(filled)
    assert (plan.rows, dict(plan.retention_days)) == (0, {})
    assert upkeep.apply_cleanup(filled, plan).rows == 0
    assert filled.lake.candles("played", "BTC/USDT", "1m").height == 3 * 1440


async def test_a_plan_changes_nothing_and_applying_cuts_exactly(filled) -> None:
    """What is older than the retention goes, to the minute; a second time there is nothing to do."""
    plan = upkeep.plan_cleanup(filled, 1)
    assert plan.rows == 2 * 1440
    assert filled.lake.candles("played", "BTC/USDT", "1m").height == 3 * 1440
    assert upkeep.apply_cleanup(filled, plan).rows == 2 * 1440
    left = filled.lake.candles("played", "BTC/USDT", "1m")
    assert left.height == 1440
    assert left["ts"].dt.epoch("us")[0] == START + 2 * DAY_US
    assert upkeep.apply_cleanup(filled, plan).rows == 0
    assert upkeep.plan_cleanup(filled, 1).rows == 0
    assert upkeep.verify(filled).problems == []


async def test_a_connections_own_retention_wins_over_the_homes(filled) -> None:
    """The connection's own days count; what is asked for counts before both."""
    filled.connections.settings = {"retention_days": 2}
    assert upkeep.retentions(filled) == {"played": 2}
    assert upkeep.plan_cleanup(filled).rows == 1440
    assert upkeep.retentions(filled, 1) == {"played": 1}


@pytest.mark.parametrize("days", [0, -1, 36_501])
async def test_absurd_retentions_are_refused(make_feed, candles_of, days) -> None:
    """A retention of nothing would remove everything: it is an error, not a cleanup."""
    feed, _ = make_feed(candles_of(1))
    with pytest.raises(InputError, match="0 would remove everything"):
        upkeep.plan_cleanup(feed, days)


async def test_flush_moves_the_head_and_writes_the_catalog(make_feed, series, clock, candles_of) -> None:
    """After a flush DuckDB reads the candles from the catalog file, and flushing again does nothing."""
    import duckdb

    from feed.fetch import fetch

    feed, _ = make_feed(candles_of(200))
    clock.set(START + 100 * MINUTE_US)
    await backfill(feed, series, Interval(START, START + 50 * MINUTE_US))
    await fetch(feed, due_only=False)
    upkeep.flush(feed)
    with duckdb.connect(str(feed.lake.root / "candlelake.duckdb"), read_only=True) as db:
        assert db.execute("SELECT count(*) FROM all_candles").fetchone() == (100,)
    assert upkeep.flush(feed).rows == 0


async def test_flush_takes_ticks_along_and_joins_days_that_are_over(filled) -> None:
    """What ended journals hold lies in one file for each day after it, the same ticks, also for plain readers."""
    lake = filled.lake
    for part in range(3):
        writer = lake.tick_store.open_journal("played", ["A/B"])
        ticks = [Tick("A/B", us, us, None, None, 1.0, 2.0, "buy", str(us)) for us in range(START + part, START + DAY_US + part, DAY_US // 40)]
        writer.append(frame_of(ticks, "stream", "r"), START + DAY_US)
        writer.close()
        upkeep.flush(filled)
    assert lake.ticks("played", "A/B").height == 120
    files = lake.sql("SELECT path, date FROM tick_files").to_dicts()
    assert len(files) == len({row["date"] for row in files}) == 1
    assert lake.verify().problems == []


@pytest.mark.parametrize("cut", [False, True])
async def test_a_damaged_file_stops_its_own_series_alone(filled, cut) -> None:
    """With a file altered or cut short a flush still takes in ticks and writes the catalog, keeps all candles, and then names the file."""
    path = next((filled.lake.root / "candles").rglob("*.parquet"))
    good = path.read_bytes()
    path.write_bytes(good[:len(good) // 2] if cut else bytes([*good[:50], good[50] ^ 1, *good[51:]]))
    with filled.lake.metadata.read() as tx:
        (series_id,) = [row.id for row in list_series(tx)]
    late = candle_frame([(START + 3 * DAY_US, 1.0, 2.0, 0.5, 1.5, 3.0, None)])
    filled.lake.write([Batch(series_id, late, "rest")], run_id="late")
    at = START + MINUTE_US
    journal = filled.lake.tick_store.open_journal("played", ["BTC/USDT"])
    journal.append(frame_of([Tick("BTC/USDT", at, at, None, None, 1.0, 2.0, "buy", "1")], "stream", "r"), at)
    journal.close()
    catalog = filled.lake.root / "catalog" / "series.parquet"
    before = catalog.stat().st_mtime_ns if catalog.exists() else 0
    with pytest.raises(StoreCorruptError, match=path.name):
        upkeep.flush(filled)
    assert len(list((filled.lake.root / "ticks").rglob("*.parquet"))) == 1
    assert catalog.stat().st_mtime_ns > before
    path.write_bytes(good)
    assert upkeep.flush(filled).rows == 1
    assert filled.lake.candles("played", "BTC/USDT", "1m").height == 3 * 1440 + 1
    assert upkeep.verify(filled).problems == []

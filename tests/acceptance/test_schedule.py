"""Each series is asked for as often as it must be, and a day without the machine heals by itself."""

import os
from collections import Counter

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from core.clock import DAY_US, HOUR_US, MINUTE_US, ManualClock, to_us
from core.settings import Settings
from feed import open_feed
from feed.fetch import due_series, fetch
from feed.repair import repair
from tests.acceptance.conftest import COLUMNS, START, real_minutes

SETTLE_US = 5_000_000
HOURS = int(os.environ.get("CANDLELAKE_TEST_HOURS", "5"))  # of the simulated day, its midnight included


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_hours_of_minutely_fetches(tmp_path, home) -> None:
    """Over simulated hours of a day (all 24 by CANDLELAKE_TEST_HOURS) of one fetch a minute, 1m is asked for every minute and 1h every hour, and every candle is stored."""
    truth = real_minutes(2 * 1440)
    hours = truth.group_by_dynamic("ts", every="1h").agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(), pl.col("volume").sum())
    folder = tmp_path / "files"
    folder.mkdir()
    truth.write_parquet(folder / "real_BTCUSD_1m.parquet")
    hours.write_parquet(folder / "real_BTCUSD_1h.parquet")
    begin = START + DAY_US - HOURS // 2 * HOUR_US
    clock = ManualClock(begin + SETTLE_US)
    with open_feed(Settings(settle_seconds=5), clock) as feed:
        feed.connections.create(ConnectionInput(
            slug="files", name="files", provider="replay", symbols=("BTCUSD",), timeframes=("1m", "1h"),
            config={"folder": str(folder), "market_type": "crypto"}))
        asked: Counter[str] = Counter()
        for minute in range(60 * HOURS + 1):
            clock.set(begin + minute * MINUTE_US + SETTLE_US)
            asked.update(row.series.timeframe.name for row in due_series(feed, "files"))
            result = await fetch(feed)
            assert result.status != "failed", result.message
        assert asked == {"1m": 60 * HOURS + 1, "1h": HOURS + 1}
        end = clock.now_us() - SETTLE_US
        for name, source, length in (("1m", truth, MINUTE_US), ("1h", hours, HOUR_US)):
            held = feed.lake.candles("files", "BTCUSD", name).select(COLUMNS)
            us = source["ts"].dt.epoch("us")
            expected = source.filter((us >= begin) & (us + length <= end))
            assert held.filter(pl.col("ts") >= expected["ts"][0]).equals(expected)


@pytest.mark.slow
async def test_nineteen_hours_of_downtime_heal(source, serve, home) -> None:
    """After 19 hours off, one fetch and one repair leave no candle missing, at a few requests."""
    truth = source(4 * 1440)
    clock = ManualClock(START + DAY_US)
    box = serve(clock)
    with open_feed(Settings(), clock) as feed:
        feed.connections.create(ConnectionInput(
            slug="binance", name="Binance", provider="ccxt:binance", base_url=box.url, symbols=("BTC/USDT",), timeframes=("1m",)))
        for _ in range(3):
            assert (await fetch(feed)).status != "failed"
            clock.set(clock.now_us() + MINUTE_US)
        clock.set(clock.now_us() + 19 * HOUR_US)
        asked = len(box.requests)
        assert (await fetch(feed)).status != "failed"
        healed = await repair(feed)
        assert healed.status != "failed", healed.message
        assert sum(item.path.endswith("/klines") for item in box.requests[asked:]) <= 6
        held = feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS)
        first, last = to_us(held["ts"][0]), to_us(held["ts"][-1])
        assert last >= clock.now_us() - 3 * MINUTE_US - SETTLE_US
        us = truth["ts"].dt.epoch("us")
        assert held.equals(truth.filter((us >= first) & (us <= last)))

"""Real recorded candles go through the real ccxt classes and come back as they were, over many pages."""

from pathlib import Path

import polars as pl
import pytest

import sandbox
from core.clock import HOUR_US, MINUTE_US, to_us
from core.interval import Interval
from core.timeframe import Timeframe

DATA = Path(sandbox.__file__).parent / "data"
FILES = [("binance", "binance_BTCUSDT_1h", "BTC/USDT", "1h"), ("coinbase", "coinbase_BTCUSD_1m", "BTC/USD", "1m"),
         ("kraken", "coinbase_BTCUSD_1m", "BTC/USD", "1m")]


def recorded(name, rows):
    """Return the first `rows` of a file as a frame of candles."""
    frame = pl.read_parquet(DATA / f"{name}.parquet").head(rows)
    return frame.select(pl.col("ts").cast(pl.Datetime("us", "UTC")), "open", "high", "low", "close", "volume")


def serve(venue, clock, frame, length_us):
    """Let the venue hold these candles and stand in the middle of the one after the last."""
    stamps = frame["ts"].dt.epoch("ms").to_list()
    values = frame.drop("ts").rows()
    venue.candles = {ms: tuple(map(repr, row)) for ms, row in zip(stamps, values, strict=True)}
    clock.set(stamps[-1] * 1000 + length_us + length_us // 2)


@pytest.mark.parametrize(("exchange_id", "name", "symbol", "timeframe"), FILES)
async def test_the_file_comes_back(exchange_id, name, symbol, timeframe, opened, venue, clock):  # noqa: PLR0917  fixtures
    """Every candle of the file is read, none is changed to the last digit, and where the file has gaps there are gaps."""
    frame, length_us = recorded(name, 4320), HOUR_US if timeframe == "1h" else MINUTE_US
    serve(venue, clock, frame, length_us)
    end = to_us(frame["ts"][-1]) + length_us
    start = to_us(frame["ts"][0])
    if exchange_id == "kraken":
        start = to_us(frame["ts"][-700])  # no older history there
        frame = frame.tail(700)
    provider = await opened(exchange_id)
    pages = []
    while start < end:
        page = await provider.fetch_candles(symbol, Timeframe.parse(timeframe), Interval(start, end))
        pages.append(page)
        start = page.asked.end
    read = pl.concat([page.candles for page in pages]).drop("spread").unique(maintain_order=True)
    assert read.equals(frame)
    if exchange_id == "binance":
        assert len(frame) < (end - to_us(frame["ts"][0])) // length_us  # the file has gaps, and so has what was read


async def test_the_outage_of_february_2018_stays_a_hole(opened, venue, clock):
    """Binance stood still for 34 hours: nothing is invented there, and the first candle after it is found."""
    frame = recorded("binance_BTCUSDT_1h", 5000)
    serve(venue, clock, frame, HOUR_US)
    provider = await opened("binance")
    page = await provider.fetch_candles("BTC/USDT", Timeframe.parse("1h"), Interval.parse("2018-02-08", "2018-02-10"))
    expected = frame.filter(pl.col("ts").is_between(page.asked.start_at, page.asked.end_at, closed="left"))
    assert page.candles.drop("spread").equals(expected)
    assert 0 < len(expected) <= 48 - 33
    assert page.candles["ts"].diff().max().total_seconds() >= 33 * 3600

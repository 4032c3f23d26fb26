"""A real home with one connection, candles that look like a market, and a pipeline over them."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from connections.inputs import ConnectionInput
from core.candles import CANDLE_SCHEMA
from core.clock import HOUR_US, ManualClock, parse_instant
from core.series import Series
from core.settings import Settings, settings
from core.timeframe import Grid
from feed import Feed, open_feed
from pipeline.stages import Context
from storage.head import Batch
from storage.series import ensure_series

START = parse_instant("2024-01-01")
SERIES = Series.parse("kraken", "BTC/USD", "1h")


def market(count: int, start_us: int = START, step_us: int = HOUR_US, seed: int = 1) -> pl.DataFrame:
    """Return `count` candles of a random walk, hourly unless told otherwise."""
    dice = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(dice.normal(0, 4e-3, count)))
    opens = np.r_[100.0, close[:-1]]
    wick = dice.exponential(1e-3, (2, count))
    return pl.DataFrame({
        "ts": pl.Series(start_us + np.arange(count) * step_us).cast(pl.Datetime("us", "UTC")),
        "open": opens, "high": np.maximum(opens, close) * (1 + wick[0]), "low": np.minimum(opens, close) * (1 - wick[1]),
        "close": close, "volume": dice.exponential(5.0, count), "spread": np.where(np.arange(count) % 7 == 0, np.nan, 0.02),
    }).with_columns(pl.col("spread").fill_nan(None)).cast(dict(CANDLE_SCHEMA)).select(list(CANDLE_SCHEMA))


def definition(name: str = "trend", **changes: object) -> dict:
    """Return a definition with a plug-in in every stage."""
    return {
        "name": name, "lookback": 60, "chapter": 256, "threshold": 50,
        "series": [{"connection": SERIES.connection, "symbol": SERIES.symbol, "timeframe": "1h"}],
        "cleaners": [{"plugin": "ohlc_sanity"}, {"plugin": "outliers", "parameters": {"window": 30}}],
        "filters": [{"plugin": "volume", "parameters": {"min_ratio": 0.05}}, {"plugin": "volatility"}],
        "indicators": [
            {"plugin": "talib", "name": "fast", "parameters": {"function": "EMA", "options": {"timeperiod": 5}}},
            {"plugin": "talib", "name": "slow", "parameters": {"function": "EMA", "options": {"timeperiod": 12}}},
            {"plugin": "talib", "name": "rsi", "parameters": {"function": "RSI"}},
        ],
        "signals": [{"plugin": "crossover", "parameters": {"fast": "fast", "slow": "slow"}}],
        "confidence": [{"plugin": "weighted", "parameters": {"components": [
            {"column": "rsi", "low": 30, "high": 70}, {"column": "volume", "low": 0, "high": 10, "weight": 0.5, "sell": "same"}]}}],
        **changes,
    }


def context(name: str = "trend") -> Context:
    """Return the context of the series."""
    return Context(name, 1, SERIES, Grid(SERIES.timeframe), "crypto")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def feed(tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Feed]:
    """An open home with the connection `kraken` and one series."""
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "home"))
    settings.cache_clear()
    opened = open_feed(Settings(home=tmp_path / "home", key_file=tmp_path / "keys"), clock)
    opened.connections.create(ConnectionInput(
        slug="kraken", provider="ccxt:kraken", symbols=[SERIES.symbol], timeframes=["1h"], is_active=False))
    yield opened
    opened.close()
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def store(feed: Feed, clock: ManualClock) -> Callable[[pl.DataFrame], None]:
    """Store candles as a fetch would, the clock five seconds past the last one's close."""

    def write(frame: pl.DataFrame, run_id: str = "fetch") -> None:
        last = int(frame["ts"].dt.epoch("us")[-1])
        clock.set(max(clock.now_us() + 1_000_000, last + HOUR_US + 5_000_000))
        with feed.lake.metadata.write() as tx:
            row = ensure_series(tx, feed.connections.get("kraken").id, SERIES.symbol, "1h")
        feed.lake.write([Batch(row.id, frame, "rest")], run_id=run_id)
        clock.advance(timedelta(seconds=1))

    return write

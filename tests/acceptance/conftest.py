"""A sandbox over a folder of real candles, and a home whose connection points at it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from core.clock import MINUTE_US, parse_instant
from core.settings import Settings
from feed import Feed, open_feed
from sandbox.box import Box
from sandbox.server import running

BUNDLED = Path(__file__).parents[2] / "sandbox" / "data" / "coinbase_BTCUSD_1m.parquet"
START = parse_instant("2020-01-01")
COLUMNS = ["ts", "open", "high", "low", "close", "volume"]


def real_minutes(count: int) -> pl.DataFrame:
    """Return `count` real one-minute candles (with their real holes), the bundled days laid end to end from 2020 on."""
    real = pl.read_parquet(BUNDLED).sort("ts")
    us = real["ts"].dt.epoch("us")
    minute = (us - us[0]) // MINUTE_US
    jump = (minute.diff().fill_null(0) > 1440).cast(pl.Int64)  # between the recorded stretches
    packed = minute - (jump * (minute.diff().fill_null(0) - 1)).cum_sum()
    length = int(packed[-1]) + 1
    rounds = -(-count // real.height)
    laid = pl.concat([real.with_columns(at=packed + length * n) for n in range(rounds)]).head(count)
    return laid.select(
        ts=pl.from_epoch(START + pl.col("at") * MINUTE_US, time_unit="us").dt.replace_time_zone("UTC"),
        **{name: pl.col(name).cast(pl.Float64) for name in COLUMNS[1:]})


@pytest.fixture
def source(tmp_path: Path) -> Callable[[int], pl.DataFrame]:
    """Write `binance_BTCUSDT_1m.parquet` with so many candles into the folder that `box` serves."""
    (tmp_path / "data").mkdir()

    def write(count: int) -> pl.DataFrame:
        frame = real_minutes(count)
        frame.write_parquet(tmp_path / "data" / "binance_BTCUSDT_1m.parquet")
        return frame

    return write


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], Box]]:
    """Start the sandbox over what `source` wrote."""
    with pytest.MonkeyPatch.context():
        stack = []

        def start() -> Box:
            manager = running(tmp_path / "data")
            stack.append(manager)
            return manager.__enter__()

        yield start
        for manager in stack:
            manager.__exit__(None, None, None)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, named by the environment so that child processes find it too."""
    home = tmp_path / "home"
    for name, value in {
        "HOME": str(home), "KEY_FILE": str(tmp_path / "keys"), "ALLOW_PRIVATE_HOSTS": "1", "REQUEST_TIMEOUT": "2",
        "RETRY_WAIT": "0.01",
    }.items():
        monkeypatch.setenv(f"CANDLELAKE_{name}", value)
    return home


@pytest.fixture
def connect(home: Path) -> Iterator[Callable[[Box], Feed]]:
    """Open the home with a connection `binance` (BTC/USDT 1m) that points at the box."""
    feeds = []

    def make(box: Box) -> Feed:
        feed = open_feed(Settings())
        feeds.append(feed)
        feed.connections.create(ConnectionInput(
            slug="binance", name="Binance", provider="ccxt:binance", base_url=box.url,
            symbols=("BTC/USDT",), timeframes=("1m",)))
        return feed

    yield make
    for feed in feeds:
        feed.close()

"""A sandbox over a folder of real candles, and a home whose connection points at it."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from cli.main import run
from connections.inputs import ConnectionInput
from core.clock import MINUTE_US, Clock, parse_instant
from core.settings import Settings, settings
from feed import Feed, open_feed
from sandbox.box import Box
from sandbox.server import running

BUNDLED = Path(__file__).parents[2] / "sandbox" / "data" / "coinbase_BTCUSD_1m.parquet"
START = parse_instant("2020-01-01")
COLUMNS = ["ts", "open", "high", "low", "close", "volume"]


def real_minutes(count: int, start_us: int = START) -> pl.DataFrame:
    """Return `count` real one-minute candles (with their real holes), the bundled days laid end to end from `start_us` on."""
    real = pl.read_parquet(BUNDLED).sort("ts")
    us = real["ts"].dt.epoch("us")
    minute = (us - us[0]) // MINUTE_US
    jump = (minute.diff().fill_null(0) > 1440).cast(pl.Int64)  # between the recorded stretches
    packed = minute - (jump * (minute.diff().fill_null(0) - 1)).cum_sum()
    length = int(packed[-1]) + 1
    rounds = -(-count // real.height)
    laid = pl.concat([real.with_columns(at=packed + length * n) for n in range(rounds)]).head(count)
    return laid.select(
        ts=pl.from_epoch(start_us + pl.col("at") * MINUTE_US, time_unit="us").dt.replace_time_zone("UTC"),
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
def serve(tmp_path: Path) -> Iterator[Callable[..., Box]]:
    """Start the sandbox over what `source` wrote, or over `data`; a clock other than the end of the data may be given."""
    with ExitStack() as stack:

        def start(clock: Clock | None = None, **options: Any) -> Box:
            folder = options.pop("data", tmp_path / "data")
            return stack.enter_context(running(folder, clock=clock, **options))

        yield start


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
def start_child(home: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one command line of the real program as a process of its own, both outputs in one; ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, stdin: str | None = None, **environment: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *words], cwd=tmp_path, env={**os.environ, **environment}, text=True,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if stdin is not None and child.stdin is not None:
            child.stdin.write(stdin)
            child.stdin.close()
            child.stdin = None
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
            child.communicate()
        if child.stdout is not None:
            child.stdout.close()


@pytest.fixture
def second_home(home: Path, tmp_path: Path) -> Iterator[Callable[[Box], Feed]]:
    """Open another home with the same connection, to compare with."""
    feeds = []

    def make(box: Box) -> Feed:
        feed = open_feed(Settings(home=tmp_path / "second", key_file=tmp_path / "second-keys"))
        feeds.append(feed)
        feed.connections.create(ConnectionInput(
            slug="binance", name="Binance", provider="ccxt:binance", base_url=box.url,
            symbols=("BTC/USDT",), timeframes=("1m",)))
        return feed

    yield make
    for feed in feeds:
        feed.close()


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


@dataclass
class Answer:
    """How a command line ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def candlelake(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Answer]]:
    """Run one command line in this process, through the same border as the program."""

    def call(*words: object, stdin: str = "") -> Answer:
        settings.cache_clear()
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = run([str(word) for word in words])
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    yield call
    settings.cache_clear()
    logging.basicConfig(force=True)

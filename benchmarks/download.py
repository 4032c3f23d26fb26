"""The same history over the same wire: freqtrade's download-data and our backfill against one sandbox exchange.

Both are whole commands as a person runs them, start to end, with the rate limits they ship with. The sandbox speaks
Binance's dialect; freqtrade's ccxt is pointed at it by its own `ccxt_config`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.bench import WrongAnswerError, compare
from benchmarks.market import MINUTE_US, NAMES, START_US, Columns, candles
from benchmarks.peers.frames import columns_of, frame_of
from benchmarks.worker import timed
from sandbox.server import running
from storage import open_lake

ROWS = 50_000
REPEATS = 2
START = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US)


def compare_downloads(folder: Path, freqtrade_python: Path) -> dict[str, Any]:
    """Download ROWS candles with both, in turn, and compare what they stored with what the exchange has."""
    source = candles(5, 0, ROWS)
    data = folder / "exchange"
    data.mkdir()
    beyond = candles(5, 0, ROWS + 60)  # the exchange's present is an hour later, so that all that is asked for is closed
    frame_of(beyond).write_parquet(data / "binance_BTCUSDT_1m.parquet")
    seconds: dict[str, list[float]] = {"candlelake": [], "freqtrade": []}
    asked: dict[str, int] = {}
    with running(data) as box:
        for turn in range(REPEATS + 1):
            for name, run in (("candlelake", _ours), ("freqtrade", _freqtrade)):
                before = len(box.requests)
                home = folder / f"{name}-{turn}"
                home.mkdir()
                took, stored = run(home, box.url, freqtrade_python)
                _check(name, stored, source)
                asked[name] = len(box.requests) - before
                if turn:
                    seconds[name].append(took)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    share = medians["freqtrade"] / medians["candlelake"]
    text = (f"Download of {ROWS:,} 1m candles from one sandbox exchange, whole command: candlelake backfill "
            f"{medians['candlelake']:.2f} s ({asked['candlelake']} requests), freqtrade download-data "
            f"{medians['freqtrade']:.2f} s ({asked['freqtrade']} requests): {share:.2f}x ours.")
    print("  " + text, flush=True)
    return {"rows": ROWS, "median_seconds": medians, "seconds": seconds, "requests": asked, "text": text}


def _check(name: str, stored: Columns, source: Columns) -> None:
    if len(stored.ts) != len(source.ts):
        raise WrongAnswerError(f"download: {name} stored {len(stored.ts)} candles of {len(source.ts)}")
    compare(name, "download", stored.digest(), source.digest())


def _ours(home: Path, url: str, _: Path) -> tuple[float, Columns]:
    environment = {**os.environ, "CANDLELAKE_HOME": str(home), "CANDLELAKE_ALLOW_PRIVATE_HOSTS": "1"}
    command = [sys.executable, "-m", "cli.main"]
    _run([*command, "connections", "add", "bench", "--provider", "ccxt:binance", "--base-url", url], environment)
    end = START + timedelta(minutes=ROWS)
    took, _done = timed(lambda: _run(
        [*command, "backfill", "bench", "BTC/USDT", "1m", START.isoformat(), end.isoformat()], environment))
    with open_lake(home) as lake:
        return took, columns_of(lake.candles("bench", "BTC/USDT", "1m", START_US, START_US + ROWS * MINUTE_US))


def _freqtrade(home: Path, url: str, python: Path) -> tuple[float, Columns]:
    api = f"{url}/api.binance.com"
    ccxt_config = {
        "urls": {"api": {"public": f"{api}/api/v3", "private": f"{api}/api/v3", "v1": f"{api}/api/v1", "sapi": f"{api}/sapi/v1"}},
        "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}}
    config = {
        "dry_run": True, "stake_currency": "USDT", "stake_amount": "unlimited", "max_open_trades": 1, "trading_mode": "spot",
        "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"], "pair_blacklist": [], "only_from_ccxt": True,
                     "ccxt_config": ccxt_config, "ccxt_async_config": {}},
        "pairlists": [{"method": "StaticPairList"}]}
    (home / "config.json").write_text(json.dumps(config))
    (home / "user_data" / "data").mkdir(parents=True)
    end = START + timedelta(minutes=ROWS + 1)  # it leaves out the last candle of the range it is given
    took, _done = timed(lambda: _run(
        [str(python), "-m", "freqtrade", "download-data", "--config", str(home / "config.json"),
         "--userdir", str(home / "user_data"), "--pairs", "BTC/USDT", "--timeframes", "1m", "--data-format-ohlcv", "parquet",
         "--timerange", f"{START:%Y%m%d}-{end:%Y%m%dT%H%M}"], dict(os.environ)))
    frame = pl.read_parquet(next((home / "user_data" / "data").rglob("*.parquet"))).head(ROWS)
    ts = frame["date"].dt.cast_time_unit("us").dt.epoch("us").to_numpy()
    return took, Columns(ts, {name: frame[name].to_numpy() for name in NAMES})


def _run(command: list[str], environment: dict[str, str]) -> None:
    ended = subprocess.run(
        command, check=False, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ended with {ended.returncode}: {(ended.stdout + ended.stderr)[-3000:]}")

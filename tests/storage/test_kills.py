"""kill -9 at any moment: nothing acknowledged is lost, nothing is doubled, every reader reads."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest

from core.clock import MINUTE_US
from storage import Lake, open_lake
from storage.series import ensure_series
from tests.storage.conftest import START_US, add_connection

KILLS = int(os.environ.get("CANDLELAKE_TEST_KILLS", "24"))
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_lose_and_double_nothing(tmp_path):
    """After each of many kills the store holds each acknowledged candle once, and verify, sweep and foreign readers agree."""
    with open_lake(tmp_path) as lake:
        add_connection(lake, "kraken")
        with lake.metadata.write() as tx:
            for symbol in ("A", "B"):
                ensure_series(tx, 1, symbol, "1m", 0)
    dice = random.Random(4)
    witness = open_lake(tmp_path)
    acknowledged: dict[int, float] = {}
    boundary = -(10**9)
    slot = 0
    for turn in range(KILLS):
        worker = subprocess.Popen([sys.executable, "-m", "tests.storage.kill_worker", str(tmp_path), str(turn), str(slot)],
                                  cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(dice.uniform(0.01, 0.6))
        worker.kill()
        said, _ = worker.communicate()
        for line in said.splitlines():
            words = line.split()
            if len(words) != 3 or not line:
                continue
            kind, first, count = words[0], int(words[1]), int(words[2])
            if kind == "stored":
                acknowledged.update({first + n: float(first + n) for n in range(count)})
                slot = first + count
            else:
                boundary = max(boundary, first)
        slot += 1000  # whatever the killed step stored without acknowledging it lies below
        _check_at_once(witness, acknowledged, boundary)
        _check(tmp_path, acknowledged, boundary)
    witness.close()


def _check_at_once(lake: Lake, acknowledged: dict[int, float], boundary: int) -> None:
    """Before anything is put right: a lake that was open all the time reads all, and a plain glob sees no row twice."""
    for symbol in ("A", "B"):
        frame = lake.candles("kraken", symbol, "1m")
        held = set(((frame["ts"].dt.epoch("us") - START_US) // MINUTE_US).to_list())
        assert not [slot for slot in acknowledged if slot >= boundary and slot not in held]
    if any((lake.root / "candles").rglob("*.parquet")):
        with duckdb.connect() as session:
            count = "SELECT count(*), count(DISTINCT (symbol, ts))"
            rows, times = session.execute(f"{count} FROM read_parquet('{lake.root}/candles/**/*.parquet')").fetchall()[0]
        assert rows == times


def _check(home: Path, acknowledged: dict[int, float], boundary: int) -> None:
    with open_lake(home) as lake:
        lake.sweep()
        for symbol in ("A", "B"):
            frame = lake.candles("kraken", symbol, "1m")
            held = dict(zip(((frame["ts"].dt.epoch("us") - START_US) // MINUTE_US).to_list(), frame["close"].to_list(), strict=True))
            assert len(held) == frame.height
            lost = {slot: close for slot, close in acknowledged.items() if slot >= boundary and held.get(slot) != close}
            assert not lost
            assert all(close == slot for slot, close in held.items())
        problems = lake.verify().problems
        assert problems == []
        live = lake.sql("SELECT coalesce(sum(rows), 0)::BIGINT AS n FROM files").item()
        root = lake.root / "candles"
        if live:
            assert pl.scan_parquet(root).select(pl.len()).collect().item() == live
            assert ds.dataset(root, partitioning="hive").count_rows() == live
            with duckdb.connect() as session:
                count = session.execute(f"SELECT count(*) FROM read_parquet('{root}/**/*.parquet')").fetchone()
            assert count == (live,)
        assert not list((lake.root / ".staging").iterdir())

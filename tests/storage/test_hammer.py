"""Readers of every kind during hot writes and flushes, from threads and from another process: 0 wrong, 0 errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core.clock import MINUTE_US
from storage import Batch, open_lake
from tests.storage.conftest import START_US, candles

ROOT = Path(__file__).parents[2]
KEY = ("kraken", "BTC/USDT", "1m")
READS = int(os.environ.get("CANDLELAKE_TEST_READS", "2000"))


def check_reads(home: str, reads: int) -> None:
    """Read by Polars, pyarrow and DuckDB in turn; what is seen is never less than what was there before, nor doubled or torn."""
    lake = open_lake(Path(home))
    seen = 0
    for turn in range(reads):
        if turn % 4 == 0:
            closes = lake.candles(*KEY)["close"].to_list()
        elif turn % 4 == 1:
            closes = lake.sql("SELECT close FROM candles('kraken', 'BTC/USDT', '1m') ORDER BY ts")["close"].to_list()
        elif turn % 4 == 2:
            closes = lake.sql("SELECT close FROM all_candles ORDER BY ts")["close"].to_list()
        else:  # pyarrow reads the last row groups
            tail = lake.latest(*KEY, 50)["close"].to_list()
            assert tail == [tail[0] + n for n in range(len(tail))]
            assert tail[-1] >= seen - 1
            continue
        assert closes == [float(n) for n in range(len(closes))], f"read {turn} is wrong"
        assert len(closes) >= seen
        seen = len(closes)
    lake.close()


def _hammer(lake, series: int, reads: int, readers: int) -> None:
    """Let so many readers, half of them threads and half of them processes, read so often together while one writes and flushes."""
    reads = -(-reads // readers)
    home = str(lake.root.parent)
    lake.write([Batch(series, candles(START_US, 60, price=0.0), "rest")], run_id="r")
    failed: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        try:
            check_reads(home, reads)
        except BaseException as error:
            failed.append(error)
            raise

    def write() -> None:
        slot = 60
        while not stop.is_set():
            count = 7
            if slot < 20_000:
                lake.write([Batch(series, candles(START_US + slot * MINUTE_US, count, price=float(slot)), "rest")], run_id="r")
                slot += count
            else:  # keep the files moving: a value there and back
                lake.write([Batch(series, candles(START_US, 1, price=0.0), "rest")], run_id="r")
            lake.flush()

    script = f"from tests.storage.test_hammer import check_reads; check_reads({home!r}, {reads})"
    processes = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) for _ in range(readers // 2)]
    threads = [threading.Thread(target=read) for _ in range(readers - readers // 2)]
    writer = threading.Thread(target=write)
    for thread in (writer, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    codes = [process.wait() for process in processes]
    stop.set()
    writer.join()
    assert not failed
    assert set(codes) == {0}


def test_readers_during_hot_flushes(lake, add_series):
    """A few hundred reads during writes and flushes are all whole, exact and without error."""
    _hammer(lake, add_series(), 72, 3)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thousands_of_reads_by_eight_during_hot_flushes(lake, add_series, capsys):
    """The same by eight readers with CANDLELAKE_TEST_READS reads in all."""
    _hammer(lake, add_series(), READS, 8)
    with lake.metadata.read() as tx:
        flushes = tx.exec_driver_sql("SELECT max(generation) FROM lake_files").scalar_one()
    with capsys.disabled():
        sys.stdout.write(f"\n{READS} reads by 8 readers, 0 wrong, 0 errors, during writes and {flushes} flushed generations\n")

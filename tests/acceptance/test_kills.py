"""kill -9 at random moments of the real commands: nothing seen is lost, nothing doubled, every reader reads, little is asked twice."""

import asyncio
import os
import random
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest

from core.clock import DAY_US, MINUTE_US, ManualClock, SystemClock, isoformat, to_datetime, to_us
from core.interval import Interval
from core.series import Series
from feed.backfill import backfill
from storage.series import ensure_series, find_series
from tests.acceptance.conftest import COLUMNS, real_minutes

KILLS = int(os.environ.get("CANDLELAKE_TEST_KILLS", "16"))
DAYS = 170  # of BTC that the box may serve; cleanup reaches back no nearer than KEPT days
KEPT = 200
OLD_DAYS = 100  # of ETH, older than that
STEP = timedelta(minutes=1700)  # what becomes history between two turns: two pages
COMMANDS = ("backfill", "fetch", "flush", "cleanup")


class Turns:
    """One home that is worked on by commands which are killed, and what must be true after each."""

    def __init__(self, box, feed, start_child, now_us: int) -> None:
        self.box, self.feed, self.start_child = box, feed, start_child
        self.dice = random.Random(5)
        self.counts: Counter[str] = Counter()
        self.start_us = now_us - DAYS * DAY_US
        self.kept_days = KEPT + OLD_DAYS
        self.cut_us = 0
        self.seen: dict[str, pl.DataFrame] = {}

    def words(self, command: str) -> list[str]:
        if command == "backfill":
            end = isoformat(self.box.clock.now_us())
            return ["backfill", "binance", "BTC/USDT", "1m", isoformat(self.start_us), end]
        if command == "fetch":
            return ["fetch", "binance", "--symbol", "BTC/USDT"]
        if command == "cleanup":
            self.kept_days -= max(1, OLD_DAYS * 4 // (KILLS + 8))
            self.cut_us = to_us(datetime.now(tz=UTC)) - self.kept_days * DAY_US
            return ["cleanup", "--retention-days", str(self.kept_days), "--apply"]
        return ["flush"]

    def look(self) -> None:
        """Take down what a reader sees now."""
        self.seen = {symbol: self.feed.lake.candles("binance", symbol, "1m").select(COLUMNS) for symbol in ("BTC/USDT", "ETH/USDT")}

    def turn(self, command: str) -> bool:
        """Run a command and kill it after it began to work; True when it was killed before its end."""
        self.box.clock.advance(STEP)
        asked_before = len(self.box.requests)
        child = self.start_child(*self.words(command))
        pages = self.dice.choice((1, 1, 2, 3, 5, 8)) if command == "backfill" else self.dice.choice((0, 1, 1, 2))
        while child.poll() is None and not _at_work(child.pid, self.box.requests[asked_before:], command, pages):
            time.sleep(0.002)
        time.sleep(self.dice.uniform(0, 0.12 if command in {"backfill", "fetch"} else 0.35))
        self.look()
        child.kill()
        output, _ = child.communicate()
        self.counts[f"{command} {'killed' if child.returncode < 0 else 'ended'}"] += 1
        assert child.returncode in {-9, 0, 3}, output
        with self.feed.lake.metadata.write() as tx:  # as if the dead one's lease had run out
            tx.exec_driver_sql("UPDATE leases SET expires_at_us = 0")
        return child.returncode < 0

    def check(self, truth: dict[str, pl.DataFrame]) -> None:
        """Nothing that was seen is gone but by cleanup, nothing is double, all is as at the source, every reader reads."""
        total = 0
        for symbol, source in truth.items():
            held = self.feed.lake.candles("binance", symbol, "1m").select(COLUMNS)
            assert held["ts"].is_unique().all()
            assert held.join(source, on=COLUMNS, how="anti").is_empty()
            kept = self.seen[symbol].filter(pl.col("ts") >= to_datetime(self.cut_us + DAY_US))
            assert kept.join(held, on=COLUMNS, how="anti").is_empty()
            total += held.height
            sql = self.feed.lake.sql(f"SELECT count(*) AS n, count(DISTINCT ts) AS d FROM candles('binance', '{symbol}', '1m')")
            assert sql.row(0) == (held.height, held.height)
        root = self.feed.lake.root / "candles"
        counted = [_foreign_rows(root)]
        self.feed.lake.sweep()  # what a killed writer left over
        assert self.feed.lake.verify().problems == []
        live = self.feed.lake.sql("SELECT coalesce(sum(rows), 0)::BIGINT AS n FROM files").item()
        counted.append(_foreign_rows(root))
        assert len(set(counted[0])) == 1  # all of them read it, and the same
        assert set(counted[1]) == {live}
        assert live <= total


def _foreign_rows(root: Path) -> tuple[int, int, int]:
    """Return how many rows Polars, pyarrow and DuckDB count in the folder itself."""
    if not list(root.rglob("*.parquet")):
        return 0, 0, 0
    with duckdb.connect() as session:
        found = session.execute(f"SELECT count(*) FROM read_parquet('{root}/**/*.parquet')").fetchone()
    assert found is not None
    return pl.scan_parquet(root).select(pl.len()).collect().item(), ds.dataset(root, partitioning="hive").count_rows(), found[0]


def _at_work(pid: int, asked, command: str, pages: int) -> bool:
    """Whether a child has asked for so many pages, or has its home open when it asks for none."""
    if command in {"backfill", "fetch"}:
        return sum("klines" in item.path for item in asked) >= pages and len(asked) > 0
    try:
        names = [item.readlink().name for item in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(name == "metadata.db" or name.startswith("socket:") for name in names)


def asked_pages(box, symbol: str = "BTCUSDT") -> list[int]:
    """Return the start of each page of one symbol that was asked for."""
    queries = [dict(item.query) for item in box.requests if item.path.endswith("/klines")]
    return [int(query["startTime"]) * 1000 for query in queries if query["symbol"] == symbol and query["interval"] == "1m"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_of_the_real_commands_lose_and_double_nothing(  # noqa: PLR0917  fixtures
        tmp_path, metadata_url, serve, connect, start_child, capsys, monkeypatch) -> None:
    """Backfill, fetch, flush and cleanup killed at random: what a reader saw stays, and the next runs finish the job."""
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", metadata_url)
    kills = KILLS if metadata_url.startswith("sqlite") else KILLS // 2
    now_us = SystemClock().now_us() // MINUTE_US * MINUTE_US
    folder = tmp_path / "data"
    folder.mkdir()
    btc = real_minutes(DAYS * 1440, now_us - DAYS * DAY_US)
    btc.write_parquet(folder / "binance_BTCUSDT_1m.parquet")
    eth = real_minutes(OLD_DAYS * 1440, now_us - (KEPT + OLD_DAYS) * DAY_US)
    box = serve(ManualClock(now_us - 150 * DAY_US))
    feed = connect(box)
    with feed.lake.metadata.write() as tx:
        old = ensure_series(tx, feed.connections.get("binance").id, "ETH/USDT", "1m", now_us)
    feed.lake.import_candles(old.id, eth.with_columns(spread=pl.lit(None, pl.Float64)), run_id="import")
    turns = Turns(box, feed, start_child, now_us)
    killed = number = 0
    while killed < kills:
        if turns.box.clock.now_us() + 2 * STEP.total_seconds() * 1_000_000 > now_us:
            turns.box.clock.set(now_us - 3 * DAY_US)  # the source has no more: fetches find little from here on
        killed += turns.turn(COMMANDS[number % len(COMMANDS)])
        number += 1
        turns.check({"BTC/USDT": btc, "ETH/USDT": eth})
        assert number < 4 * kills + 20
    asked = len(asked_pages(box))

    for command in ("backfill", "flush", "fetch"):
        child = start_child(*turns.words(command))
        output, _ = child.communicate()
        assert child.returncode in {0, 3}, output
        turns.look()
        turns.check({"BTC/USDT": btc, "ETH/USDT": eth})
    end_us = box.clock.now_us()
    whole = btc.filter(pl.col("ts") < to_datetime(end_us - MINUTE_US))
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).join(whole, on=COLUMNS, how="semi").equals(whole)
    with capsys.disabled():
        sys.stdout.write(f"\n{killed} kills in {number} runs: {dict(turns.counts)}; {asked} pages asked for up to the last kill, "
                         f"{len(asked_pages(box))} in all for {whole.height} candles\n")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_costs_one_page_at_most(source, serve, connect, start_child, second_home) -> None:
    """A backfill killed again and again: each new life asks again for one page of the earlier ones at most, and cuts one page anew at most."""
    truth = source(60_000)
    box = serve(ManualClock(to_us(truth["ts"][-1]) + 2 * MINUTE_US))
    interval = Interval.parse("2020-01-01", isoformat(to_us(truth["ts"][-1]) + MINUTE_US))
    quiet = second_home(box)
    assert asyncio.run(backfill(quiet, Series.parse("binance", "BTC/USDT", "1m"), interval)).status != "failed"
    undisturbed = set(asked_pages(box))
    box.requests.clear()

    feed = connect(box)
    dice = random.Random(8)
    kills = 0
    lives = []  # where in the list of pages each child's begin
    while kills < max(6, KILLS // 5):
        before = len(asked_pages(box))
        lives.append(before)
        child = start_child("backfill", "binance", "BTC/USDT", "1m", isoformat(interval.start), isoformat(interval.end))
        pages = dice.choice((1, 2, 3, 6))
        while child.poll() is None and len(asked_pages(box)) < before + pages:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.05))
        child.kill()
        child.communicate()
        if child.returncode >= 0:
            break
        kills += 1
        with feed.lake.metadata.write() as tx:
            tx.exec_driver_sql("UPDATE leases SET expires_at_us = 0")
    last_life = len(asked_pages(box))
    result = asyncio.run(backfill(feed, Series.parse("binance", "BTC/USDT", "1m"), interval))
    assert result.status != "failed"
    with feed.lake.metadata.read() as tx:
        assert find_series(tx, Series.parse("binance", "BTC/USDT", "1m")).last_us == to_us(truth["ts"][-1])
    assert feed.lake.candles("binance", "BTC/USDT", "1m").select(COLUMNS).equals(truth)
    assert kills >= 4
    seen: set[int] = set()
    for life in (asked_pages(box)[at:end] for at, end in pairwise([*lives, last_life, None])):
        # What one life itself asks for twice was not answered, or too short to be believed: not on the kill's account.
        assert len(seen.intersection(life)) <= 1, sorted(seen.intersection(life))
        seen.update(life)
    assert len(seen) <= len(undisturbed) + kills

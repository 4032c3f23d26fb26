"""Revisions as files: plain Parquet for everybody, only added to, checked, and enough to bring the past back."""

import duckdb
import pytest

from core.clock import MINUTE_US, isoformat, parse_instant
from storage import Batch, open_lake
from storage.lake.revisions import list_revisions
from tests.storage.conftest import BOTH_STORES, START_US, candles

KEY = ("kraken", "BTC/USDT", "1m")
GLOB = "revisions/*/*/*/*/*.parquet"


def files(lake):
    return sorted((lake.root / "revisions").rglob("*"))


def parquet(lake):
    return [path for path in files(lake) if path.is_file()]


@pytest.fixture
def revise(lake, add_series, clock):
    """Store 60 candles over a partition's border; then change some of them."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 60), "rest")], run_id="r")

    def change(first, count, price):
        clock.set(clock.now_us() + 1_000_000)
        lake.write([Batch(series, candles(START_US + first * MINUTE_US, count, price=price), "rest")], run_id=f"to-{price}")

    return change


@BOTH_STORES
def test_each_flush_adds_what_is_new_and_nothing_else(lake, revise) -> None:
    """DuckDB alone reads exactly the revisions of the store; a flush without news adds no file; verify knows them all."""
    revise(25, 10, 500.0)
    lake.flush()
    first = parquet(lake)
    assert len(first) == 2  # two months
    lake.flush()
    assert parquet(lake) == first
    revise(0, 3, 700.0)
    lake.flush()
    assert len(parquet(lake)) == 3
    assert set(first) < set(parquet(lake))
    with lake.metadata.read() as tx:
        want = sorted((isoformat(row.ts_us), row.old["close"], row.new["close"], row.new["run_id"]) for row in list_revisions(tx))
    duck = duckdb.connect()
    duck.execute("SET TimeZone = 'UTC'")
    rows = duck.execute(f"SELECT strftime(ts, '%Y-%m-%dT%H:%M:%SZ'), old_close, new_close, new_run_id FROM read_parquet('{lake.root}/{GLOB}',"
                        " hive_types = {'symbol': VARCHAR}) WHERE connection = 'kraken' AND symbol = 'BTC/USDT'").fetchall()
    assert sorted(rows) == want
    assert len(want) == 13
    assert lake.verify().problems == []
    lake.write_catalog()
    with duckdb.connect(str(lake.root / "candlelake.duckdb"), read_only=True) as catalog:
        assert catalog.execute("SELECT count(*) FROM revisions").fetchone() == (13,)
    broken = bytearray(first[0].read_bytes())
    broken[60] ^= 1
    first[0].write_bytes(broken)
    assert [problem.path for problem in lake.verify().problems] == [first[0].relative_to(lake.root).as_posix()]


def test_lost_metadata_comes_back_with_its_past(lake, revise, clock, tmp_path) -> None:
    """After the metadata is gone, `rebuild` brings candles and revisions back, and as_of reads what was known then."""
    moments = [clock.now_us()]
    for price in (500.0, 600.0):
        revise(10, 30, price)
        moments.append(clock.now_us())
    lake.flush()
    want = [lake.candles(*KEY, as_of=moment) for moment in moments]
    lake.close()
    for name in ("metadata.db", "metadata.db-wal", "metadata.db-shm"):
        (tmp_path / "home" / name).unlink(missing_ok=True)
    with open_lake(tmp_path / "home", clock) as again:
        report = again.rebuild()
        assert (report.rows, report.revisions, report.skipped) == (60, 60, [])
        assert again.rebuild().revisions == 0
        for moment, frame in zip(moments, want, strict=True):
            assert again.candles(*KEY, as_of=moment).equals(frame)
        assert again.verify().problems == []
        again.flush()
        assert len(parquet(again)) == 2


def test_retention_leaves_the_files_of_revisions(lake, revise) -> None:
    """What was changed stays on record when the candles are removed."""
    revise(25, 10, 500.0)
    lake.flush()
    kept = parquet(lake)
    lake.apply_retention(lake.plan_retention(parse_instant("2027-01-01")))
    lake.sweep()
    assert parquet(lake) == kept
    assert lake.candles(*KEY).is_empty()
    lake.write_catalog()

"""Repair, cleanup and verify end to end: ordered at the server, run by the embedded runner, seen in the lake and the artifacts."""

import asyncio
from itertools import pairwise

import polars as pl
import pytest

from connections.service import ConnectionInput
from core.candles import CANDLE_SCHEMA
from core.clock import DAY_US, isoformat, to_datetime
from core.interval import Interval
from core.series import Series
from feed import open_feed
from feed.backfill import backfill
from storage.head import Batch
from storage.series import list_series
from tests.deployments.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("only_ordered", "runner")]


@pytest.fixture
def own(home, box, request):
    """A connection of this test alone, BTC/USD by the hour; returns its slug, its series and today's midnight."""
    slug = request.node.name.removeprefix("test_")[:20].strip("_").replace("_", "-")
    with open_feed(home) as feed:
        feed.connections.create(ConnectionInput(
            slug=slug, provider="ccxt:coinbase", base_url=box.url, symbols=("BTC/USD",), timeframes=("1h",)))
        today = feed.clock.now_us() // DAY_US * DAY_US
    yield slug, Series.parse(slug, "BTC/USD", "1h"), today
    with open_feed(home) as feed:
        feed.connections.delete(slug, purge=True)


def fill(home, series, *intervals):
    """Backfill ranges of a series in this process."""
    with open_feed(home) as feed:
        for interval in intervals:
            assert asyncio.run(backfill(feed, series, interval)).status != "failed"


def held(home, series):
    """Return the open times that the lake holds of a series."""
    with open_feed(home) as feed:
        return feed.lake.candles(series.connection, series.symbol, series.timeframe.name)["ts"].dt.epoch("us").to_list()


def artifacts(server, run):
    """Return the artifacts of a run by key."""
    return {item["key"]: item for item in server.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})}


def test_repair_fills_a_hole_in_the_middle(own, home, finished, server):
    """Hours that are missing between two stored stretches are asked for by one `repair` run; it publishes coverage and gaps."""
    slug, series, today = own
    whole = Interval(today - 10 * DAY_US, today - 2 * DAY_US)
    fill(home, series, Interval(whole.start, whole.start + DAY_US), Interval(whole.end - DAY_US, whole.end))
    before = held(home, series)
    assert max(late - early for early, late in pairwise(before)) > 5 * DAY_US
    run, state = finished("repair", connection=slug)
    assert state["type"] == "COMPLETED", state["message"]
    times = held(home, series)
    assert set(before) <= set(times)
    assert times == sorted(set(times))
    fill(home, series, whole)
    assert held(home, series) == times  # repair left nothing to get
    assert len(times) > len(before) + 100
    assert {"repair-summary", "coverage", "gaps"} <= set(artifacts(server, run))


def test_cleanup_plans_then_removes_then_finds_nothing(own, home, finished, server):
    """By hand `cleanup` only plans and publishes the plan; told to apply it removes exactly that; again it has nothing to do."""
    slug, series, today = own
    fill(home, series, Interval(today - 10 * DAY_US, today - 2 * DAY_US))
    with open_feed(home) as feed:
        feed.lake.flush()
    before = held(home, series)
    planned, state = finished("cleanup", connection=slug, retention_days=5)
    assert (state["type"], state["name"]) == ("COMPLETED", "DryRun"), state["message"]
    assert held(home, series) == before
    assert "cleanup-plan" in artifacts(server, planned)
    _, state = finished("cleanup", connection=slug, retention_days=5, apply=True)
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state["message"]
    after = held(home, series)
    gone = [us for us in before if us not in set(after)]
    assert after == before[len(gone):]
    assert after[0] - before[0] >= 4 * DAY_US
    assert state["message"].startswith(f"{len(gone)} candles removed")
    with open_feed(home) as feed:
        assert feed.lake.verify().problems == []
    _, state = finished("cleanup", connection=slug, retention_days=5, apply=True)
    assert state["message"].startswith("0 candles removed")
    assert held(home, series) == after


def test_verify_finds_an_altered_file_and_changes_nothing(own, home, finished, server):
    """`verify` completes over sound files; with one bit flipped it fails, its line and artifact name the file, which stays as it is."""
    _, series, today = own
    fill(home, series, Interval(today - 4 * DAY_US, today - 2 * DAY_US))
    with open_feed(home) as feed:
        feed.lake.flush()
        path = next((feed.lake.root / "candles" / f"connection={series.connection}").rglob("*.parquet"))
    _, state = finished("verify")
    assert state["type"] == "COMPLETED", state["message"]
    good = path.read_bytes()
    path.write_bytes(altered := bytes([*good[:100], good[100] ^ 1, *good[101:]]))
    run, state = finished("verify")
    assert state["type"] == "FAILED"
    assert path.name in state["message"]
    assert path.name in artifacts(server, run)["verify-problems"]["data"]
    assert path.read_bytes() == altered
    path.write_bytes(good)


def test_a_revision_is_an_event_that_the_server_tells(own, home, finished, server):
    """A candle that the provider shows otherwise than it is stored: after one audit the server's events name both values, once."""
    slug, series, today = own
    fill(home, series, Interval(today - 10 * DAY_US, today - 2 * DAY_US))
    at = to_datetime(today - 5 * DAY_US)
    with open_feed(home) as feed:
        with feed.lake.metadata.read() as tx:
            (row,) = list_series(tx, slug)
        told = feed.lake.candles(slug, series.symbol, "1h").filter(pl.col("ts") == at).select(list(CANDLE_SCHEMA))
        altered = told.with_columns(volume=pl.col("volume") + 1)
        feed.lake.write([Batch(row.id, altered, "backfill")], run_id="altered")
    run, state = finished("audit", connection=slug, pages=50)
    assert state["type"] == "COMPLETED", state["message"]
    wanted = {"filter": {"event": {"name": ["candlelake.revision"]},
                         "resource": {"id": [f"candlelake.series.{slug}.BTC/USD.1h"]}}, "limit": 50}
    events = wait_for(lambda: server.post("/events/filter", wanted)["events"])
    assert len(events) == 1
    payload = events[0]["payload"]
    assert (payload["connection"], payload["ts"], payload["run_id"]) == (slug, isoformat(today - 5 * DAY_US), f"audit-{run}")
    assert (payload["old"]["volume"], payload["new"]["volume"]) == (altered["volume"][0], told["volume"][0])
    assert any(item["prefect.resource.id"] == f"prefect.flow-run.{run}" for item in events[0]["related"])
    with open_feed(home) as feed:
        stored = feed.lake.candles(slug, series.symbol, "1h").filter(pl.col("ts") == at)
    assert stored["volume"].to_list() == told["volume"].to_list()

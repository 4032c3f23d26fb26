"""The embedded runner against a real server and the sandbox: flows run as processes, and survive being killed."""

import os
import signal
import time

import pytest

from connections.service import ConnectionInput
from core.clock import DAY_US, isoformat
from feed import open_feed
from tests.deployments.conftest import flow_process

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("only_ordered")]


def stored(home, timeframe="1m"):
    """Return how many candles the lake holds."""
    with open_feed(home) as feed:
        return feed.lake.candles("box", "BTC/USD", timeframe).height


def test_fetch_runs_to_completed(runner, connection, finished, home, server):
    """A run of `fetch` through the runner stores candles; its state says how many, its summary can be read."""
    run, state = finished("fetch", connection=connection, due_only=False)
    assert state["type"] == "COMPLETED", state["message"]
    assert state["name"] in {"Completed", "CompletedWithGaps"}
    assert stored(home) > 0
    artifacts = server.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})
    assert "fetch-summary" in {artifact["key"] for artifact in artifacts}


def test_a_failed_connection_fails_its_run_alone(runner, connection, finished, home):
    """A connection that cannot be reached makes the run Failed with one line that names it."""
    with open_feed(home) as feed:
        feed.connections.create(ConnectionInput(
            slug="dead", provider="ccxt:coinbase", base_url="http://127.0.0.1:9", symbols=("BTC/USD",),
            timeframes=("1m",), is_admin_owned=True))
    try:
        _, state = finished("fetch", connection="dead", due_only=False)
        assert state["type"] == "FAILED"
        assert "dead" in state["message"]
        assert "\n" not in state["message"]
        assert finished("fetch", connection=connection, due_only=False)[1]["type"] == "COMPLETED"
    finally:
        with open_feed(home) as feed:
            feed.connections.delete("dead")


def test_a_killed_backfill_is_finished_by_the_next(runner, connection, order, end_of, finished, home, server):  # noqa: PLR0917  fixtures
    """After kill -9 of the flow's process: the run ends as Crashed, the next one completes, nothing is doubled."""
    with open_feed(home) as feed:
        now = feed.clock.now_us() // DAY_US * DAY_US
    config = {
        "connection": connection, "symbol": "BTC/USD", "timeframe": "1m", "start": isoformat(now - 12 * DAY_US),
        "end": isoformat(now - 2 * DAY_US)}
    run = order("backfill", **config)
    deadline = time.monotonic() + 120
    while server.get(f"/flow_runs/{run}")["state"]["type"] != "RUNNING" or (child := flow_process(run)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    assert end_of(run)["type"] == "CRASHED"
    _, state = finished("backfill", **config)  # the killed run's lease runs out by itself
    assert state["type"] == "COMPLETED", state["message"]
    with open_feed(home) as feed:
        times = feed.lake.candles(connection, "BTC/USD", "1m", start=isoformat(now - 12 * DAY_US), end=isoformat(now - 2 * DAY_US))["ts"]
    assert times.is_sorted()
    assert times.n_unique() == times.len()
    assert times.len() > 10_000

"""The zombie and the late-run automation fire on a real server: the same triggers and actions, only with shorter waits."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from connections.service import ConnectionInput
from core.clock import DAY_US, isoformat
from deployments.apply import main
from deployments.automations import LATE_RUNS, ZOMBIES
from feed import open_feed
from tests.deployments.conftest import flow_process, process, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("only_ordered")]

SECONDS = 12.0  # the least that a server accepts is 10


@pytest.fixture
def soon(server):
    """Bind a copy of an automation to one run, with a short wait; it is removed after the test."""
    made = []

    def make(automation, run):
        trigger = {**automation["trigger"], "within": SECONDS, "match": {"prefect.resource.id": f"prefect.flow-run.{run}"}}
        body = {**automation, "name": f"{automation['name']} (soon)", "trigger": trigger, "enabled": True}
        made.append(server.post("/automations/", body)["id"])

    yield make
    for number in made:
        server.delete(f"/automations/{number}")


def state(server, run):
    """Return the state of a run."""
    return server.get(f"/flow_runs/{run}")["state"]


def events(server, run, name):
    """Return the events of one name that a run sent."""
    body = {"filter": {"event": {"name": [name]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}, "limit": 10}
    return server.post("/events/filter", body)["events"]


def test_a_run_whose_host_died_is_crashed_and_its_slot_free(server, environment, home, box, order, soon):  # noqa: PLR0917  fixtures
    """With runner and flow process killed at once nobody reports the end: without a heartbeat the run becomes Crashed."""
    with open_feed(home) as feed:
        feed.connections.create(ConnectionInput(
            slug="zombie", provider="ccxt:coinbase", base_url=box.url, symbols=("BTC/USD",), timeframes=("1m",)))
        now = feed.clock.now_us() // DAY_US * DAY_US
    hold = box.faults.add("hang", "/api.coinbase.com/*")
    log = Path(environment["CANDLELAKE_HOME"]) / "dead-runner.log"
    with process([sys.executable, "-m", "deployments.embedded"], {**environment, "CANDLELAKE_REQUEST_TIMEOUT": "300"}, log) as runner:
        wait_for(lambda: server.get("/deployments/name/backfill/backfill"), 120)
        run = order("backfill", connection="zombie", symbol="BTC/USD", timeframe="1m", start=isoformat(now - 3 * DAY_US), end=isoformat(now))
        soon(ZOMBIES, run)
        wait_for(lambda: events(server, run, "prefect.flow-run.heartbeat"), 120)
        child = flow_process(run)
        os.kill(runner.pid, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
        box.faults.remove(hold)
    assert state(server, run)["type"] == "RUNNING"
    ended = wait_for(lambda: (found := state(server, run))["type"] != "RUNNING" and found, 120)
    assert ended["type"] == "CRASHED"
    assert "no heartbeat" in ended["message"]
    assert server.get("/deployments/name/backfill/backfill")["global_concurrency_limit"]["active_slots"] == 0


def test_a_late_run_is_cancelled_and_a_late_backfill_is_not(server, order, soon):
    """Nobody runs what is ordered: a late `health` ends as SkippedLate, for a newer one does its work; a late backfill waits on."""
    kept = order("backfill", connection="any", symbol="A/B", timeframe="1h", start="2024-01-01", end="2024-01-02")
    late = order("health")
    for run in (late, kept):
        soon(LATE_RUNS, run)
    ended = wait_for(lambda: (found := state(server, late))["type"] == "CANCELLED" and found, 180)
    assert ended["name"] == "SkippedLate"
    assert "the newest run" in ended["message"]
    assert state(server, kept)["name"] == "Late"
    time.sleep(SECONDS / 4)  # its copy of the automation would have fired by now, had it matched
    assert state(server, kept)["name"] == "Late"
    server.delete(f"/flow_runs/{kept}")


def test_what_is_declared_is_what_was_tried(server):
    """The automations on the server are those of these tests but for the wait and the run."""
    assert main(["--api-url", server.url]) == 0
    held = {item["name"]: item for item in server.post("/automations/filter", {"limit": 200})}
    for automation in (ZOMBIES, LATE_RUNS):
        trigger = held[automation["name"]]["trigger"]
        assert set(trigger["expect"]) == set(automation["trigger"]["expect"])
        assert set(trigger["after"]) == set(automation["trigger"]["after"])
        assert held[automation["name"]]["enabled"]

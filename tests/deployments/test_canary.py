"""A planted secret, used by real flow runs that fail in many ways, is found nowhere: not in Prefect's database either."""

from pathlib import Path

import pytest

from connections.service import ConnectionInput
from core.clock import DAY_US, isoformat
from core.secrets import Secret
from feed import open_feed
from tests.acceptance.canary import CANARY, echoes, found_in
from tests.deployments.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("only_ordered", "runner")]

LOGIN = {"user": "50000001", "password": CANARY, "server": "Sandbox-Demo"}


@pytest.fixture
def broker(home, box):
    """A broker connection whose password is the canary; returns its slug."""
    with open_feed(home) as feed:
        feed.connections.create(ConnectionInput(
            slug="canary", provider="mtapi:mt5", base_url=f"{box.url}/mt5", symbols=("EURUSD",), timeframes=("1h",),
            credentials={name: Secret(value) for name, value in LOGIN.items()},
            config={"server_clock": {"offset_minutes": 120, "dst": "us"}}))
    yield "canary"
    box.faults.clear()


def test_prefects_database_and_logs_hold_no_secret(broker, home, box, finished, server):
    """Runs that complete, and runs of a bridge that echoes the password in every way, leave it in no file of the whole home."""
    ends = [finished("fetch", connection=broker, due_only=False)[1]]
    assert ends[0]["type"] == "COMPLETED", ends[0]["message"]
    with open_feed(home) as feed:
        now = feed.clock.now_us() // DAY_US * DAY_US
    span = {"symbol": "EURUSD", "timeframe": "1h", "start": isoformat(now - 9 * DAY_US), "end": isoformat(now - 2 * DAY_US)}
    for flow, status in (("fetch", 502), ("fetch", 400), ("backfill", 400), ("repair", 502), ("fetch", 200)):
        box.faults.clear()
        box.faults.add("status", "/mt5/*", status=status, body=echoes(CANARY))
        with open_feed(home) as feed:
            feed.connections.activate(broker)
        config = {"fetch": {"due_only": False}, "backfill": span, "repair": {}}[flow]
        run, end = finished(flow, connection=broker, **config)
        wait_for(lambda run=run: server.post("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}}))
        ends.append(end)
    assert {end["type"] for end in ends[1:]} == {"FAILED"}, ends
    assert any(item.path == "/mt5/ConnectEx" for item in box.requests)

    root = Path(home.home)
    searched = [path for path in root.rglob("*") if path.is_file()]
    assert {"prefect.db", "server.log", "runner.log", "metadata.db", "test.keys"} <= {path.name for path in searched}
    database = (root / "prefect.db").read_bytes() + (root / "prefect.db-wal").read_bytes()
    assert b"canary" in database  # the connection's name: what the runs said is in what is searched
    assert [f"{path.relative_to(root)}: {found_in(path.read_bytes())}" for path in searched if found_in(path.read_bytes())] == []

"""A real Prefect server for the slow tests: one process, SQLite, loopback, stopped at the end."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from connections.service import ConnectionInput
from deployments.declaration import read_declaration
from deployments.plan import apply
from deployments.prefect_api import PrefectApi
from deployments.settings import prefect_environment
from feed import open_feed
from sandbox.box import Account
from sandbox.server import running
from tests.acceptance.canary import CANARY

ROOT = Path(__file__).parents[2]
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
OPERATOR = "operator:of-the-tests"


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(look, seconds=90.0):
    """Return what `look` returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.5)
    return found


@contextmanager
def process(command, environment, log):
    """Run a child of ours, and end it by its id."""
    with log.open("ab") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=ROOT, start_new_session=True)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def flow_process(run_id):
    """Return the id of the process of a flow run, None when there is none."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"PREFECT__FLOW_RUN_ID={run_id}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                return int(entry.name)
        except OSError:
            continue  # it ended while we looked, or is not ours
    return None


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of the server, the runner and their flow runs: a home of their own."""
    home = tmp_path_factory.mktemp("home")
    port = free_port()
    own = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "CANDLELAKE_"))}
    return {
        **own, **prefect_environment(), "CANDLELAKE_HOME": str(home), "CANDLELAKE_ALLOW_PRIVATE_HOSTS": "1",
        "CANDLELAKE_KEY_FILE": str(home / "test.keys"), "CANDLELAKE_RETRY_WAIT": "0",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "10",  # sooner than ours
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10",  # a minute otherwise
        # guarded as compose.yaml has it: whoever talks to this server logs in and brings a CSRF token
        "PREFECT_SERVER_API_AUTH_STRING": OPERATOR, "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_API_AUTH_STRING": OPERATOR, "PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}", "DO_NOT_TRACK": "1",
    }


@pytest.fixture(scope="session")
def server(environment):
    """The API of a running Prefect server, as the operator."""
    url = environment["PREFECT_API_URL"]
    port = url.split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    with process(command, environment, Path(environment["CANDLELAKE_HOME"]) / "server.log"), PrefectApi(url, OPERATOR, timeout=120.0) as api:
        api.wait_until_healthy(120)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_AUTH_STRING", OPERATOR)  # for `deployments.apply` in this process
            yield api


@pytest.fixture
def home(environment, monkeypatch):
    """Settings of this process that name the same home as the flow runs'."""
    from core.settings import Settings

    for name, value in environment.items():
        if name.startswith("CANDLELAKE_"):
            monkeypatch.setenv(name, value)
    return Settings(_env_file=None)


@pytest.fixture(scope="module")
def runner(server, environment):
    """The embedded runner as a process, with the deployments registered."""
    log = Path(environment["CANDLELAKE_HOME"]) / "runner.log"
    with process([sys.executable, "-m", "deployments.embedded"], environment, log) as child:
        wait_for(lambda: server.get("/deployments/name/fetch/fetch"), 120)
        yield child


@pytest.fixture
def order(server):
    """Order a run of a deployment; returns its id."""

    def make(name, **config):
        body = {"parameters": {"config": config} if config else {}}
        return server.post(f"/deployments/{server.deployment_id(name)}/create_flow_run", body)["id"]

    return make


@pytest.fixture
def end_of(server):
    """Wait for the end of a run; returns its state."""

    def wait(run_id, seconds=120):
        def look():
            state = server.get(f"/flow_runs/{run_id}")["state"]
            return state if state["type"] in FINAL else None

        return wait_for(look, seconds)

    return wait


@pytest.fixture
def finished(order, end_of):
    """Order a run and return it with its last state; one that found its place taken is ordered again."""

    def make(name, **config):
        deadline = time.monotonic() + 400  # a run that died before may hold its place until its lease ends
        while True:
            run = order(name, **config)
            state = end_of(run, 240)
            if state["type"] != "CANCELLED" and state["name"] != "Skipped":
                return run, state
            assert time.monotonic() < deadline, state["message"]
            time.sleep(3)

    return make


@pytest.fixture
def only_ordered(server):
    """No scheduled run begins meanwhile, and none goes on: what runs is what the test ordered."""
    declared = read_declaration()
    apply(server, declared)
    paths = [f"/deployments/{server.deployment_id(item.name)}" for item in declared.deployments]
    for path in paths:
        server.patch(path, {"paused": True})
    active = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
    patience = time.monotonic() + 120

    def is_quiet():
        left = server.post("/flow_runs/filter", active)
        if time.monotonic() > patience:  # of a runner that ended with its own test: nobody will tell their end
            for run in left:
                server.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CRASHED", "message": "left by another test"}, "force": True})
        return not left

    wait_for(is_quiet, 240)
    yield
    for path in paths:  # the server is shared with other tests, and keeps an operator's pause for ever
        server.patch(path, {"paused": False})


@pytest.fixture(scope="session")
def box():
    """Exchanges of the sandbox, and a broker whose password is the canary; their present is now."""
    with running(mode="replay", accounts=[Account(50000001, CANARY, "Sandbox-Demo")]) as box:
        yield box


@pytest.fixture
def connection(home, box):
    """A connection to the sandbox's exchange in the home of the flow runs; returns its slug."""
    with open_feed(home) as feed:
        if not any(row.slug == "box" for row in feed.connections.list()):
            feed.connections.create(ConnectionInput(
                slug="box", provider="ccxt:coinbase", base_url=box.url, symbols=("BTC/USD",), timeframes=("1m", "1h"),
                is_admin_owned=True))
    return "box"

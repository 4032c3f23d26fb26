"""The servers of `candlelake up`: their command lines, their environment, and how one sees that they answer."""

from __future__ import annotations

import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from cli.output import note
from cli.processes import Child, Household, Stop
from core.errors import ProviderUnavailableError
from core.settings import Settings

PREFECT_SECONDS = 180.0  # a cold server on a busy machine
SANDBOX_SECONDS = 60.0
CONSOLE_SECONDS = 60.0
ASK_TIMES = 40  # half a second apart
RUN_SECONDS = 180.0  # a scheduled run from its order to its end; longer than a dead run keeps its place
FINAL_STATES = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
PROJECT = Path(__file__).resolve().parent.parent  # holds prefect.toml, which Prefect's server reads where it starts
# What only our own processes need to know: Prefect's server stores none of it and gets none of it.
KEPT_FROM_PREFECT = ("CANDLELAKE_KEYS", "CANDLELAKE_METADATA_URL")


@dataclass(slots=True)
class Stack:
    """Starts the servers of one home into a household."""

    settings: Settings
    household: Household
    stop: Stop
    again_seconds: float = 5.0  # before a run that found its place taken is ordered again
    _prefect: Child | None = None
    _runner: Child | None = None

    @property
    def home(self) -> Path:
        """The folder of all state, absolute."""
        return self.settings.home.absolute()

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox listens."""
        return f"http://127.0.0.1:{self.settings.sandbox_port}"

    @property
    def console_url(self) -> str:
        """Where the web console listens."""
        return f"http://127.0.0.1:{self.settings.console_port}"

    @property
    def api_url(self) -> str:
        """Prefect's API."""
        return f"http://127.0.0.1:{self.settings.prefect_port}/api"

    def start_sandbox(self) -> None:
        """Start the sandbox, its present shifted to now, and wait until it answers."""
        child = self._start("sandbox", [
            sys.executable, "-m", "cli.main", "sandbox", "serve", "--port", str(self.settings.sandbox_port),
            "--mode", "replay",
        ], self._environment())
        self.household.wait_ready(child, lambda: _answers(self.sandbox_url), SANDBOX_SECONDS, self.stop)

    def start_console(self) -> None:
        """Start the web console and wait until it answers."""
        child = self._start("console", [sys.executable, "-m", "console"], self._environment())
        self.household.wait_ready(child, lambda: _answers(f"{self.console_url}/livez"), CONSOLE_SECONDS, self.stop)

    def start_prefect(self) -> None:
        """Start Prefect's server on loopback; `await_prefect` waits for it."""
        environment = {k: v for k, v in self._environment().items() if k not in KEPT_FROM_PREFECT}
        self._prefect = self._start("prefect server", [
            sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1",
            "--port", str(self.settings.prefect_port), "--ui",
        ], environment, PROJECT)

    def await_prefect(self) -> None:
        """Wait until Prefect's server is healthy."""
        if self._prefect is not None:
            self.household.wait_ready(self._prefect, lambda: _answers(f"{self.api_url}/health"), PREFECT_SECONDS, self.stop)

    def start_runner(self) -> None:
        """Register the deployments and serve them; wait until `fetch` is registered."""
        self._runner = self._start("runner", [sys.executable, "-m", "deployments.embedded", "--alone"], self._environment())
        url = f"{self.api_url}/deployments/name/fetch/fetch"
        self.household.wait_ready(self._runner, lambda: _answers(url), PREFECT_SECONDS, self.stop)

    def prove_schedule(self) -> None:
        """Order one run of the `fetch` deployment and wait for its end: what an operator would see is then there.

        Runs that died with an earlier `up` hold their places until the server finds them out; a run that is cancelled
        for that is ordered again.

        Raises:
            ProviderUnavailableError: the run did not complete.
        """
        deadline = time.monotonic() + RUN_SECONDS
        with httpx.Client(base_url=self.api_url, timeout=30, trust_env=False) as client:
            deployment = _ask(client, "GET", "/deployments/name/fetch/fetch")
            while True:
                order = {"idempotency_key": f"up-{secrets.token_hex(8)}"}  # asked twice it is still one run
                run = _ask(client, "POST", f"/deployments/{deployment['id']}/create_flow_run", order)
                note(f"ordered a fetch run through Prefect: {run['name']}")
                state = self._await_run(client, run["id"])
                if state["type"] != "CANCELLED" or time.monotonic() > deadline:
                    break
                note(f"fetch run {run['name']}: {state['name']}, its place is taken; another follows")
                time.sleep(self.again_seconds)
        if state["type"] != "COMPLETED":
            raise ProviderUnavailableError(
                f"the fetch run {run['name']} ended as {state['name']}: {state.get('message') or 'no message'}; "
                f"see {self.home / 'logs'}")
        note(f"fetch run {run['name']}: {state['name']}")

    def _await_run(self, client: httpx.Client, run_id: str) -> dict[str, str]:
        deadline = time.monotonic() + RUN_SECONDS
        while time.monotonic() < deadline:
            state: dict[str, str] = _ask(client, "GET", f"/flow_runs/{run_id}")["state"]
            if state["type"] in FINAL_STATES:
                return state
            self.household.restart_dead(note)
            time.sleep(0.5)
        raise ProviderUnavailableError(f"the fetch run did not end within {RUN_SECONDS:.0f} s; see {self.home / 'logs'}")

    def _start(self, name: str, command: list[str], environment: dict[str, str], folder: Path | None = None) -> Child:
        log = self.home / "logs" / f"{name.replace(' ', '-')}.log"
        return self.household.start(Child(name, command, log, environment, folder))

    def _environment(self) -> dict[str, str]:
        """Ours without anybody else's Prefect settings: this server lives in this home alone."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
        prefect = self.home / "prefect"
        prefect.mkdir(parents=True, exist_ok=True)
        return {
            **own,
            "CANDLELAKE_HOME": str(self.home),
            "CANDLELAKE_ALLOW_PRIVATE_HOSTS": "1" if self.settings.allow_private_hosts else "0",
            "CANDLELAKE_SANDBOX_PORT": str(self.settings.sandbox_port),
            "CANDLELAKE_PREFECT_PORT": str(self.settings.prefect_port),
            "CANDLELAKE_CONSOLE_PORT": str(self.settings.console_port),
            "CANDLELAKE_CONSOLE_BIND": "127.0.0.1",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "PREFECT_HOME": str(prefect),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.settings.prefect_port),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect / 'prefect.db'}",
            "PREFECT_SERVER_UI_API_URL": self.api_url,
            "PYTHONSAFEPATH": "1",  # a folder called `flows` where we were started is not ours
            "PYTHONUNBUFFERED": "1",
        }


def _ask(client: httpx.Client, method: str, url: str, body: dict[str, str] | None = None) -> Any:
    """Ask Prefect's API; with SQLite under it, it answers 503 now and then while it is busy.

    Raises:
        ProviderUnavailableError: it refuses, or stays busy.
    """
    said = "no answer"
    for _ in range(ASK_TIMES):
        try:
            answer = client.request(method, url, json=body)
        except httpx.TransportError as error:
            said = str(error) or type(error).__name__
        else:
            if answer.is_success:
                return answer.json()
            said = f"status {answer.status_code}"
            if answer.status_code < 500:
                break
        time.sleep(0.5)
    raise ProviderUnavailableError(f"Prefect's server at {client.base_url} does not do {method} {url}: {said}; see its log")


def _answers(url: str) -> bool:
    """Whether a server of ours answers with anything but a failure; no proxy stands between us and loopback."""
    try:
        response = httpx.get(url, timeout=5, trust_env=False)
    except httpx.TransportError:
        return False
    return response.status_code < 400 or (response.status_code == 404 and "/api/" not in url)

"""Orders runs of our deployments at the Prefect server and reads how they go. Only slugs and ranges travel as parameters."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import httpx

from core.clock import SECOND_US, parse_instant
from core.errors import InputError, NotFoundError, ProviderUnavailableError
from deployments.prefect_login import PrefectLogin

DEPLOYMENTS: Final = ("fetch", "backfill", "repair", "cleanup", "flush", "replay_pipeline", "compare_pipelines")
SECONDS: Final = 15.0
BUSY: Final = 503  # its database is locked for a moment: SQLite under load
BUSY_WAITS: Final = (0.2, 0.5, 1.0, 2.0)  # seconds
LAST_LINES_US: Final = 10 * SECOND_US  # a run sends its log in batches: the last one may come after the word that it has ended


@dataclass(frozen=True, slots=True)
class Run:
    """A flow run as Prefect shows it."""

    id: str
    name: str
    state: str
    state_type: str
    message: str
    ended_us: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self.state_type in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}

    def is_told(self, now_us: int) -> bool:
        """Whether it has ended and no more log lines of it are on their way."""
        return self.is_final and (self.ended_us is None or now_us - self.ended_us >= LAST_LINES_US)


class PrefectDesk:
    """Prefect's API, as far as the console needs it; `url` ends in /api. People's browsers reach Prefect's UI at `ui_url`."""

    def __init__(self, url: str, auth: str | None = None, ui_url: str | None = None) -> None:
        self.url = url
        self._ui_url = (ui_url or url.removesuffix("/api")).rstrip("/")
        self._login = PrefectLogin(url, auth)

    def page_of(self, run: Run) -> str:
        """Return the address of a run's page in Prefect's UI."""
        return f"{self._ui_url}/runs/flow-run/{run.id}"

    def order(self, name: str, config: Mapping[str, Any]) -> Run:
        """Order a run of a deployment; returns at once.

        Raises:
            InputError: not a deployment that people order.
            ProviderUnavailableError: Prefect's server does not answer.
        """
        if name not in DEPLOYMENTS:
            raise InputError("run", name, DEPLOYMENTS, "choose one of them")
        deployment = self._ask("GET", f"/deployments/name/{name}/{name}")
        order = {"parameters": {"config": dict(config)}, "idempotency_key": str(uuid4())}  # asked twice it is still one run
        return _run(self._ask("POST", f"/deployments/{deployment['id']}/create_flow_run", order))

    def run(self, number: str) -> Run:
        """Return a run; NotFoundError when Prefect does not know it."""
        return _run(self._ask("GET", f"/flow_runs/{number}"))

    def cancel(self, number: str) -> Run:
        """Ask Prefect to end a run: one that has not begun never does, of one at work the process is ended.

        Raises:
            InputError: it has ended already.
        """
        if self.run(number).is_final:
            raise InputError("run", "one that has ended", "one that still runs", "there is nothing left to cancel")
        told = self._ask("POST", f"/flow_runs/{number}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        if told.get("status") not in {"ACCEPT", None}:
            raise InputError("run", f"one that Prefect does not cancel ({told.get('status')})", "one that still runs", "look at it in the Prefect UI")
        return self.run(number)

    def parameters(self, number: str) -> dict[str, Any]:
        """Return the config that a run was ordered with."""
        held = self._ask("GET", f"/flow_runs/{number}").get("parameters") or {}
        config = held.get("config")
        return dict(config) if isinstance(config, dict) else {}

    def lines(self, number: str, limit: int = 50) -> list[str]:
        """Return the newest log lines of a run, oldest first: progress among them."""
        body = {"logs": {"flow_run_id": {"any_": [number]}}, "limit": limit, "sort": "TIMESTAMP_DESC"}
        return [str(item["message"]) for item in reversed(self._ask("POST", "/logs/filter", body))]

    def artifacts(self, number: str) -> list[dict[str, Any]]:
        """Return what a run has published: type, key, description and data, oldest first."""
        body = {"artifacts": {"flow_run_id": {"any_": [number]}}, "limit": 50, "sort": "CREATED_DESC"}
        return [{name: item.get(name) for name in ("type", "key", "description", "data")}
                for item in reversed(self._ask("POST", "/artifacts/filter", body))]

    def progress(self, number: str) -> float | None:
        """Return how far a run says that it is, in percent; None when it says nothing."""
        told = [item["data"] for item in self.artifacts(number) if item["type"] == "progress" and isinstance(item["data"], (int, float))]
        return float(told[-1]) if told else None

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            with httpx.Client(timeout=SECONDS, trust_env=False, auth=self._login) as client:
                for wait in (0.0, *BUSY_WAITS):
                    time.sleep(wait)
                    answer = client.request(method, self.url + path, json=None if body is None else dict(body))
                    if answer.status_code != BUSY:
                        break
        except httpx.TransportError as error:
            raise ProviderUnavailableError(
                f"Prefect's server at {self.url} does not answer ({type(error).__name__}); start it with: candlelake up") from error
        if answer.status_code == 404:
            raise NotFoundError("Prefect does not know this run or deployment; is `candlelake up` or the deployment in place?")
        if answer.status_code == 422:
            raise InputError("parameters", "what Prefect refuses", "those of the flow's form", "check them")
        if answer.status_code == BUSY:
            raise ProviderUnavailableError("Prefect's server is too busy to answer; try again soon")
        if not answer.is_success:
            raise ProviderUnavailableError(f"Prefect's server answers {answer.status_code}; try again, or see its log")
        return answer.json()


def _run(found: Mapping[str, Any]) -> Run:
    state = found.get("state") or {}
    ended = found.get("end_time")
    return Run(str(found["id"]), str(found["name"]), str(state.get("name") or "Unknown"), str(state.get("type") or "PENDING"),
               str(state.get("message") or ""), None if ended is None else parse_instant(str(ended)))

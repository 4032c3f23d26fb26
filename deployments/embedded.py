"""`python -m deployments.embedded [--alone]`: the runner of `candlelake up`. Registers all deployments, then runs what is scheduled.

A runner rather than a worker of the pool, because it starts one process for a flow run where a worker starts two, and
costs about half the CPU. It polls by deployment, so the deployments stay the same as on a server with workers. Schedules are
not paused when it stops: what an operator set stays set.

A run that ends with its runner tells nobody, and one that had not begun has no heartbeat either: it would hold its place among
the deployment's runs for ever. `--alone` says that this server has no other runner: then such runs are ended at the start.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import TYPE_CHECKING
from uuid import UUID

from core.errors import CandlelakeError
from deployments.settings import prefect_environment

if TYPE_CHECKING:
    from deployments.prefect_api import PrefectApi

WAIT_SECONDS = 180.0  # a cold server on a busy machine
log = logging.getLogger("candlelake.runner")


def main() -> int:
    """Register and serve until SIGTERM or SIGINT; return the exit code."""
    for name, value in prefect_environment().items():
        os.environ.setdefault(name, value)  # before Prefect is imported; what is set outside wins
    url = os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api")
    os.environ.setdefault("PREFECT_API_URL", url)
    try:
        registered = register(url, is_alone="--alone" in sys.argv[1:])
    except CandlelakeError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        asyncio.run(serve(registered))
    except KeyboardInterrupt:
        log.info("stopped")
    return 0


def register(api_url: str, wait: float = WAIT_SECONDS, *, is_alone: bool = False) -> dict[str, UUID]:
    """Bring the server in line with prefect.yaml; return each deployment's id. `is_alone`: end what an earlier runner left.

    Raises:
        CandlelakeError: the server does not answer within `wait` seconds, or refuses.
    """
    from deployments.declaration import read_declaration  # noqa: PLC0415  after the environment is set
    from deployments.plan import apply  # noqa: PLC0415
    from deployments.prefect_api import PrefectApi  # noqa: PLC0415

    declared = read_declaration()
    with PrefectApi(api_url, os.environ.get("PREFECT_API_AUTH_STRING")) as api:
        api.wait_until_healthy(wait)
        if is_alone:
            log.info("%d runs of an earlier runner ended", end_left_over(api))
        for change in apply(api, declared):
            log.info("%s", change)
        return {item.name: api.deployment_id(item.name) for item in declared.deployments}


def end_left_over(api: PrefectApi) -> int:
    """Mark every run that is said to be at work as crashed, which frees its place; return how many there were."""
    at_work = {"flow_runs": {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}}
    crashed = {"type": "CRASHED", "message": "its runner ended before it; the next run goes on where it stopped"}
    ended = 0
    while left := api.post("/flow_runs/filter", at_work):
        for run in left:
            api.post(f"/flow_runs/{run['id']}/set_state", {"state": crashed, "force": True})
        ended += len(left)
    return ended


async def serve(registered: dict[str, UUID]) -> None:
    """Run what is scheduled for these deployments, each run a process of its own, until cancelled."""
    from prefect.deployments.runner import RunnerDeployment  # noqa: PLC0415  after the environment is set
    from prefect.runner import Runner  # noqa: PLC0415

    class Registered(RunnerDeployment):
        """A deployment that the server holds already: to apply it is to name it."""

        id: UUID

        async def aapply(self, *_: object, **__: object) -> UUID:
            return self.id

    runner = Runner(name="candlelake", pause_on_shutdown=False)
    for name, number in registered.items():
        await runner.aadd_deployment(Registered(name=name, flow_name=name, id=number))
    await runner.start()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each poll says nothing
    sys.exit(main())

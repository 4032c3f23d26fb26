"""Health: judge every connection, mark stale and failing ones, notify their owners.

A flow of its own because it must speak also when fetching does not. An ill connection is a finding, not a failure of
this run: the run completes and its state names who is ill.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); no parameters, no blocks.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.upkeep import check_health, health_line, send_notifications


@flow(name="health", validate_parameters=True)
async def health() -> State[dict[str, str]]:
    """Judge every connection, mark stale and failing ones, notify."""
    rows = await check_health()
    told = await send_notifications()
    line = health_line(rows) + (f"; {told.sent} notifications sent" if told.sent else "")
    if told.errors:
        line += f"; not sent: {told.errors[0]}"
    return Completed(message=line, data={row.slug: row.status for row in rows})


if __name__ == "__main__":
    asyncio.run(health())

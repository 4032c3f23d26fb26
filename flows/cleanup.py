"""Cleanup: remove candles that are older than the retention; plans first, and by hand only plans.

One flow of two steps, plan (published as an artifact) then apply, because removal cannot be undone once the grace
period of `.old/` is over. The schedule applies; a run by hand is a dry run unless it says otherwise. What is gone
already counts as done. Without a retention nothing is removed.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); CANDLELAKE_RETENTION_DAYS for the schedule.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from tasks.ticks import cleanup_ticks
from tasks.upkeep import apply_cleanup, plan_cleanup


class CleanupConfig(BaseModel):
    """What to remove, and whether to do it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    apply: bool = Field(False, title="Apply", description="Remove what the plan lists; off, the run only shows the plan.")
    retention_days: int | None = Field(
        None, ge=1, le=36500, title="Retention in days", description="Remove candles older than this; CANDLELAKE_RETENTION_DAYS when empty.")
    connection: str | None = Field(None, title="Connection", max_length=63, description="Slug of one connection; all when empty.")


DRY_RUN = CleanupConfig()


@flow(name="cleanup", validate_parameters=True)
async def cleanup(config: CleanupConfig = DRY_RUN) -> State[dict[str, int]]:
    """Plan what the retention removes, publish it, and remove it when told to.

    Args:
        config: what to remove, and whether to do it.
    """
    await cleanup_ticks(apply=config.apply)
    plan = await plan_cleanup(config.retention_days, config.connection)
    if plan is None:
        return Completed(name="Skipped", message="no retention is set: every candle is kept", data={"rows": 0})
    kept = f"; {len(plan.refused)} series kept as the only source of others" if plan.refused else ""
    if not config.apply:
        return Completed(name="DryRun", message=f"dry run: {plan.rows} candles would go{kept}", data={"rows": plan.rows})
    done = await apply_cleanup(plan)
    return Completed(
        message=f"{done.rows} candles removed, {done.files} files moved to .old/{kept}",
        data={"rows": done.rows, "files": done.files})


if __name__ == "__main__":
    asyncio.run(cleanup())

"""Repair: ask again for what is missing between the first and the last candle of each series.

A flow of its own because it walks whole histories and asks only for gaps that are due again, so that the minutely
fetch stays short. Publishes the coverage and the gap table. A connection that another repair holds is skipped.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.candles import repair_gaps
from tasks.outcome import state_of


class RepairConfig(BaseModel):
    """What to repair."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str | None = Field(None, title="Connection", max_length=63, description="Slug of one connection; all active ones when empty.")


ALL = RepairConfig()


@flow(name="repair", validate_parameters=True)
async def repair(config: RepairConfig = ALL) -> State[dict[str, Any]]:
    """Ask again for candles that are missing and may still come.

    Args:
        config: what to repair.
    """
    return state_of(await repair_gaps(config.connection, f"repair-{runtime.flow_run.id}"))


if __name__ == "__main__":
    asyncio.run(repair())

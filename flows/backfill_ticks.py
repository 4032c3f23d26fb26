"""Backfill of ticks: every tick of a symbol in a range that its provider still has.

A flow of its own because ticks are many: a day may take hours of requests, which wait behind live ones in the shared
rate budget. What is stored is known again by its key; ranges that streams had lost are healed by what was asked.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from tasks.ticks import backfill_symbol


class BackfillTicksConfig(BaseModel):
    """Which ticks to get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str = Field(title="Connection", min_length=1, max_length=63, description="Slug of the connection, e.g. binance-spot.")
    symbol: str = Field(title="Symbol", min_length=1, max_length=100, description="The symbol in the provider's spelling, e.g. BTC/USDT.")
    start: str = Field(title="Start", min_length=4, max_length=40, description="First instant, ISO 8601, UTC when it has no offset.")
    end: str = Field(title="End", min_length=4, max_length=40, description="Where to stop (exclusive), ISO 8601, UTC when it has no offset.")


@flow(name="backfill_ticks", flow_run_name="{config.connection} {config.symbol}", validate_parameters=True)
async def backfill_ticks(config: BackfillTicksConfig) -> State[dict[str, Any]]:
    """Get every tick of a symbol in a range.

    Args:
        config: which ticks to get.
    """
    run_id = f"backfill-ticks-{runtime.flow_run.id}"
    result = await backfill_symbol(config.connection, config.symbol, config.start, config.end, run_id=run_id)
    return Completed(message=result.message, data={"stored": result.stored, "known": result.known, "healed": result.healed})

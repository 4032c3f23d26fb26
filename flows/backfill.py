"""Backfill: every candle of one series in a range, stored or booked with its cause.

A flow of its own because it may run for hours, is started by a person, and must not hold up the minutely fetch: its
requests wait behind live ones in the shared rate budget. What is stored or booked is not asked for again, so a run
that was killed is finished by starting it once more. One backfill of a series at a time: a second one is Skipped.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.candles import backfill_series
from tasks.outcome import state_of


class BackfillConfig(BaseModel):
    """Which candles to get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str = Field(title="Connection", min_length=1, max_length=63, description="Slug of the connection, e.g. kraken-spot.")
    symbol: str = Field(title="Symbol", min_length=1, max_length=100, description="The symbol in the provider's spelling, e.g. BTC/USD.")
    timeframe: str = Field(title="Timeframe", min_length=2, max_length=8, description="The timeframe, e.g. 1m, 1h, 1d.")
    start: str = Field(title="Start", min_length=4, max_length=40, description="First open time, ISO 8601, UTC when it has no offset.")
    end: str = Field(title="End", min_length=4, max_length=40, description="Where to stop (exclusive), ISO 8601, UTC when it has no offset.")


@flow(name="backfill", flow_run_name="{config.connection} {config.symbol} {config.timeframe}", validate_parameters=True)
async def backfill(config: BackfillConfig) -> State[dict[str, Any]]:
    """Get every candle of one series in a range; resumes where an earlier run stopped.

    Args:
        config: which candles to get.
    """
    run_id = f"backfill-{runtime.flow_run.id}"
    result = await backfill_series(
        config.connection, config.symbol, config.timeframe, config.start, config.end, run_id=run_id)
    return state_of(result)

"""Replay: what a pipeline would have said over a range of stored candles, in the same bits as its live run.

A flow of its own because a person asks for it and reads its charts. Nothing is stored but artifacts and nothing is executed.
Each series is a task of its own: in this process, or on the workers of a Dask cluster when CANDLELAKE_DASK_ADDRESS names its
scheduler; they need the same metadata and lake.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the extra `dask` for a cluster; no blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from pydantic import BaseModel, ConfigDict, Field

from core.settings import settings
from tasks.fan_out import dask_cluster
from tasks.outcome import state_of_work
from tasks.pipeline import plan_replay, replay_series


class ReplayConfig(BaseModel):
    """What to replay."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: str = Field(title="Pipeline", min_length=1, max_length=63, description="The pipeline by name.")
    start: str = Field(title="Start", min_length=4, max_length=40, description="First open time, ISO 8601, UTC when it has no offset.")
    end: str = Field(title="End", min_length=4, max_length=40, description="Where to stop (exclusive), ISO 8601, UTC when it has no offset.")
    series: str | None = Field(
        None, title="Series", max_length=200, description="One series as: connection symbol timeframe; the pipeline's own when empty.")
    as_first_seen: bool = Field(
        False, title="As first seen", description="Judge on the values known then, not on what providers corrected later.")


async def _results_of(futures: Sequence[PrefectFuture[Any]]) -> list[dict[str, Any]]:
    return [await asyncio.to_thread(future.result) for future in futures]


@flow(name="replay_pipeline", flow_run_name="{config.pipeline}", validate_parameters=True)
async def replay_pipeline(config: ReplayConfig) -> State[dict[str, Any]]:
    """Say what a pipeline would have said over a range of stored candles.

    Args:
        config: what to replay.
    """
    series = await plan_replay(config.pipeline, config.series)
    calls: list[dict[str, Any]] = [
        {"pipeline": config.pipeline, "start": config.start, "end": config.end, "series": key, "as_first_seen": config.as_first_seen}
        for key in series]
    address = settings().dask_address
    if address:
        async with dask_cluster(address) as cluster:
            parts = await _results_of([cluster.submit(replay_series, call) for call in calls])
    else:
        parts = await _results_of([replay_series.submit(**call) for call in calls])
    signals, candles = sum(part["signals"] for part in parts), sum(part["candles"] for part in parts)
    message = f"{candles} candles of {len(parts)} series replayed, {signals} signals"
    return state_of_work({"status": "complete", "message": message, "series": parts})

"""Replay: what a pipeline would have said over a range of stored candles, in the same bits as its live run.

A flow of its own because a person asks for it and reads its charts. Nothing is stored but artifacts and nothing is executed.
Each series is a task of its own: with a task runner of Dask or Ray
(`replay_pipeline.with_options(task_runner=...)`) they fan out over machines that share the home.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); no blocks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from pydantic import BaseModel, ConfigDict, Field

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


def _result_of(future: PrefectFuture[Any]) -> dict[str, Any]:
    result: dict[str, Any] = future.result()
    return result


@flow(name="replay_pipeline", validate_parameters=True)
async def replay_pipeline(config: ReplayConfig) -> State[dict[str, Any]]:
    """Say what a pipeline would have said over a range of stored candles.

    Args:
        config: what to replay.
    """
    series = await plan_replay(config.pipeline, config.series)
    futures = [
        replay_series.submit(config.pipeline, config.start, config.end, key, as_first_seen=config.as_first_seen) for key in series]
    parts = [await asyncio.to_thread(_result_of, future) for future in futures]
    signals, candles = sum(part["signals"] for part in parts), sum(part["candles"] for part in parts)
    message = f"{candles} candles of {len(parts)} series replayed, {signals} signals"
    return state_of_work({"status": "complete", "message": message, "series": parts})

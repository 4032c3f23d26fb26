"""Compare two pipelines on the same candles: by a replay, or by what a champion and its challenger said live.

A flow of its own because a person asks for it and reads its report. Nothing is executed; the report says plainly when there
are too few candles to tell.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); no blocks.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.outcome import state_of_work
from tasks.pipeline import compare_on_candles


class CompareConfig(BaseModel):
    """Which two, and where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    champion: str = Field(title="Champion", min_length=1, max_length=63, description="The pipeline in use.")
    challenger: str = Field(title="Challenger", min_length=1, max_length=63, description="The pipeline that may replace it.")
    start: str = Field(title="Start", min_length=4, max_length=40, description="First open time, ISO 8601, UTC when it has no offset.")
    end: str = Field(title="End", min_length=4, max_length=40, description="Where to stop (exclusive), ISO 8601, UTC when it has no offset.")
    horizon: int = Field(10, ge=1, le=10_000, title="Horizon", description="Candles after a signal at which its outcome is taken.")
    by: Literal["replay", "live"] = Field(
        "replay", title="By", description="replay: judge the candles again; live: what both said when they ran side by side.")


@flow(name="compare_pipelines", flow_run_name="{config.champion} and {config.challenger}", validate_parameters=True)
async def compare_pipelines(config: CompareConfig) -> State[dict[str, Any]]:
    """Compare two pipelines on the same candles.

    Args:
        config: which two, and where.
    """
    found = await compare_on_candles(
        config.champion, config.challenger, config.start, config.end, horizon=config.horizon, live=config.by == "live")
    message = "; ".join(f"{item['series']}: {item['verdict']}" for item in found)
    return state_of_work({"status": "complete", "message": message, "series": found})

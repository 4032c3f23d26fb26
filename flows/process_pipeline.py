"""Judge every candle that an enabled pipeline has not seen, store what comes of it, execute its signals.

One flow for all pipelines and series: a run costs seconds to start, so a fetch wakes it once for all series that grew, and
a schedule sweeps up what lost events would have started. A lease lets one run work at a time; another one is Skipped. A
pipeline that fails is in the result by name, and the others go on.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from core.errors import LeaseHeldError
from tasks.outcome import state_of_work
from tasks.pipeline import process_candles


class ProcessConfig(BaseModel):
    """What to run; every enabled pipeline when nothing is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: str | None = Field(None, title="Pipeline", max_length=63, description="One pipeline by name; all enabled ones when empty.")


ALL_PIPELINES = ProcessConfig()


@flow(name="process_pipeline", validate_parameters=True)
async def process_pipeline(config: ProcessConfig = ALL_PIPELINES) -> State[dict[str, Any]]:
    """Judge every candle that an enabled pipeline has not seen.

    Args:
        config: what to run.
    """
    try:
        result = await process_candles(config.pipeline, f"process-{runtime.flow_run.id}")
    except LeaseHeldError as error:
        return state_of_work({"status": "skipped", "message": str(error)})
    return state_of_work(result)

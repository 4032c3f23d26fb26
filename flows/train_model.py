"""Train a model for the confidence of signals on a series' stored candles.

A flow of its own because it takes minutes of CPU and its report is read by a person. It calibrates on what it had not seen, measures on
the newest candles alone, and says plainly when the model does not beat the base rate.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the extra `ai`; no blocks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.outcome import state_of_work
from tasks.training import train_on_candles


class Measure(BaseModel):
    """On what a model is measured, and what a trade costs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    holdout: float = Field(0.2, ge=0.05, le=0.5, title="Holdout", description="Share of the newest candles that training never sees.")
    cost_bp: float | None = Field(
        None, ge=0, le=1_000, title="Cost", description="A trade there and back, in basis points; the candles' median spread when empty, 10 without one.")


class TrainConfig(BaseModel):
    """What to train on, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(title="Model", min_length=1, max_length=63, description="Its name; the same name again makes the next version.")
    connection: str = Field(title="Connection", min_length=1, max_length=63, description="Slug of the connection.")
    symbol: str = Field(title="Symbol", min_length=1, max_length=100, description="In the provider's spelling.")
    timeframe: str = Field(title="Timeframe", min_length=2, max_length=5, description="e.g. 1h.")
    start: str | None = Field(None, title="Start", max_length=40, description="First open time, ISO 8601; all stored candles when start or end is empty.")
    end: str | None = Field(None, title="End", max_length=40, description="Where to stop (exclusive), ISO 8601.")
    horizon: int = Field(12, ge=1, le=1_000, title="Horizon", description="Candles ahead at which the close is compared.")
    measure: Measure = Field(default_factory=Measure, title="Measure", description="On what the model is measured, and what a trade costs.")


@flow(name="train_model", flow_run_name="{config.model} on {config.connection} {config.symbol} {config.timeframe}", validate_parameters=True)
async def train_model(config: TrainConfig) -> State[dict[str, Any]]:
    """Train a model on a series' stored candles.

    Args:
        config: what to train on, and how.
    """
    plan = {"horizon": config.horizon, "holdout": config.measure.holdout, "cost_bp": config.measure.cost_bp}
    done = await train_on_candles(config.model, (config.connection, config.symbol, config.timeframe), config.start, config.end, plan)
    return state_of_work({"status": "complete", "message": f"{done['model']} version {done['version']}: {done['verdict']}", **done})

"""What the API answers with about pipelines, for its documentation."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class PipelineOut(BaseModel):
    """A pipeline and the definition in force; `last_error` is of its last run that failed.

    `orders` is the most serious kind of order that the definition can lead to: none, paper, demo (a practice account), real, or unknown
    (take it for real); `orders_told` says it in a line, with the switches that hold real orders back.
    """

    name: str
    owner: str
    version: int
    is_enabled: bool
    is_live: bool
    orders: str
    orders_told: str
    shadow_of: str | None
    failures: int
    last_error: str | None
    created_at: str
    updated_at: str
    definition: dict[str, Any]


class StageTimeOut(BaseModel):
    """How long a stage takes, in milliseconds."""

    stage: str
    count: int
    mean_ms: float
    p95_ms: float
    errors: int


class PipelineTimesOut(PipelineOut):
    """A pipeline with the times of its stages."""

    stages: list[StageTimeOut]


class ExecutionOut(BaseModel):
    """What one stage did with one candle; `at` is when, `candle` the candle's open time."""

    at: str
    candle: str
    version: int
    stage: str
    status: str
    rows_in: int
    rows_out: int | None
    ms: float
    run_id: str
    error: str | None


class SignalOut(BaseModel):
    """What a pipeline said at a candle (`ts` is its open time), and what became of it."""

    pipeline: str
    version: int
    connection: str
    symbol: str
    timeframe: str
    ts: str
    side: str
    price: float
    confidence: float
    threshold: float
    reason: str
    is_shadow: bool
    execution: str
    execution_message: str | None
    run_id: str


class AcknowledgedOut(BaseModel):
    """A notification and when it was first marked as seen."""

    id: int
    acknowledged_at: str

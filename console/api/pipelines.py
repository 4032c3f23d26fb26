"""/api/pipelines: definitions, executions, stage times, signals; enable and disable; notifications' acknowledgement."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from console import notes, pipeline_actions, pipeline_readings
from console.api.models import ABSENT, EquityOut, PipelineRunOut, ResultOut, RunOut
from console.api.pipeline_models import (
    AcknowledgedOut,
    ExecutionOut,
    PipelineOut,
    PipelineTimesOut,
    SignalOut,
    StageTimeOut,
)
from console.pipeline_actions import DefinitionText, PipelineRunOrder
from console.policy import CONNECTIONS, identity_of
from console.prefect_api import Run
from console.state import desk_of, feed_of
from feed.context import Feed
from storage.pipelines import PipelineRow

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/pipelines", dependencies=SEES)
def list_pipelines(request: Request) -> list[PipelineOut]:
    """Return your pipelines with their definitions."""
    return [_shown(feed_of(request), row) for row in pipeline_readings.mine(feed_of(request), identity_of(request))]


@router.post("/pipelines", dependencies=SEES, status_code=201, responses=ABSENT)
def create_pipeline(request: Request, given: DefinitionText) -> PipelineOut:
    """Store a new pipeline, switched off."""
    return _shown(feed_of(request), pipeline_actions.create(feed_of(request), identity_of(request), given.definition))


@router.put("/pipelines/{name}", dependencies=SEES)
def change_pipeline(request: Request, name: str, given: DefinitionText) -> PipelineOut:
    """Store the next version of a pipeline; one that does the same changes nothing."""
    return _shown(feed_of(request), pipeline_actions.change(feed_of(request), identity_of(request), name, given.definition))


@router.get("/pipelines/{name}/equity", dependencies=SEES)
def show_equity(request: Request, name: str) -> list[EquityOut]:
    """Return the money that its paper orders have made, after each fill."""
    feed = feed_of(request)
    return [EquityOut(**item) for item in pipeline_actions.equity_rows(feed, pipeline_readings.seen(feed, identity_of(request), name))]


@router.post("/pipelines/{name}/runs", dependencies=SEES, status_code=202)
def order_pipeline_run(request: Request, name: str, wanted: PipelineRunOrder) -> RunOut:
    """Order a replay, or a comparison with another pipeline of yours, at Prefect."""
    return _run(pipeline_actions.order(feed_of(request), desk_of(request), identity_of(request), name, wanted))


@router.get("/pipelines/{name}/runs/{number}", dependencies=SEES)
def show_pipeline_run(request: Request, name: str, number: str) -> PipelineRunOut:
    """Return how a replay or comparison goes, and what it has published."""
    desk = desk_of(request)
    run = pipeline_actions.run_of(feed_of(request), desk, identity_of(request), name, number)
    return PipelineRunOut(id=run.id, name=run.name, state=run.state, message=run.message, is_final=run.is_final,
                          progress=desk.progress(run.id), results=[ResultOut(**item) for item in pipeline_actions.results_of(desk, run.id)])


@router.post("/pipelines/{name}/runs/{number}/cancel", dependencies=SEES)
def cancel_pipeline_run(request: Request, name: str, number: str) -> RunOut:
    """Cancel a replay or comparison."""
    return _run(pipeline_actions.cancel(feed_of(request), desk_of(request), identity_of(request), name, number))


@router.get("/pipelines/{name}", dependencies=SEES)
def show_pipeline(request: Request, name: str) -> PipelineTimesOut:
    """Return one pipeline with the times of its stages."""
    feed = feed_of(request)
    row = pipeline_readings.seen(feed, identity_of(request), name)
    stages = [StageTimeOut(**item) for item in pipeline_readings.times(feed, row)]
    return PipelineTimesOut(**pipeline_readings.as_dict(feed, row), stages=stages)


@router.get("/pipelines/{name}/executions", dependencies=SEES)
def list_executions(request: Request, name: str, limit: Limit = 100) -> list[ExecutionOut]:
    """Return what each stage did with each candle, newest first."""
    feed = feed_of(request)
    found = pipeline_readings.execution_rows(feed, pipeline_readings.seen(feed, identity_of(request), name), limit)
    return [ExecutionOut(**item) for item in found]


@router.get("/pipelines/{name}/signals", dependencies=SEES)
def list_signals(request: Request, name: str, limit: Limit = 100) -> list[SignalOut]:
    """Return the newest signals of a pipeline, oldest first."""
    feed, who = feed_of(request), identity_of(request)
    found = pipeline_readings.signal_rows(feed, who, pipeline_readings.seen(feed, who, name).name, limit=limit)
    return [SignalOut(**item) for item in found]


@router.post("/pipelines/{name}/enable", dependencies=SEES)
def enable_pipeline(request: Request, name: str) -> PipelineOut:
    """Let scheduled runs use it."""
    return _shown(feed_of(request), pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=True))


@router.post("/pipelines/{name}/disable", dependencies=SEES)
def disable_pipeline(request: Request, name: str) -> PipelineOut:
    """Keep scheduled runs from it."""
    return _shown(feed_of(request), pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=False))


@router.post("/notifications/{note}/acknowledge", dependencies=SEES)
def acknowledge_notification(request: Request, note: Annotated[int, Path(ge=1, lt=2**63)]) -> AcknowledgedOut:
    """Mark a notification as seen, for everybody who can see it."""
    return AcknowledgedOut(id=note, acknowledged_at=notes.acknowledge(feed_of(request), identity_of(request), note))


def _shown(feed: Feed, row: PipelineRow) -> PipelineOut:
    return PipelineOut(**pipeline_readings.as_dict(feed, row))


def _run(run: Run) -> RunOut:
    return RunOut(id=run.id, name=run.name, state=run.state, message=run.message, is_final=run.is_final)

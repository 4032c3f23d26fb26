"""/api/pipelines: definitions, executions, stage times, signals; enable and disable; notifications' acknowledgement."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request

from console import notes, pipeline_readings
from console.policy import CONNECTIONS, identity_of
from console.state import feed_of

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/pipelines", dependencies=SEES)
def list_pipelines(request: Request) -> list[dict[str, Any]]:
    """Return your pipelines with their definitions."""
    return [pipeline_readings.as_dict(row) for row in pipeline_readings.mine(feed_of(request), identity_of(request))]


@router.get("/pipelines/{name}", dependencies=SEES)
def show_pipeline(request: Request, name: str) -> dict[str, Any]:
    """Return one pipeline with the times of its stages."""
    feed = feed_of(request)
    row = pipeline_readings.seen(feed, identity_of(request), name)
    return pipeline_readings.as_dict(row) | {"stages": pipeline_readings.times(feed, row)}


@router.get("/pipelines/{name}/executions", dependencies=SEES)
def list_executions(request: Request, name: str, limit: Limit = 100) -> list[dict[str, Any]]:
    """Return what each stage did with each candle, newest first."""
    feed = feed_of(request)
    return pipeline_readings.execution_rows(feed, pipeline_readings.seen(feed, identity_of(request), name), limit)


@router.get("/pipelines/{name}/signals", dependencies=SEES)
def list_signals(request: Request, name: str, limit: Limit = 100) -> list[dict[str, Any]]:
    """Return the newest signals of a pipeline, oldest first."""
    feed, who = feed_of(request), identity_of(request)
    return pipeline_readings.signal_rows(feed, who, pipeline_readings.seen(feed, who, name).name, limit=limit)


@router.post("/pipelines/{name}/enable", dependencies=SEES)
def enable_pipeline(request: Request, name: str) -> dict[str, Any]:
    """Let scheduled runs use it."""
    return pipeline_readings.as_dict(pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=True))


@router.post("/pipelines/{name}/disable", dependencies=SEES)
def disable_pipeline(request: Request, name: str) -> dict[str, Any]:
    """Keep scheduled runs from it."""
    return pipeline_readings.as_dict(pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=False))


@router.post("/notifications/{note}/acknowledge", dependencies=SEES)
def acknowledge_notification(request: Request, note: Annotated[int, Path(ge=1, lt=2**63)]) -> dict[str, Any]:
    """Mark a notification as seen, for everybody who can see it."""
    return {"id": note, "acknowledged_at": notes.acknowledge(feed_of(request), identity_of(request), note)}

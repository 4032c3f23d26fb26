"""Pages of pipelines: the list, and one with its stages as a graph, its times, signals and executions."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response

from console import pipeline_readings
from console.policy import CONNECTIONS, identity_of
from console.rendering import page
from console.state import feed_of

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]


@router.get("/pipelines", dependencies=SEES)
def show_list(request: Request) -> Response:
    """Show the reader's pipelines."""
    rows = [pipeline_readings.as_dict(row) for row in pipeline_readings.mine(feed_of(request), identity_of(request))]
    return page(request, "pipelines.html", {"rows": rows})


@router.get("/pipelines/{name}", dependencies=SEES)
def show(request: Request, name: str) -> Response:
    """Show one pipeline."""
    feed, who = feed_of(request), identity_of(request)
    row = pipeline_readings.seen(feed, who, name)
    return page(request, "pipeline.html", {
        "row": pipeline_readings.as_dict(row), "stages": pipeline_readings.stages(row.definition), "times": pipeline_readings.times(feed, row),
        "signals": pipeline_readings.signal_rows(feed, who, name, limit=50)[::-1], "executions": pipeline_readings.execution_rows(feed, row, 60)})


@router.post("/pipelines/{name}/enable", dependencies=SEES)
def enable(request: Request, name: str) -> Response:
    """Let scheduled runs use it."""
    pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=True)
    return RedirectResponse(f"/pipelines/{name}", 303)


@router.post("/pipelines/{name}/disable", dependencies=SEES)
def disable(request: Request, name: str) -> Response:
    """Keep scheduled runs from it."""
    pipeline_readings.switch(feed_of(request), identity_of(request), name, is_enabled=False)
    return RedirectResponse(f"/pipelines/{name}", 303)

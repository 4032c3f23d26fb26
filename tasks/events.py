"""The pipeline's events as Prefect events: hints with names and ranges, never with data.

Events are delivered at most once. Whoever needs every candle reads the lake from a watermark of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from core.series import Series
from feed.context import Feed
from pipeline.events import PipelineEvent
from storage.pipelines import list_pipelines

DUE: Final = "candlelake.pipelines-due"  # prefect.yaml starts process_pipeline for it
DUE_RESOURCE: Final = "candlelake.pipelines"


def resource_of(series: Series) -> dict[str, str]:
    """Return an event's resource: the series."""
    return {
        "prefect.resource.id": f"candlelake.series.{series.connection}.{series.symbol}.{series.timeframe.name}",
        "prefect.resource.name": str(series), "candlelake.connection": series.connection,
        "candlelake.symbol": series.symbol, "candlelake.timeframe": series.timeframe.name,
    }


def emit_one(event: PipelineEvent) -> None:
    """Send an event to Prefect's server; outside of a run there is nobody to tell."""
    if in_run():
        emit_event(event.name, resource=resource_of(event.series), payload=event.payload())


def emit(events: Iterable[PipelineEvent]) -> None:
    """Send events to Prefect's server."""
    for event in events:
        emit_one(event)


def wake_pipelines(feed: Feed, events: Iterable[PipelineEvent]) -> list[str]:
    """Send one event for all series that grew and that an enabled pipeline runs on; return their names.

    One event starts one run for all of them: a flow run for each series would cost seconds each.
    """
    with feed.lake.metadata.read() as tx:
        wanted = {
            (ref["connection"], ref["symbol"], ref["timeframe"])
            for row in list_pipelines(tx, only_enabled=True) for ref in row.definition["series"]}
    keys = ((event.series.connection, event.series.symbol, event.series.timeframe.name) for event in events)
    names = sorted({" ".join(key) for key in keys if key in wanted})
    if names and in_run():
        emit_event(DUE, resource={"prefect.resource.id": DUE_RESOURCE, "prefect.resource.name": "pipelines"}, payload={"series": names})
    return names


def in_run() -> bool:
    """Whether this code runs in a task or flow run."""
    return TaskRunContext.get() is not None or FlowRunContext.get() is not None

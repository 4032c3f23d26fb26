"""The event `candlelake.revision`: a provider has changed a candle that was stored; old and new value are in the lake.

Events are delivered at most once: whoever needs every revision reads them (`candlelake revisions`, the table `revisions`).
"""

from __future__ import annotations

from typing import Any, Final

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from core.candles import VALUES
from core.clock import isoformat
from feed.context import Feed
from feed.result import RunResult
from storage.lake.revisions import RevisionRow, revisions_of_run

REVISION: Final = "candlelake.revision"
MOST_EVENTS: Final = 500  # of one run; a provider that rewrites its history says so in the run's result


def revision_event(change: RevisionRow) -> tuple[dict[str, str], dict[str, Any]]:
    """Return resource and payload of a revision's event: the series, the candle, and the two sets of values."""
    series = change.series
    resource = {
        "prefect.resource.id": f"candlelake.series.{series.connection}.{series.symbol}.{series.timeframe.name}",
        "prefect.resource.name": str(series), "candlelake.connection": series.connection,
        "candlelake.symbol": series.symbol, "candlelake.timeframe": series.timeframe.name,
    }
    payload = {
        "connection": series.connection, "symbol": series.symbol, "timeframe": series.timeframe.name,
        "ts": isoformat(change.ts_us), "known_at": isoformat(change.known_at_us), "run_id": change.new["run_id"],
        "old": {name: change.old[name] for name in VALUES}, "new": {name: change.new[name] for name in VALUES},
    }
    return resource, payload


def emit_revisions(feed: Feed, result: RunResult) -> None:
    """Send an event for each revision that the run made; outside of a run there is nobody to tell."""
    if not result.revised or (TaskRunContext.get() is None and FlowRunContext.get() is None):
        return
    with feed.lake.metadata.read() as tx:
        made = revisions_of_run(tx, result.run_id)
    here = {item.series for item in result.series}  # a run's batches share its id, and each tells its own
    changes = [change for change in made if str(change.series) in here]
    for change in changes[:MOST_EVENTS]:
        resource, payload = revision_event(change)
        emit_event(REVISION, resource=resource, payload=payload)

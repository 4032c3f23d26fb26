"""The event `candlelake.data-received`: a hint that a series has grown, with its name and range, never with data.

Events are delivered at most once. Whoever needs every candle reads the lake from a watermark of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.context import FlowRunContext, TaskRunContext
from prefect.events import emit_event

from core.clock import isoformat
from core.interval import Interval
from core.series import Series
from feed.context import Feed
from feed.result import RunResult
from storage.series import list_series

DATA_RECEIVED = "candlelake.data-received"

Watermarks = Mapping[Series, int | None]  # the open time of each series' last stored candle


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A series has grown or was corrected; what is new lies in `interval`."""

    series: Series
    interval: Interval
    stored: int
    revised: int
    run_id: str

    def resource(self) -> dict[str, str]:
        """Return the event's resource: the series."""
        part = self.series
        return {
            "prefect.resource.id": f"candlelake.series.{part.connection}.{part.symbol}.{part.timeframe.name}",
            "prefect.resource.name": str(part), "candlelake.connection": part.connection,
            "candlelake.symbol": part.symbol, "candlelake.timeframe": part.timeframe.name,
        }

    def payload(self) -> dict[str, Any]:
        """Return the event's payload."""
        return {
            "connection": self.series.connection, "symbol": self.series.symbol,
            "timeframe": self.series.timeframe.name, "start": isoformat(self.interval.start),
            "end": isoformat(self.interval.end), "stored": self.stored, "revised": self.revised, "run_id": self.run_id,
        }


def watermarks(feed: Feed, connections: Iterable[str]) -> dict[Series, int | None]:
    """Return the last stored candle of each series of these connections."""
    with feed.lake.metadata.read() as tx:
        return {row.series: row.last_us for slug in connections for row in list_series(tx, slug)}


def received(result: RunResult, before: Watermarks, after: Watermarks, asked: Interval | None = None) -> list[DataReceived]:
    """Return an event for each series that the run stored or revised something of.

    Its range is what was asked for, or else runs from the watermark before the run to the one after it.
    """
    names = {str(series): series for series in after}
    out = []
    for item in result.series:
        series = names.get(item.series)
        if series is None or not (item.stored or item.revised):
            continue
        last = after[series] or 0
        start = before.get(series)
        end = last + series.timeframe.length_us
        interval = asked or Interval(min(last, last if start is None else start), end)
        out.append(DataReceived(series, interval, item.stored, item.revised, result.run_id))
    return out


def emit(events: Iterable[DataReceived]) -> None:
    """Send the events to Prefect's server; outside of a run there is nobody to tell."""
    if TaskRunContext.get() is None and FlowRunContext.get() is None:
        return
    for event in events:
        emit_event(DATA_RECEIVED, resource=event.resource(), payload=event.payload())

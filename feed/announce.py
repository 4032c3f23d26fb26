"""Tells subscribers what a run has stored: `DataReceived` for each series that grew or was corrected, after the commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.clock import to_us
from core.interval import Interval
from core.series import Series
from feed.context import Feed
from feed.result import RunResult
from pipeline.events import DataReceived, publish
from storage.head import Batch
from storage.series import list_series


def data_received(feed: Feed, result: RunResult) -> list[DataReceived]:
    """Return an event for each series that the run stored or revised something of; its range ends with the last candle's close."""
    told = [item for item in result.series if item.changed is not None]
    if not told:
        return []
    with feed.lake.metadata.read() as tx:
        names: Mapping[str, Series] = {str(row.series): row.series for row in list_series(tx)}
    out = []
    for item in told:
        series = names.get(item.series)
        if series is not None and item.changed is not None:
            interval = Interval(item.changed.start, item.changed.end - 1 + series.timeframe.length_us)
            out.append(DataReceived(series, result.run_id, interval, item.stored, item.revised))
    return out


def candles_streamed(feed: Feed, batches: Sequence[Batch], run_id: str) -> list[DataReceived]:
    """Return an event for each series that a stream closed candles of; some of them the minutely fetch may have stored before."""
    with feed.lake.metadata.read() as tx:
        names = {row.id: row.series for row in list_series(tx)}
    spans: dict[int, tuple[Interval, int]] = {}
    for batch in batches:
        if batch.series_id in names and batch.candles.height:
            ts = batch.candles["ts"]
            span = Interval(to_us(ts[0]), to_us(ts[-1]) + names[batch.series_id].timeframe.length_us)
            before, stored = spans.get(batch.series_id, (span, 0))
            spans[batch.series_id] = (
                Interval(min(before.start, span.start), max(before.end, span.end)), stored + batch.candles.height)
    return [DataReceived(names[key], run_id, span, stored, 0) for key, (span, stored) in spans.items()]


def announce(feed: Feed, result: RunResult) -> RunResult:
    """Publish the run's events to the subscribers of this process, and return the result."""
    publish(data_received(feed, result))
    return result

"""The end of a run: its result, kept with the run's record, and each revision that it made as a line in the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from core.clock import isoformat
from feed.announce import announce
from feed.context import Feed
from feed.result import RunResult, SeriesResult, conclude
from storage.lake.revisions import RevisionRow, revisions_of_run
from storage.provenance import end_run

log = logging.getLogger(__name__)

MOST_LINES = 1000  # a provider that changes more than this at once is one line more, not a flood


def end(feed: Feed, run_id: str, what: str, series: Sequence[SeriesResult]) -> RunResult:
    """Return the end of a run. A run that changed nothing leaves nothing behind."""
    result = conclude(run_id, what, series)
    if not (result.stored or result.revised):
        return result
    with feed.lake.metadata.write() as tx:
        end_run(tx, run_id, result.status, result.message, feed.clock.now_us())
    if result.revised:
        with feed.lake.metadata.read() as tx:
            changes = revisions_of_run(tx, run_id)
        for change in changes[:MOST_LINES]:
            log.warning("%s", revision_line(change))
        if len(changes) > MOST_LINES:
            log.warning("%d revisions more; see `candlelake revisions`", len(changes) - MOST_LINES)
    return announce(feed, result)


def revision_line(change: RevisionRow) -> str:
    """Return one line that says what a provider changed of a stored candle."""
    fields = [f"{name} {change.old[name]} -> {change.new[name]}"
              for name in ("open", "high", "low", "close", "volume", "spread") if change.old[name] != change.new[name]]
    return f"revision: {change.series} {isoformat(change.ts_us)}: {', '.join(fields)}"

"""The end of a run: its result, kept with the run's record and in its connections' logs, and each revision as a line."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection

from connections.rows import read_connections, write_log
from core.clock import isoformat
from core.errors import CandlelakeError, LeaseHeldError
from feed.announce import announce
from feed.context import Feed
from feed.result import RunResult, SeriesResult, conclude
from storage.lake.revisions import RevisionRow, revisions_of_run
from storage.provenance import end_run

log = logging.getLogger(__name__)

MOST_LINES = 1000  # a provider that changes more than this at once is one line more, not a flood


def end(feed: Feed, run_id: str, what: str, series: Sequence[SeriesResult]) -> RunResult:
    """Return the end of a run. A run that found nothing to change leaves nothing behind."""
    result = conclude(run_id, what, series)
    if not (result.stored or result.revised):
        if result.status == "failed":
            with feed.lake.metadata.write() as tx:
                _log_for_connections(tx, result, what, feed.clock.now_us())
        return result
    with feed.lake.metadata.write() as tx:
        end_run(tx, run_id, result.status, result.message, feed.clock.now_us())
        _log_for_connections(tx, result, what, feed.clock.now_us())
    if result.revised:
        with feed.lake.metadata.read() as tx:
            changes = revisions_of_run(tx, run_id)
        for change in changes[:MOST_LINES]:
            log.warning("%s", revision_line(change))
        if len(changes) > MOST_LINES:
            log.warning("%d revisions more; see `candlelake revisions`", len(changes) - MOST_LINES)
    return announce(feed, result)


def cut_short(what: str, slug: str, results: Iterable[SeriesResult], error: CandlelakeError) -> list[SeriesResult]:
    """Return what a run tells of a connection that it could not finish: why, and what it had changed until then.

    A lease that another run holds is no failure: that run does the work.
    """
    if isinstance(error, LeaseHeldError):
        told = list(results)
        for result in told:
            result.skipped = str(error)
        return told
    log.warning("%s: %s stopped: %s", slug, what, error)
    return [*(result for result in results if result.stored or result.revised), SeriesResult(slug, error=error)]


def _log_for_connections(tx: Connection, result: RunResult, what: str, now_us: int) -> None:
    """Tell in each connection's log what the run did there; fetches, one a minute, only tell when they fail."""
    parts: dict[str, list[SeriesResult]] = defaultdict(list)
    for item in result.series:
        parts[item.series.split(" ", 1)[0]].append(item)
    ids = {row.slug: row.id for row in read_connections(tx)}
    for slug, own in sorted(parts.items()):
        ended = conclude(result.run_id, what, own)
        write_log(tx, (ids.get(slug), slug), what.split(" ", 1)[0], "error" if ended.status == "failed" else "success", ended.message, now_us,
                  lake_run=result.run_id)


def revision_line(change: RevisionRow) -> str:
    """Return one line that says what a provider changed of a stored candle."""
    fields = [f"{name} {change.old[name]} -> {change.new[name]}"
              for name in ("open", "high", "low", "close", "volume", "spread") if change.old[name] != change.new[name]]
    return f"revision: {change.series} {isoformat(change.ts_us)}: {', '.join(fields)}"

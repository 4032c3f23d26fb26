"""Repair: fills what is missing between the first and the last candle of each series, and what is due in the ledger."""

from __future__ import annotations

import logging

from core.errors import CandlelakeError
from core.interval import Interval
from feed.context import Feed
from feed.fetch import ready_connections
from feed.life import look
from feed.result import Progress, RunResult, SeriesResult, no_progress
from feed.runs import cut_short, end
from feed.series_run import SeriesRun
from feed.writing import Writer
from providers.base import MarketDataProvider, Priority
from storage.ledger import booked_span
from storage.series import SeriesRow, list_series

log = logging.getLogger(__name__)


async def repair(
    feed: Feed, connection: str | None = None, *, run_id: str | None = None, progress: Progress = no_progress,
) -> RunResult:
    """Ask again for all that is missing and may still come: at both ends, in the middle, and booked gaps that are due.

    Raises:
        NotFoundError: no such connection.
    """
    run_id = run_id or feed.new_run_id("repair")
    slugs = [feed.connections.get(connection).slug] if connection is not None else ready_connections(feed)
    results: list[SeriesResult] = []
    for number, slug in enumerate(slugs, 1):
        results += await _repair_connection(feed, slug, run_id)
        progress(number, len(slugs), slug)
    return end(feed, run_id, "repair", results)


async def _repair_connection(feed: Feed, slug: str, run_id: str) -> list[SeriesResult]:
    with feed.lake.metadata.read() as tx:
        rows = [row for row in list_series(tx, slug, only_active=True) if row.first_us is not None]
    writer = Writer(feed.lake, run_id)
    results = {row.id: writer.result(row.id, str(row.series)) for row in rows}
    if not rows:
        return []
    try:
        async with (
            feed.leases.hold(f"repair:{slug}", seconds=60),
            feed.connections.open_provider(slug, priority=Priority.REPAIR) as provider,
        ):
            await look(feed, provider, slug)
            for row in rows:
                await _repair_series(feed, provider, row, writer)
    except CandlelakeError as error:
        return cut_short("repair", slug, results.values(), error)
    return list(results.values())


async def _repair_series(feed: Feed, provider: MarketDataProvider, row: SeriesRow, writer: Writer) -> None:
    result = writer.result(row.id, str(row.series))
    run = SeriesRun.plan(feed, provider, row, _span(feed, row))
    try:
        await run.fill(run.missing(), writer, "backfill", is_live=False)
    except CandlelakeError as error:
        log.warning("%s: %s", row.series, error)
        result.error = error
    result.gaps = run.open_gaps()


def _span(feed: Feed, row: SeriesRow) -> Interval:
    """From the first stored or booked slot to the last stored candle: what is newer is fetch's work."""
    with feed.lake.metadata.read() as tx:
        booked = booked_span(tx, row.id)
    first, last = row.first_us or 0, row.last_us or 0
    return Interval(first if booked is None else min(first, booked.start), last)

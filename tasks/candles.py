"""Tasks around fetch, backfill and repair: batches, retries, artifacts and events; the work itself is feed's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from prefect import task

from core.interval import Interval
from core.series import Series
from feed import Feed, RunResult, open_feed
from feed.announce import data_received
from feed.backfill import backfill
from feed.fetch import due_series, fetch, ready_connections, seconds_until_due
from feed.repair import repair
from storage.coverage import coverage
from storage.ledger import list_gaps
from tasks.artifacts import artifact_key, coverage_rows, gap_rows, publish_summary, publish_table
from tasks.events import emit, wake_pipelines
from tasks.outcome import join_results
from tasks.policies import POLICY, raise_while_tries_are_left
from tasks.progress import run_logger, shown_progress
from tasks.revisions import emit_revisions

BATCH_SERIES: Final = 100  # Prefect's server records some 20 task runs a second: never a task for each series

Batch = list[str]  # slugs of connections that one task works on


def batches(due: Mapping[str, int], most: int = BATCH_SERIES) -> list[Batch]:
    """Group connections, by how many due series each has, into batches of at most `most` series.

    A connection is never split: it is one session and one transaction. One with more series is a batch of its own.
    """
    out: list[Batch] = []
    room = 0
    for slug, count in due.items():
        if count == 0:
            continue
        if count > room:
            out.append([])
            room = most
        out[-1].append(slug)
        room -= count
    return out


@task(name="plan fetch", **POLICY)
async def plan_fetch(
    connection: str | None = None, symbol: str | None = None, timeframe: str | None = None, *, due_only: bool = True,
) -> list[Batch]:
    """Return the batches of connections that have series due, of this shard; waits for those about to settle."""
    with open_feed() as feed:
        slugs = [feed.connections.get(connection).slug] if connection else ready_connections(feed)
        if due_only:
            await asyncio.sleep(seconds_until_due(feed, slugs))
        due = {slug: len(due_series(feed, slug, symbol, timeframe, due_only=due_only)) for slug in slugs}
    plan = batches(due)
    run_logger().info("%d series of %d connections are due, in %d batches", sum(due.values()), len(slugs), len(plan))
    return plan


@task(name="fetch batch", **POLICY)
async def fetch_batch(
    batch: Batch, run_id: str, symbol: str | None = None, timeframe: str | None = None, *, due_only: bool = True,
) -> RunResult:
    """Fetch what is due of a batch of connections; a connection that fails is in the result, the others go on.

    A provider's failures are not retried here: the connection's back-off and the next minute's run do that.
    """
    with open_feed() as feed:
        result = await fetch(
            feed, batch, symbol=symbol, timeframe=timeframe, due_only=due_only, run_id=run_id)
        tell(feed, result)
        emit_revisions(feed, result)
    return result


@task(name="conclude fetch")
async def conclude_fetch(run_id: str, parts: Sequence[RunResult]) -> RunResult:
    """Join the batches' results and publish the run's summary."""
    result = join_results(run_id, "fetch", parts)
    if result.series:
        await publish_summary(result, "fetch")
    return result


@task(name="backfill series", **POLICY)
async def backfill_series(
    connection: str, symbol: str, timeframe: str, start: str, end: str, *, run_id: str,
) -> RunResult:
    """Store or book every candle of [start, end); goes on where an earlier run stopped."""
    series, interval = Series.parse(connection, symbol, timeframe), Interval.parse(start, end)
    with open_feed() as feed:
        async with shown_progress(artifact_key("backfill", str(series)), f"Backfill of {series}", "candles") as meter:
            result = await backfill(feed, series, interval, run_id=run_id, progress=meter)
        tell(feed, result)
        emit_revisions(feed, result)
        raise_while_tries_are_left(result)
        await publish_summary(result, "backfill")
        await publish_books(feed, connection, symbol, timeframe)
    return result


@task(name="repair gaps", **POLICY)
async def repair_gaps(connection: str | None, run_id: str) -> RunResult:
    """Ask again for what is missing and may still come, of one connection or of all of this shard."""
    with open_feed() as feed:
        async with shown_progress("repair-progress", "Repair of booked gaps", "connections") as meter:
            result = await repair(feed, connection, run_id=run_id, progress=meter)
        tell(feed, result)
        emit_revisions(feed, result)
        await publish_summary(result, "repair")
        await publish_books(feed, connection)
    return result


def tell(feed: Feed, result: RunResult) -> None:
    """Send an event for each series that the run changed, and wake the pipelines that run on one of them."""
    events = data_received(feed, result)
    emit(events)
    wake_pipelines(feed, events)


async def publish_books(
    feed: Feed, connection: str | None = None, symbol: str | None = None, timeframe: str | None = None,
) -> None:
    """Publish the coverage table and the gap table of what was worked on."""
    covered = await asyncio.to_thread(coverage, feed.lake, connection, symbol, timeframe)
    with feed.lake.metadata.read() as tx:
        gaps = list_gaps(tx, connection, symbol, timeframe)
    await publish_table(coverage_rows(covered), "coverage", "Coverage: every expected candle is stored or explained")
    await publish_table(gap_rows(gaps), "gaps", "Booked gaps: what is absent, why, and when it is asked for again")

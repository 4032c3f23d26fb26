"""Fetch: what has closed since the last one, for every series that is due, with an overlap and the recent holes.

One round is one transaction per connection. Connections run side by side and never hinder each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

import numpy as np

from connections.health import is_ready
from core.clock import MINUTE_US, SECOND_US
from core.errors import CandlelakeError
from core.interval import Interval
from core.slots import Slots
from feed.context import Feed
from feed.life import look
from feed.result import Progress, RunResult, SeriesResult, no_progress
from feed.runs import cut_short, end
from feed.series_run import SeriesRun, settle_seconds
from feed.settling import learn, next_due_us, wait_us
from feed.writing import Writer
from providers.base import MarketDataProvider, Priority
from storage.ledger import waiting_since
from storage.series import SeriesRow, list_series, mark_fetched
from storage.ticks.states import read_states

log = logging.getLogger(__name__)

HOLD_ROWS = 20_000  # a fetch that has this much to catch up writes in between
SOON_SECONDS = 20.0  # a scheduled round waits so long at most for candles that are about to settle
FIRST_LOOK_CANDLES = 500  # how far the first fetch of a new series looks back


async def fetch(
    feed: Feed, connections: Sequence[str] | None = None, *, symbol: str | None = None, timeframe: str | None = None,
    due_only: bool = True, run_id: str | None = None, progress: Progress = no_progress,
) -> RunResult:
    """Fetch the newest candles of all series that are due.

    Args:
        feed: the open home.
        connections: slugs; None means all that are active and not backing off.
        symbol: only this one.
        timeframe: only this one.
        due_only: leave out series whose next candle has not closed yet.
        run_id: names the run in logs and provenance.
        progress: told how many connections are done.

    Raises:
        NotFoundError: a slug that does not exist.
    """
    run_id = run_id or feed.new_run_id("fetch")
    slugs = list(connections) if connections is not None else ready_connections(feed)
    for slug in slugs:
        feed.connections.get(slug)
    gate = asyncio.Semaphore(feed.settings.fetch_concurrency)
    done = 0

    async def one(slug: str) -> list[SeriesResult]:
        nonlocal done
        async with gate:
            rows = due_series(feed, slug, symbol, timeframe, due_only=due_only)
            results = await fetch_connection(feed, slug, rows, run_id) if rows else []
        done += 1
        progress(done, len(slugs), slug)
        return results

    results = await asyncio.gather(*(one(slug) for slug in slugs))
    return end(feed, run_id, "fetch", [item for part in results for item in part])


def ready_connections(feed: Feed) -> list[str]:
    """Return the slugs of this shard's active connections that are not backing off."""
    now = feed.clock.now_us()
    index, count = (int(part) for part in feed.settings.shard.split("/"))
    ready = [c for c in feed.connections.list() if is_ready(c, now)]
    return [c.slug for c in ready if c.id % count == (index - 1) % count]


def due_series(
    feed: Feed, slug: str, symbol: str | None = None, timeframe: str | None = None, *, due_only: bool = True,
) -> list[SeriesRow]:
    """Return the connection's active series whose next candle should have closed."""
    with feed.lake.metadata.read() as tx:
        rows = list_series(tx, slug, symbol, timeframe, only_active=True)
    now = feed.clock.now_us()
    return [row for row in rows if not due_only or wait_us(row, now) == 0]


def seconds_until_due(feed: Feed, slugs: Sequence[str]) -> float:
    """Return how long to wait for the series that come due within `SOON_SECONDS`; 0.0 when there are none.

    A schedule fires on the full minute, when a candle has closed but not settled: without the wait it would be stored a
    whole round later.
    """
    now = feed.clock.now_us()
    with feed.lake.metadata.read() as tx:
        waits = [wait_us(row, now) for slug in slugs for row in list_series(tx, slug, only_active=True)]
    return max((wait for wait in waits if wait <= SOON_SECONDS * SECOND_US), default=0) / SECOND_US


async def fetch_connection(feed: Feed, slug: str, rows: Sequence[SeriesRow], run_id: str) -> list[SeriesResult]:
    """Fetch `rows` of one connection in one session and write them in one transaction."""
    writer = Writer(feed.lake, run_id, hold_rows=HOLD_ROWS)
    results = {row.id: writer.result(row.id, str(row.series)) for row in rows}
    began = feed.clock.now_us()
    try:
        async with (
            feed.leases.hold(f"fetch:{slug}", seconds=60),
            feed.connections.open_provider(slug, priority=Priority.LIVE) as provider,
        ):
            await look(feed, provider, slug)
            at_once = asyncio.Semaphore(max(1, provider.capabilities.concurrent_requests))
            is_streamed = await asyncio.to_thread(_is_streamed, feed, slug)
            runs = await asyncio.gather(*(_fetch_series(feed, provider, row, writer, at_once, is_streamed=is_streamed) for row in rows))
            await writer.flush()
            ended_well = [run for run in runs if run is not None and results[run.row.id].error is None]
            await asyncio.to_thread(_mark, feed, ended_well, results, began)
            for run in runs:
                if run is not None and writer.has_booked(run.row.id):
                    await asyncio.to_thread(run.count_newly_booked, results[run.row.id], began)
    except CandlelakeError as error:
        return cut_short("fetch", slug, results.values(), error)
    return list(results.values())


async def _fetch_series(
    feed: Feed, provider: MarketDataProvider, row: SeriesRow, writer: Writer, at_once: asyncio.Semaphore, *, is_streamed: bool,
) -> SeriesRun | None:
    result = writer.result(row.id, str(row.series))
    async with at_once:
        try:
            run = await asyncio.to_thread(SeriesRun.plan, feed, provider, row, _window(feed, provider, row))
            told = await asyncio.to_thread(_told_early, feed, run) if is_streamed else run.expected[:0]
            await run.fill(_wanted(feed, run, told), writer, "rest", is_live=True)
        except CandlelakeError as error:
            log.warning("%s: %s", row.series, error)
            result.error = error
            return None
    return run


def _window(feed: Feed, provider: MarketDataProvider, row: SeriesRow) -> Interval:
    """From one page before the last stored candle (recent holes, overlap) to now."""
    now = feed.clock.now_us()
    length = row.series.timeframe.length_us
    page = provider.capabilities.page_limit(row.series.timeframe)
    if row.last_us is None:
        return Interval(max(0, now - min(page, FIRST_LOOK_CANDLES) * length), now)
    back = max(0, page - 2 - (now - row.last_us) // length)  # as far as one request reaches anyway
    back = max(back, feed.overlap_candles(row.series.connection))
    start = max(0, min(row.last_us, now) - back * length)
    start = start if row.first_us is None else max(start, row.first_us)  # what lies before is backfill's, closed time too
    with feed.lake.metadata.read() as tx:  # what an earlier run got the newest page ahead of, and did not come to
        waiting = waiting_since(tx, row.id, now)
    return Interval(start if waiting is None else min(start, waiting), now)


def _is_streamed(feed: Feed, slug: str) -> bool:
    with feed.lake.metadata.read() as tx:
        return bool(read_states(tx, slug))


def _told_early(feed: Feed, run: SeriesRun) -> Slots:
    """Return what a stream has told since REST was last heard: it may have ended before REST confirmed all of it."""
    settle_us = round(settle_seconds(feed, run.row) * SECOND_US)
    return run.streamed(max(0, (run.row.fetched_at_us or 0) - settle_us - MINUTE_US))  # what had not settled then was not compared


def _wanted(feed: Feed, run: SeriesRun, streamed: Slots) -> Slots:
    """The missing slots, and the last stored and the streamed ones again: the provider may have changed them, or tell them otherwise."""
    count = feed.overlap_candles(run.row.series.connection)
    overlap = run.stored[len(run.stored) - min(count, len(run.stored)):]
    missing = run.missing()
    if not len(missing) and not len(streamed) and (run.is_closed_now() or run.is_delisted()):
        return missing
    if run.row.first_us is not None:  # holes from before the first stored candle are backfill's work
        missing = missing[missing > run.row.first_us]
    return np.union1d(np.union1d(missing, overlap), streamed).astype(np.int64)


def _mark(feed: Feed, runs: Sequence[SeriesRun], results: Mapping[int, SeriesResult], began_us: int) -> None:
    """Note that the fetches ended well, what they teach about settling, and when each series is due again."""
    now = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        for run in runs:
            learn(tx, feed, run, results[run.row.id].revised, began_us)
            mark_fetched(tx, run.row.id, now, next_due_us(run.grid, now, settle_seconds(feed, run.row), run.calendar))

"""REST confirms what a stream made early: from the last candles known up to now, in the stream's own session."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from core.errors import CandlelakeError
from core.interval import Interval
from core.slots import Slots
from feed.context import Feed
from feed.result import SeriesResult
from feed.series_run import SeriesRun
from feed.writing import Writer
from providers.base import MarketDataProvider
from storage.series import SeriesRow

FIRST_LOOK_CANDLES = 500
HOLD_ROWS = 20_000


async def confirm(
    feed: Feed, provider: MarketDataProvider, slug: str, rows: Sequence[SeriesRow], run_id: str, *,
    streamed: Mapping[int, Collection[int]] | None = None,
) -> list[SeriesResult]:
    """Fetch what has closed of `rows` and read their newest candles again; a streamed one that differs becomes a revision.

    Args:
        feed: the open home.
        provider: connected.
        slug: the connection.
        rows: its series, read just now.
        run_id: for provenance.
        streamed: open times, by series, that only the stream has told so far; None looks for them in the lake.

    Raises:
        LeaseHeldError: a fetch of the connection is at work; it does the same.
    """
    writer = Writer(feed.lake, run_id, hold_rows=HOLD_ROWS)
    at_once = asyncio.Semaphore(max(1, provider.capabilities.concurrent_requests))

    async def one(row: SeriesRow) -> None:
        async with at_once:
            try:
                run = await asyncio.to_thread(SeriesRun.plan, feed, provider, row, _window(feed, row))
                await run.fill(_wanted(feed, run, None if streamed is None else streamed.get(row.id, ())), writer, "rest", is_live=True)
            except CandlelakeError as error:
                writer.result(row.id, str(row.series)).error = error

    results = [writer.result(row.id, str(row.series)) for row in rows]
    async with feed.leases.hold(f"fetch:{slug}", seconds=60):
        await asyncio.gather(*(one(row) for row in rows))
        await writer.flush()
    return results


def _window(feed: Feed, row: SeriesRow) -> Interval:
    now, length = feed.clock.now_us(), row.series.timeframe.length_us
    if row.last_us is None:
        return Interval(max(0, now - FIRST_LOOK_CANDLES * length), now)
    back = max(feed.overlap_candles(row.series.connection), FIRST_LOOK_CANDLES - (now - row.last_us) // length)
    return Interval(max(0, min(row.last_us, now) - back * length), now)


def _wanted(feed: Feed, run: SeriesRun, streamed: Collection[int] | None) -> Slots:
    """What is missing, the overlap, and every candle in the window that only the stream has told so far."""
    count = feed.overlap_candles(run.row.series.connection)
    overlap = run.stored[len(run.stored) - min(count, len(run.stored)):]
    missing = run.missing()
    if run.row.first_us is not None:
        missing = missing[missing > run.row.first_us]
    told = run.streamed() if streamed is None else np.asarray(sorted(streamed), dtype=np.int64)
    told = told[(told >= run.interval.start) & (told < run.interval.end)]
    return np.union1d(np.union1d(missing, overlap), told).astype(np.int64)

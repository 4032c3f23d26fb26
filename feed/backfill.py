"""Backfill: history of one series, chunk by chunk, resumed from the store's contents wherever it was stopped."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from core.errors import (
    CandlelakeError,
    ClockRuleError,
    InputError,
    LeaseHeldError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.series import Series
from feed.clock_symbols import prove_symbol
from feed.clock_watch import prove_clock
from feed.context import Feed
from feed.life import look
from feed.result import Progress, RunResult, SeriesResult, no_progress
from feed.runs import end
from feed.series_run import SeriesRun
from feed.writing import Writer
from providers.base import Priority
from storage.series import SeriesRow, drop_untouched, ensure_series, list_series

log = logging.getLogger(__name__)

_REFUSALS = (InputError, UnknownSymbolError, UnsupportedError)  # of what was asked for, not of us or of now
FLUSH_ROWS = 100_000  # a backfill hands its rows over to the lake after so many


@dataclass(slots=True)
class _Counter:
    """Turns settled slots into progress."""

    total: int
    what: str
    progress: Progress
    done: int = 0

    def settled(self, count: int) -> None:
        """Count slots that are done with and show it."""
        self.done = min(self.total, self.done + count)
        if count:
            self.progress(self.done, self.total, self.what)


async def backfill(
    feed: Feed, series: Series, interval: Interval, *, run_id: str | None = None, progress: Progress = no_progress,
) -> RunResult:
    """Store every candle of `series` that opens in `interval`, and book each one that the provider does not have.

    What is stored or booked for good is not asked for again, so a killed backfill goes on where it stopped. A new series that
    the provider refuses outright is not kept: else each scheduled fetch would ask for a symbol that somebody mistyped.

    Raises:
        NotFoundError: no such connection.
        InputError: the provider has no such timeframe.
    """
    run_id = run_id or feed.new_run_id("backfill")
    row, is_new = register(feed, series)
    writer = Writer(feed.lake, run_id, flush_rows=FLUSH_ROWS)
    result = writer.result(row.id, str(series))
    try:
        for _ in range(2):  # once more with a clock that history has shown to be another
            async with (
                feed.leases.hold(f"backfill:{series}", seconds=60),
                feed.connections.open_provider(series.connection, priority=Priority.BACKFILL) as provider,
            ):
                if await prove_clock(feed, provider, series.connection, interval):
                    continue
                await prove_symbol(feed, provider, series, interval)
                await look(feed, provider, series.connection)
                run = await asyncio.to_thread(SeriesRun.plan, feed, provider, row, interval)
                await _fill(run, writer, result, progress)
                result.gaps = run.open_gaps()
                result.absent = await asyncio.to_thread(run.absent)
                break
        else:
            raise ClockRuleError("server clock", "rules that its own weeks contradict twice", "rules that hold",
                                 f"look at: candlelake clock {series.connection}")
    except LeaseHeldError as error:
        result.skipped = str(error)
        result.error = error
    except CandlelakeError as error:
        log.warning("%s: backfill stopped: %s", series, error)
        result.error = error
        if is_new and isinstance(error, _REFUSALS):
            await asyncio.to_thread(_take_back, feed, row)
    flushed = await asyncio.to_thread(feed.lake.flush, [row.id])
    if flushed.partitions:
        await asyncio.to_thread(feed.lake.write_catalog)  # whoever reads the lake without us sees the new files at once
    return end(feed, run_id, f"backfill of {series}", [result])


async def _fill(run: SeriesRun, writer: Writer, result: SeriesResult, progress: Progress) -> None:
    wanted = run.missing(failed_too=True)
    counter = _Counter(len(run.expected), f"{run.row.series}", progress, done=len(run.expected) - len(wanted))
    progress(counter.done, counter.total, counter.what)
    await run.fill(wanted, writer, "backfill", settled=counter.settled)
    log.info("%s: %d requests, %d stored", run.row.series, result.requests, result.stored)


def register(feed: Feed, series: Series) -> tuple[SeriesRow, bool]:
    """Return the row of `series`, and whether it was made because its connection had it not yet."""
    connection = feed.connections.get(series.connection)
    with feed.lake.metadata.write() as tx:
        is_new = not list_series(tx, series.connection, series.symbol, series.timeframe)
        return ensure_series(tx, connection.id, series.symbol, series.timeframe.name), is_new


def _take_back(feed: Feed, row: SeriesRow) -> None:
    with feed.lake.metadata.write() as tx:
        drop_untouched(tx, row.id)

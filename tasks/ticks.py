"""Tasks around ticks and streams: a stream until it is told to stop, history of ticks, their cleanup."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Final

from prefect import task

from core.errors import CandlelakeError, LeaseHeldError
from core.interval import Interval
from feed import Feed, open_feed
from feed.announce import candles_streamed
from feed.stream import StreamOptions, StreamResult, Subscribers, stream
from feed.ticks import TickBackfill, apply_tick_cleanup, backfill_ticks, plan_tick_cleanup
from pipeline.events import publish
from storage.head import Batch
from tasks.artifacts import publish_table
from tasks.events import emit, wake_pipelines
from tasks.policies import POLICY
from tasks.progress import run_logger, shown_progress

TELL_SECONDS: Final = 0.5


@task(name="stream connections")
async def stream_connections(connection: str | None, run_id: str, *, keep_ticks: bool = True) -> tuple[list[StreamResult], list[str]]:
    """Stream one connection, or all whose setting `stream` is on, until this process is told to end.

    Connections that another run streams are left to it; one that fails ends alone, with its error in the second list.
    """
    stop = asyncio.Event()
    with open_feed() as feed, _stopped_by_signals(stop):
        slugs = [feed.connections.get(connection).slug] if connection else wanted(feed)
        options = StreamOptions(ticks=keep_ticks, while_marked=connection is None)
        async with telling(feed, run_id, stop) as closed:
            ends = await asyncio.gather(
                *(stream(feed, slug, stop=stop, options=options, run_id=run_id, subscribers=Subscribers(candles=closed))
                  for slug in slugs), return_exceptions=True)
    done = [end for end in ends if isinstance(end, StreamResult)]
    errors = [end for end in ends if isinstance(end, BaseException)]
    for error in errors:
        if not isinstance(error, CandlelakeError):
            raise error
    if done:
        await publish_table([asdict(end) for end in done], "streams", "Streams: what came, what REST confirmed, what was lost")
    failed = [str(error) for error in errors if not isinstance(error, LeaseHeldError)]
    for text in failed:
        run_logger().error(text)
    return done, failed


@contextlib.asynccontextmanager
async def telling(feed: Feed, run_id: str, stop: asyncio.Event) -> AsyncIterator[Callable[[Sequence[Batch]], None]]:
    """Give a call that takes stored candles; twice a second all of them become events, and one event wakes their pipelines.

    An event is a hint: when the store cannot be reached it is lost, and the sweep for unseen candles makes up for it. Any other
    failure is ours: it stops the streams, and is raised when they have ended.
    """
    waiting: list[Batch] = []

    async def tell() -> None:
        taken = waiting.copy()
        waiting.clear()  # here, where streams add to it too: nothing comes in between
        if taken:
            try:
                await asyncio.to_thread(_tell, feed, taken, run_id)
            except CandlelakeError as error:
                run_logger().warning("pipelines were not told of streamed candles, their sweep will find them: %s", error)

    async def again_and_again() -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            await tell()

    teller = asyncio.create_task(again_and_again())
    teller.add_done_callback(lambda _: stop.set())
    try:
        yield waiting.extend
    finally:
        teller.cancel()
        await asyncio.wait([teller])
        if not teller.cancelled():
            teller.result()  # raises what ended it
        await tell()  # the last candles


def _tell(feed: Feed, batches: Sequence[Batch], run_id: str) -> None:
    events = candles_streamed(feed, batches, run_id)
    publish(events)
    emit(events)
    wake_pipelines(feed, events)


def wanted(feed: Feed) -> list[str]:
    """Return the slugs of the active connections whose setting `stream` is on."""
    return [row.slug for row in feed.connections.list() if row.is_active and row.settings.get("stream")]


@task(name="backfill ticks", **POLICY)
async def backfill_symbol(connection: str, symbol: str, start: str, end: str, *, run_id: str) -> TickBackfill:
    """Store the ticks of [start, end) that the provider still has."""
    with open_feed() as feed:
        async with shown_progress("backfill-ticks", f"Ticks of {connection} {symbol}", "microseconds") as meter:
            result = await backfill_ticks(feed, connection, symbol, Interval.parse(start, end), run_id=run_id, progress=meter)
    run_logger().info(result.message)
    return result


@task(name="cleanup ticks", **POLICY)
async def cleanup_ticks(*, apply: bool) -> int:
    """Plan what is older than the retentions of ticks, and with `apply` remove it; returns how many ticks that is."""
    with open_feed() as feed:
        plans = await asyncio.to_thread(plan_tick_cleanup, feed)
        rows = sum(plan.rows for plan in plans)
        run_logger().info("%d ticks are older than their retention", rows)
        if apply:
            await asyncio.to_thread(apply_tick_cleanup, feed, plans)
    return rows


@contextlib.contextmanager
def _stopped_by_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT end streams cleanly: what was heard is on disk, and the next run knows where to go on."""
    loop = asyncio.get_running_loop()
    before = {}
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, stop.set)
        except (ValueError, RuntimeError, NotImplementedError):  # signals reach the main thread alone
            run_logger().info("streams in this thread get no signals; they end with their run")
            break
        before[number] = previous
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            with contextlib.suppress(ValueError, TypeError):
                signal.signal(number, handler)

"""The stream of one connection, for as long as it is wanted: what people change of the connection takes effect within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from typing import Final

from connections.leases import Lease
from connections.rows import ConnectionRow
from core.clock import SECOND_US
from core.errors import CandlelakeError, InputError, LeaseHeldError, NotFoundError, TransientError
from feed.context import Feed
from feed.stream_candles import StreamCandles
from feed.stream_options import StreamOptions, StreamResult, Subscribers
from feed.stream_run import StreamRun
from storage.series import SeriesRow, list_series

log = logging.getLogger(__name__)
SWITCHED_OFF: Final = "the connection was switched off, or its setting stream was"


async def stream(
    feed: Feed, slug: str, *, stop: asyncio.Event, options: StreamOptions | None = None, run_id: str | None = None,
    subscribers: Subscribers | None = None,
) -> StreamResult:
    """Stream a connection until `stop` is set or it is switched off; begins anew when its series are changed.

    Raises:
        LeaseHeldError: another run streams it.
        InputError: it has no active series, or its provider streams nothing.
        PermanentError: only a person can mend it: login refused, unknown symbol, disk full.
    """
    options, run_id = options or StreamOptions(), run_id or feed.new_run_id("stream")
    await asyncio.to_thread(_streamed, feed, slug)
    done = StreamResult(run_id, slug)
    async with feed.leases.hold(f"stream:{slug}", seconds=options.lease_seconds) as lease:
        run = await asyncio.to_thread(_open, feed, slug, lease, options, run_id)
        while True:
            run.subscribers = subscribers or Subscribers()
            has_changed = await _work(run, stop)
            done = done.plus(run.result())
            if not has_changed or stop.is_set():
                return done
            try:
                run = await asyncio.to_thread(_open, feed, slug, lease, options, run_id)
            except (InputError, NotFoundError):
                return replace(done, message=SWITCHED_OFF)
            if not _is_wanted(run):
                return replace(done, message=SWITCHED_OFF)
            log.info("%s: stream: begins anew with the series that were changed", slug)


async def _work(run: StreamRun, stop: asyncio.Event) -> bool:
    """Work until `stop`, or until the connection is no longer what it was when the run was opened; return whether it is that."""
    await asyncio.to_thread(run.start)
    halt = asyncio.Event()
    helpers = [asyncio.create_task(work()) for work in (run.beat, run.commits)]
    watchers = [asyncio.create_task(_pass_on(stop, halt)), asyncio.create_task(_watch(run, halt))]
    state = "failed"
    try:
        await run.sessions(halt, helpers)
        state = "stopped"
        if watchers[1].done():
            watchers[1].result()  # raises what ended it
    except CandlelakeError as error:
        run.message = str(error)
        raise
    finally:
        for task in (*helpers, *watchers):
            task.cancel()
        await asyncio.gather(*helpers, *watchers, return_exceptions=True)
        with contextlib.suppress(LeaseHeldError):  # whoever streams now tells how the stream fares
            await asyncio.shield(run.finish(state))
    return not stop.is_set()


async def _pass_on(stop: asyncio.Event, halt: asyncio.Event) -> None:
    await stop.wait()
    halt.set()


async def _watch(run: StreamRun, halt: asyncio.Event) -> None:
    """Set `halt` when the connection has changed."""
    try:
        while True:
            await asyncio.sleep(run.options.beat_seconds)
            try:
                if await asyncio.to_thread(_has_changed, run):
                    return
            except TransientError as error:
                log.info("%s: stream: whether it is still wanted is not known: %s", run.slug, error)
    finally:
        halt.set()


def _has_changed(run: StreamRun) -> bool:
    try:
        return not _is_wanted(run) or _keys(_series(run.feed, run.slug)) != _keys(run.candles.rows)
    except NotFoundError:
        return True


def _is_wanted(run: StreamRun) -> bool:
    connection = run.feed.connections.get(run.slug)
    return connection.is_active and (not run.options.while_marked or bool(connection.settings.get("stream")))


def _series(feed: Feed, slug: str) -> list[SeriesRow]:
    with feed.lake.metadata.read() as tx:
        return list_series(tx, slug, only_active=True)


def _keys(rows: list[SeriesRow]) -> set[int]:
    return {row.id for row in rows}


def _streamed(feed: Feed, slug: str) -> tuple[ConnectionRow, list[SeriesRow]]:
    """Return the connection and the series that are to be streamed; InputError when there is nothing to stream."""
    connection, rows = feed.connections.get(slug), _series(feed, slug)
    if not connection.is_active:
        raise InputError("connection", slug, "an active one", f"run: candlelake connections activate {slug}")
    if not rows:
        raise InputError("connection", slug, "one with active series", f"add some: candlelake connections update {slug} --symbol ...")
    return connection, rows


def _open(feed: Feed, slug: str, lease: Lease, options: StreamOptions, run_id: str) -> StreamRun:
    connection, rows = _streamed(feed, slug)
    calendars = {row.series.symbol: feed.calendar(row, connection.type) for row in rows}
    candles = StreamCandles(feed, lease, slug, rows, run_id, round(options.lateness_seconds * SECOND_US), calendars)
    return StreamRun(feed, lease, slug, connection.id, run_id, options, candles, calendars)


__all__ = ["StreamOptions", "StreamResult", "Subscribers", "stream"]

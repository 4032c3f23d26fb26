"""Commands of streams and ticks: stream, streams, ticks, tick-gaps, backfill-ticks."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import note, print_json, print_object, print_rows, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cli.stream_lines import StreamLines
    from core.ticks import Tick
    from feed import Feed
    from feed.stream import StreamResult, Subscribers
    from storage.head import Batch

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling, e.g. BTC/USDT.")]
GAPS = ("connection", "symbol", "start", "end", "cause", "seen_at", "healed_at")
STATES = ("connection", "state", "heartbeat", "last_tick", "lag_seconds", "ticks_per_second_last_minute", "ticks_per_second", "ticks",
          "candles", "agreed", "contradicted", "reconnects", "losses", "silent", "message")


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command()(stream)
    app.command()(streams)
    app.command()(ticks)
    app.command("tick-gaps")(tick_gaps)
    app.command("backfill-ticks")(backfill_ticks)


def stream(
    slug: Slug,
    show: Annotated[bool, typer.Option("--print", help="Show each tick and each stored candle as a JSON line.")] = False,
    keep_ticks: Annotated[bool, typer.Option(
        "--ticks/--no-ticks", help="Keep ticks and build candles from them, or take the venue's own candles.")] = True,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long; without it, at Ctrl-C.")] = None,
    as_json: Json = False,
) -> int:
    """Stream a connection until Ctrl-C: ticks to disk, candles early, REST's word last."""
    from core.series import check_slug
    from feed import open_feed
    from feed.stream import StreamOptions
    from feed.stream import stream as run_stream

    check_slug(slug)
    for name in ("feed.stream", "feed.stream_run", "feed.stream_session"):  # whoever watches it wants to see it break and come back
        logging.getLogger(name).setLevel(logging.INFO)

    async def run() -> tuple[StreamResult, int]:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if seconds is not None:
            loop.call_later(seconds, stop.set)
        options = StreamOptions(ticks=keep_ticks)
        if not show:
            return await run_stream(feed, slug, stop=stop, options=options), 0
        with _printing(feed, slug, lambda: loop.call_soon_threadsafe(stop.set)) as (lines, subscribers):
            result = await run_stream(feed, slug, stop=stop, options=options, subscribers=subscribers)
        return result, lines.skipped

    with open_feed() as feed:
        result, skipped = asyncio.run(run())
    if as_json:
        print_json(asdict(result))
        return 0
    note(f"stream of {slug} ended: {result.ticks} ticks, {result.candles} candles ({result.agreed} confirmed, "
         f"{result.contradicted} revised), {result.repeats} repeats, {result.late} late, {result.reconnects} reconnects, "
         f"{result.losses} lost ranges")
    if skipped:
        note(f"{skipped} lines were not printed: their reader was too slow; what they told is stored")
    return 0


@contextmanager
def _printing(feed: Feed, slug: str, on_closed: Callable[[], object]) -> Iterator[tuple[StreamLines, Subscribers]]:
    """Give subscribers that print what they get; `on_closed` is called when nobody reads it any more."""
    import orjson

    from cli.output import JSON_OPTIONS
    from cli.stream_lines import StreamLines
    from core.clock import isoformat
    from feed.stream import Subscribers
    from storage.series import list_series

    with feed.lake.metadata.read() as tx:
        names = {row.id: {"symbol": row.series.symbol, "timeframe": row.series.timeframe.name} for row in list_series(tx, slug)}
    lines = StreamLines(sys.stdout.fileno(), on_closed)

    def show_ticks(batch: Sequence[Tick]) -> None:
        for tick in batch:
            told = {key: value for key, value in tick._asdict().items() if value is not None and not key.endswith("_us")}
            lines.put(orjson.dumps({"type": "tick", "ts": isoformat(tick.ts_us), **told}, option=JSON_OPTIONS))

    def show_candles(batches: Sequence[Batch]) -> None:
        for batch in batches:
            for row in batch.candles.to_dicts():
                lines.put(orjson.dumps({"type": "candle", **names[batch.series_id], **row}, option=JSON_OPTIONS))

    try:
        yield lines, Subscribers(show_ticks, show_candles)
    finally:
        lines.close()


def streams(as_json: Json = False) -> None:
    """Show how each stream fares: its state, lag, rate, what it stored and lost."""
    from core.clock import isoformat
    from storage import open_lake
    from storage.ticks.states import read_states

    lake = open_lake()
    try:
        with lake.metadata.read() as tx:
            states = read_states(tx)
    finally:
        lake.close()
    rows = [{"connection": item.connection, "state": item.state, "heartbeat": isoformat(item.heartbeat_us),
             "last_tick": None if item.last_tick_us is None else isoformat(item.last_tick_us), "lag_seconds": item.lag_seconds,
             "ticks_per_second": item.ticks_per_second, **item.counts, "silent": sorted(item.counts.get("silent", ())), "message": item.message} for item in states]
    print_rows(rows, STATES, as_json=as_json, empty="no stream has run yet: candlelake stream SLUG")


def ticks(
    slug: Slug, symbol: Symbol,
    start: Annotated[str | None, typer.Option(help="From this instant on; ISO 8601, UTC when it has no offset.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this instant, exclusive.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest of the range.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the stored ticks of a symbol, oldest first."""
    from cli.data import FORMATS, TABLE_ROWS, parse_range, write_frame
    from core.errors import InputError
    from storage import open_lake

    shape = "json" if as_json else format_
    if shape not in FORMATS:
        raise InputError("--format", shape, FORMATS, "use one of those")
    if shape == "parquet" and output is None and sys.stdout.isatty():
        raise InputError("--format", shape, "parquet into a file or a pipe", "add -o FILE")
    span = parse_range(start, end)
    if shape == "table" and (start, end, limit) == (None, None, None):
        limit = TABLE_ROWS
    lake = open_lake()
    try:
        frame = lake.ticks(slug, symbol, *span, limit=limit)
    finally:
        lake.close()
    write_frame(frame, shape, output, "ticks")


def tick_gaps(
    slug: Annotated[str | None, typer.Argument(metavar="[SLUG]", help="Only this connection.")] = None,
    symbol: Annotated[str | None, typer.Argument(metavar="[SYMBOL]", help="Only this symbol.")] = None,
    healed: Annotated[bool, typer.Option("--healed", help="Show ranges too that history has filled since.")] = False,
    as_json: Json = False,
) -> None:
    """Show the ranges in which ticks were lost, and why."""
    from cli.data import check_filter
    from core.clock import isoformat
    from core.errors import InputError, NotFoundError
    from storage import open_lake
    from storage.ticks.losses import list_losses

    lake = open_lake()
    try:
        try:
            check_filter(lake, slug)
        except NotFoundError as error:
            raise InputError("SLUG", slug, "a connection that exists", str(error)) from None
        with lake.metadata.read() as tx:
            found = list_losses(tx, slug, symbol, healed_too=healed)
    finally:
        lake.close()
    rows = [{"connection": item.connection, "symbol": item.symbol, "start": isoformat(item.interval.start),
             "end": isoformat(item.interval.end), "cause": item.cause, "seen_at": isoformat(item.seen_at_us),
             "healed_at": None if item.healed_at_us is None else isoformat(item.healed_at_us), "proof": dict(item.proof)} for item in found]
    print_rows(rows, GAPS, as_json=as_json, empty="no ticks are booked as lost")


def backfill_ticks(
    slug: Slug, symbol: Symbol,
    start: Annotated[str, typer.Argument(metavar="START", help="ISO 8601, UTC when it has no offset.")],
    end: Annotated[str, typer.Argument(metavar="END", help="ISO 8601, exclusive.")],
    as_json: Json = False,
) -> int:
    """Fetch the ticks of a symbol from START up to END, where the provider has their history; heals lost ranges."""
    from core.interval import Interval
    from feed import open_feed
    from feed.ticks import backfill_ticks as run_backfill

    interval = Interval.parse(start, end)
    with open_feed() as feed, progress_bar(f"ticks of {slug} {symbol}", quiet=as_json) as progress:
        result = asyncio.run(run_backfill(feed, slug, symbol, interval, progress=progress))
    print_object(asdict(result), as_json=as_json)
    return 0

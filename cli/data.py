"""Commands that read: candles, coverage, gaps, revisions, query."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from cli.output import cell, check_target, note, print_json, print_rows

if TYPE_CHECKING:
    import polars as pl

    from core.interval import Interval
    from core.series import Series
    from storage import Lake

FORMATS = ("table", "csv", "json", "parquet")
TABLE_ROWS = 100  # a table without a range or a limit shows so many newest candles

Json = Annotated[bool, typer.Option("--json", help="One JSON array on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling, e.g. BTC/USDT.")]
Timeframe = Annotated[str, typer.Argument(metavar="TIMEFRAME", help="e.g. 1m, 1h, 1d.")]
AnySlug = Annotated[str | None, typer.Argument(metavar="[SLUG]", help="Only this connection.")]
AnySymbol = Annotated[str | None, typer.Argument(metavar="[SYMBOL]", help="Only this symbol.")]
AnyTimeframe = Annotated[str | None, typer.Argument(metavar="[TIMEFRAME]", help="Only this timeframe.")]
COVERAGE = ("connection", "symbol", "timeframe", "first", "last", "expected", "stored", "explained", "unexplained")
GAPS = ("connection", "symbol", "timeframe", "start", "end", "cause", "attempts", "next_try", "proof")
GAPS_TABLE = ("connection", "symbol", "timeframe", "start", "end", "candles", "cause", "attempts", "next_try", "why")  # for people
RETIRED = ("connection", "symbol", "timeframe", "start", "end", "cause", "attempts", "proof", "first_seen", "retired_at")
RETIRED_TABLE = ("connection", "symbol", "timeframe", "start", "end", "cause", "attempts", "why", "first_seen", "retired_at")
REVISIONS = ("connection", "symbol", "timeframe", "ts", "known_at", "old", "new")


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    for command in (candles, coverage, gaps, revisions, query):
        app.command()(command)


def candles(
    slug: Slug, symbol: Symbol, timeframe: Timeframe,
    start: Annotated[str | None, typer.Option(help="From this open time on; ISO 8601, UTC when it has no offset.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this open time, exclusive.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the newest of the range.")] = None,
    as_of: Annotated[str | None, typer.Option(help="What was known at this instant.")] = None,
    fill: Annotated[str | None, typer.Option(help="Fill missing candles in the answer, marked is_filled: previous.")] = None,
    derive_from: Annotated[str | None, typer.Option(
        help="Make the candles from this stored timeframe, e.g. 1m; any TIMEFRAME that divides a day will do then.")] = None,
    anchor: Annotated[str, typer.Option(help="With --derive-from, what cuts the candles: utc, server or new_york (17:00).")] = "utc",
    snapshot: Annotated[str | None, typer.Option(help="Read this named snapshot in place of what is stored now.")] = None,
    columns: Annotated[str | None, typer.Option(help="Only these columns, in this order, e.g. ts,close.")] = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv, json or parquet.")] = "table",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Show the stored candles of a series, oldest first."""
    from core.errors import InputError
    from core.series import Series

    shape = "json" if as_json else format_
    if shape not in FORMATS:
        raise InputError("--format", shape, FORMATS, "use one of those")
    if shape == "parquet" and output is None and sys.stdout.isatty():
        raise InputError("--format", shape, "parquet into a file or a pipe", "add -o FILE")
    series = Series.parse(slug, symbol, derive_from or timeframe)
    if anchor != "utc" and derive_from is None:
        raise InputError("--anchor", anchor, "utc without --derive-from", "add --derive-from 1m")
    if fill not in {None, "previous"}:
        raise InputError("--fill", fill, "previous", "leave it out to get stored candles only")
    span = parse_range(start, end)
    known = None if as_of is None else parse_moment(as_of, "--as-of")
    if shape == "table" and (start, end, limit) == (None, None, None):
        limit = TABLE_ROWS
    frame = _read(series, span, {
        "as_of": known, "fill": fill, "snapshot": snapshot, "columns": None if columns is None else columns.replace(" ", "").split(","),
        **({} if derive_from is None else {"derive_from": derive_from, "anchor": anchor})}, timeframe)
    write_frame(frame if limit is None else frame.tail(limit), shape, output)


def _read(
    series: Series, span: tuple[datetime | None, datetime | None], options: dict[str, Any], timeframe: str,
) -> pl.DataFrame:
    from storage import open_lake
    from storage.series import find_series

    lake = open_lake()
    try:
        with lake.metadata.read() as tx:
            find_series(tx, series)  # a series that is not there is an error, not an empty answer
        frame: pl.DataFrame = lake.candles(
            series.connection, series.symbol, timeframe, start=span[0], end=span[1], **options)
    finally:
        lake.close()
    return frame


def write_frame(frame: pl.DataFrame, shape: str, output: Path | None, what: str = "candles") -> None:
    """Write rows to a file, or show them; the file appears whole or not at all."""
    if output is None:
        _show(frame, shape)
        return
    check_target(output)
    temporary = output.with_name(f".{output.name}.part")
    try:
        with temporary.open("wb") as stream:
            _encode(frame, shape, stream)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    note(f"{len(frame)} {what} written to {output}")


def _show(frame: pl.DataFrame, shape: str) -> None:
    if shape == "json":
        print_json(frame.to_dicts())
    elif shape == "table":
        print_rows(frame.to_dicts(), frame.columns, as_json=False, empty="no candles in this range")
    else:
        _encode(frame, shape, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _encode(frame: pl.DataFrame, shape: str, stream: IO[bytes]) -> None:
    import orjson

    from cli.output import JSON_OPTIONS

    if shape == "parquet":
        frame.write_parquet(stream, compression="zstd")
    elif shape == "csv":
        stream.write(as_csv(frame).encode())
    elif shape == "json":
        stream.write(orjson.dumps(frame.to_dicts(), option=JSON_OPTIONS))
    else:
        lines = ["\t".join(frame.columns), *("\t".join(cell(value) for value in row) for row in frame.iter_rows())]
        stream.write(("\n".join(lines) + "\n").encode())


def as_csv(frame: pl.DataFrame) -> str:
    """Return a frame as CSV with a head line; instants are ISO 8601 with Z."""
    import polars as pl

    times = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ") for name in times).write_csv()


def coverage(
    slug: AnySlug = None, symbol: AnySymbol = None, timeframe: AnyTimeframe = None, as_json: Json = False,
) -> None:
    """Show for each series how many candles are expected, stored, explained as missing, and unexplained."""
    from storage import open_lake

    lake = open_lake()
    try:
        rows = coverage_rows(lake, slug, symbol, timeframe)
    finally:
        lake.close()
    print_rows(rows, COVERAGE, as_json=as_json, empty="no series yet: candlelake connections add")


def coverage_rows(
    lake: Lake, slug: str | None, symbol: str | None = None, timeframe: str | None = None,
) -> list[dict[str, object]]:
    """Return the coverage of the series that match, with the fields of `COVERAGE`."""
    from storage.coverage import coverage as read_coverage

    check_filter(lake, slug, timeframe)
    return [
        {**_key(row.series), "first": _iso(row.first_us), "last": _iso(row.last_us), "expected": row.expected,
         "stored": row.stored, "explained": row.explained, "unexplained": row.unexplained}
        for row in read_coverage(lake, slug, symbol, timeframe)
    ]


def gaps(
    slug: AnySlug = None, symbol: AnySymbol = None, timeframe: AnyTimeframe = None,
    cause: Annotated[list[str] | None, typer.Option(help="Only this cause; may be repeated. Without it all of them.")] = None,
    start: Annotated[str | None, typer.Option(help="Only those that reach beyond this instant; ISO 8601, UTC when it has no offset.")] = None,
    end: Annotated[str | None, typer.Option(help="Only those that begin before this instant.")] = None,
    retired: Annotated[bool, typer.Option("--retired", help="Show what cleanup took out of the ledger, kept as a record.")] = False,
    as_json: Json = False,
) -> None:
    """Show the ledger: every range without candles, its cause, its proof and when it is tried again."""
    from core.errors import InputError
    from storage import open_lake
    from storage.ledger import CAUSES

    if wrong := [name for name in cause or () if name not in CAUSES]:
        raise InputError("--cause", wrong[0], CAUSES, "use one of those")
    within = parse_interval(start, end) if start or end else None
    with open_lake() as lake:
        check_filter(lake, slug, timeframe)
        rows = (_retired_rows if retired else _gap_rows)(lake, (slug, symbol, timeframe), within, cause or CAUSES, shows_words=not as_json)
    if retired:
        print_rows(rows, RETIRED if as_json else RETIRED_TABLE, as_json=as_json, empty="cleanup has taken nothing out of the ledger")
        return
    print_rows(rows, GAPS if as_json else GAPS_TABLE, as_json=as_json, empty="no gaps booked")
    if rows and not as_json:
        totals = Counter[str]()
        for row in rows:
            totals[str(row["cause"])] += int(str(row["candles"]))
        note(f"{len(rows):,} ranges; candles: " + ", ".join(f"{count:,} {name}" for name, count in totals.most_common()))


def _gap_rows(
    lake: Lake, of: tuple[str | None, str | None, str | None], within: Interval | None, causes: Sequence[str], *, shows_words: bool,
) -> list[dict[str, object]]:
    from storage.gap_words import why
    from storage.ledger import list_gaps
    from storage.series import grids_of, list_series

    with lake.metadata.read() as tx:
        found = [gap for gap in list_gaps(tx, *of, within=within) if gap.cause in causes]
        grids = grids_of(tx, list_series(tx, *of)) if shows_words else {}
    return [
        {**_key(gap.series), "start": _iso(gap.interval.start), "end": _iso(gap.interval.end), "cause": gap.cause,
         "attempts": gap.attempts, "next_try": _iso(gap.next_try_us), "proof": gap.proof,
         **({"candles": grids[gap.series_id].count(gap.interval), "why": why(gap.cause, gap.proof)} if shows_words else {})}
        for gap in found]


def _retired_rows(
    lake: Lake, of: tuple[str | None, str | None, str | None], within: Interval | None, causes: Sequence[str], *, shows_words: bool,
) -> list[dict[str, object]]:
    from storage.gap_words import why
    from storage.lake.retention import list_retired

    with lake.metadata.read() as tx:
        found = list_retired(tx, *of)
    return [
        {**_key(gap.series), "start": _iso(gap.interval.start), "end": _iso(gap.interval.end), "cause": gap.cause,
         "attempts": gap.attempts, "proof": gap.proof, "first_seen": _iso(gap.first_seen_us), "retired_at": _iso(gap.retired_at_us),
         **({"why": why(gap.cause, gap.proof)} if shows_words else {})}
        for gap in found if gap.cause in causes and (within is None or gap.interval.intersect(within) is not None)]


def revisions(
    slug: AnySlug = None, symbol: AnySymbol = None, timeframe: AnyTimeframe = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 1000,
    since: Annotated[str | None, typer.Option(help="Only those seen from this instant on; ISO 8601, UTC when it has no offset.")] = None,
    until: Annotated[str | None, typer.Option(help="Only those seen before this instant.")] = None,
    as_json: Json = False,
) -> None:
    """Show what providers changed of candles already stored: the old value, the new one, and when it was seen."""
    from core.clock import to_us
    from storage import open_lake
    from storage.lake.revisions import list_revisions

    first, last = (None if us is None else to_us(us) for us in parse_range(since, until, ("--since", "--until")))
    lake = open_lake()
    try:
        check_filter(lake, slug, timeframe)
        with lake.metadata.read() as tx:
            found = list_revisions(tx, slug, symbol, timeframe, limit, since_us=first, before_us=last)
    finally:
        lake.close()
    rows = [
        {**_key(item.series), "ts": _iso(item.ts_us), "known_at": _iso(item.known_at_us), "old": item.old, "new": item.new}
        for item in found
    ]
    print_rows(rows, REVISIONS, as_json=as_json, empty="no revisions")


def query(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="e.g. FROM candles('kraken','BTC/USDT','1m')")],
    as_json: Json = False,
) -> None:
    """Run DuckDB SQL over the lake: candles('slug','SYM','1m'), all_candles, series, gaps, connections, revisions."""
    from storage import open_lake

    lake = open_lake()
    try:
        frame = lake.sql(sql)
    finally:
        lake.close()
    print_rows(frame.to_dicts(), frame.columns, as_json=as_json, empty="no rows")


def check_filter(lake: Lake, slug: str | None, timeframe: str | None = None) -> None:
    """Refuse a connection that does not exist and a timeframe that has no meaning: an empty answer would hide a typo."""
    from sqlalchemy import select

    from core.errors import NotFoundError
    from core.series import check_slug
    from core.timeframe import Timeframe as Length
    from storage.metadata.tables import connections

    if timeframe is not None:
        Length.parse(timeframe)
    if slug is None:
        return
    check_slug(slug)
    with lake.metadata.read() as tx:
        known = sorted(tx.execute(select(connections.c.slug)).scalars())
    if slug not in known:
        raise NotFoundError(f"no connection {slug!r}; there are: {', '.join(known) or 'none'}; see candlelake connections list")


def parse_range(
    start: str | None, end: str | None, options: tuple[str, str] = ("--start", "--end"),
) -> tuple[datetime | None, datetime | None]:
    """Return the two ends that a person gave as aware datetimes; a reversed or empty range is an InputError."""
    from core.interval import Interval

    first = None if start is None else parse_moment(start, options[0])
    last = None if end is None else parse_moment(end, options[1])
    if start is not None and end is not None:
        Interval.parse(start, end)
    return first, last


def parse_interval(start: str | None, end: str | None) -> Interval:
    """Return the range that a person gave; an end that was left out is the first or last instant there is."""
    from core.clock import EARLIEST_US, LATEST_US, to_us
    from core.interval import Interval

    first, last = parse_range(start, end)
    return Interval(EARLIEST_US if first is None else to_us(first), LATEST_US if last is None else to_us(last))


def parse_moment(text: str, what: str) -> datetime:
    """Return an instant that a person gave; `what` names it in an InputError."""
    from core.clock import parse_instant, to_datetime

    return to_datetime(parse_instant(text, what))


def _key(series: Series) -> dict[str, object]:
    return {"connection": series.connection, "symbol": series.symbol, "timeframe": series.timeframe.name}


def _iso(us: int | None) -> str | None:
    from core.clock import isoformat

    return None if us is None else isoformat(us)

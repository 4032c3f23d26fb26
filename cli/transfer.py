"""Commands that move data in and out: export, import, backup, restore."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from cli.output import check_target, note, print_json, progress_bar
from cli.witness import deed, witness

if TYPE_CHECKING:
    Format = Literal["parquet", "csv", "json"]

EXPORT_FORMATS = ("parquet", "csv", "json")

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")]
Symbol = Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling, e.g. BTC/USDT.")]
Timeframe = Annotated[str, typer.Argument(metavar="TIMEFRAME", help="e.g. 1m, 1h, 1d.")]
File = Annotated[Path, typer.Argument(metavar="FILE")]


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    app.command()(export)
    app.command("import")(import_)
    app.command()(backup)
    app.command()(restore)


def export(
    slug: Slug, symbol: Symbol, timeframe: Timeframe, file: File,
    format_: Annotated[str | None, typer.Option("--format", help="parquet, csv or json; by the file's name without it.")] = None,
    start: Annotated[str | None, typer.Option(help="From this open time on; ISO 8601, UTC when it has no offset.")] = None,
    end: Annotated[str | None, typer.Option(help="Up to this open time, exclusive.")] = None,
    as_of: Annotated[str | None, typer.Option(help="What was known at this instant.")] = None,
    as_json: Json = False,
) -> None:
    """Write a series to a file."""
    from cli.data import parse_moment, parse_range
    from core.errors import InputError
    from core.series import Series
    from storage import open_lake
    from storage.series import find_series

    shape = format_ or file.suffix.removeprefix(".").lower()
    if shape not in EXPORT_FORMATS:
        raise InputError("--format", shape, EXPORT_FORMATS, "give --format, or end the file's name with one of those")
    check_target(file)
    series = Series.parse(slug, symbol, timeframe)
    first, last = parse_range(start, end)
    known = None if as_of is None else parse_moment(as_of, "--as-of")
    lake = open_lake()
    try:
        with lake.metadata.read() as tx:
            find_series(tx, series)
        rows = lake.export(
            slug, symbol, series.timeframe, file, cast("Format", shape), start=first, end=last, as_of=known)
    finally:
        lake.close()
    if as_json:
        print_json({"rows": rows, "file": str(file)})
    else:
        note(f"{rows} candles of {series} written to {file}")


def import_(
    slug: Slug, symbol: Symbol, timeframe: Timeframe, file: File, as_json: Json = False,
) -> None:
    """Store the candles of a Parquet, CSV or JSON file: columns ts, open, high, low, close, volume, spread.

    `ts` is the open time, UTC when it has no offset; volume and spread may be missing. Rows that cannot be candles are
    quarantined with a reason, not stored.
    """
    from core.candles import check, empty_candles
    from core.clock import LATEST_US
    from core.errors import InputError
    from core.interval import Interval
    from core.series import Series
    from feed import open_feed
    from storage.exchange_files import check_spacing, read_candle_file
    from storage.head import Batch
    from storage.series import ensure_series, grid_of

    series = Series.parse(slug, symbol, timeframe)
    if not file.is_file():
        raise InputError("file", str(file), "a file that exists", "check the path")
    raw = read_candle_file(file)
    check_spacing(raw, series.timeframe)
    with open_feed() as feed:
        connection = feed.connections.get(slug)
        run_id = feed.new_run_id("import")
        with deed(feed.lake, "import", str(series), file=file.name, run_id=run_id) as told:
            with feed.lake.metadata.write() as tx:
                row = ensure_series(tx, connection.id, symbol, series.timeframe)
                grid = grid_of(tx, row)
            now_us = feed.clock.now_us()
            checked = check(raw, grid, Interval(0, LATEST_US), now_us, now_us)
            done = feed.lake.import_candles(row.id, checked.candles, run_id=run_id)
            if len(checked.rejected):
                feed.lake.write([Batch(row.id, empty_candles(), "import", rejected=checked.rejected)], run_id=run_id)
            feed.lake.write_catalog()
            told |= {"stored": done.stored, "revised": done.revised, "rejected": len(checked.rejected)}
    reasons = {str(key): int(value) for key, value in checked.rejected["reason"].value_counts().iter_rows()}
    if as_json:
        print_json({"stored": done.stored, "revised": done.revised, "unchanged": done.unchanged, "rejected": reasons})
        return
    note(f"{done.stored} candles stored, {done.revised} revised, {done.unchanged} already there")
    if reasons:
        note("not stored: " + ", ".join(f"{count} rows {reason}" for reason, count in reasons.items()))


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write; must not exist yet.")],
    as_json: Json = False,
) -> None:
    """Write the metadata and the lake to one file, while work goes on. Keys are not in it: keep the key file too."""
    from cli.backup import backup as write_backup
    from core.settings import settings

    with progress_bar("backup", quiet=as_json) as progress:
        result = write_backup(settings(), file, progress)
    if as_json:
        print_json({"files": result.files, "size_bytes": result.size_bytes, "file": str(file)})
    else:
        note(f"{result.files} lake files and the metadata written to {file}; keep the credential keys apart from it")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by candlelake backup.")],
    as_json: Json = False,
) -> None:
    """Bring a backup back into a home that has no data yet."""
    from cli.backup import restore as read_backup
    from core.clock import SystemClock
    from core.errors import InputError
    from core.settings import settings
    from storage import open_lake

    if not file.is_file():
        raise InputError("backup file", str(file), "a file that exists", "check the path")
    with progress_bar("restore", quiet=as_json) as progress:
        result = read_backup(settings(), file, progress, witness("restore", file.name, SystemClock().now_us()))
    with open_lake() as lake:  # its paths are this home's
        lake.write_catalog()
    if as_json:
        print_json({"files": result.files, "size_bytes": result.size_bytes})
    else:
        note(f"{result.files} lake files and the metadata restored into {settings().home.absolute()}")

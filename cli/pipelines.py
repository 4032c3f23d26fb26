"""Commands around signal pipelines: definitions, live runs, replays, comparisons, checks, statistics."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import pipeline_filters, pipeline_reports
from cli.output import note, print_json, print_object, print_rows, progress_bar
from cli.witness import person, witness

if TYPE_CHECKING:
    from core.interval import Interval
    from core.series import Series
    from feed import Feed
    from pipeline.definition import PipelineDefinition
    from storage.pipelines import PipelineRow

app = typer.Typer(no_args_is_help=True, help="Signal pipelines: clean, filter, indicators, signal, confidence, execute.")
app.add_typer(pipeline_filters.app, name="filters")

DEFINITION_LIMIT = 1024 * 1024  # bytes; a larger file is no definition
LISTED = ("name", "version", "enabled", "shadow_of", "series", "threshold", "orders", "owner", "last_error")
SIGNALS = ("pipeline", "version", "connection", "symbol", "timeframe", "ts", "side", "price", "confidence", "execution", "reason")
STAGES = ("stage", "count", "mean_ms", "p95_ms", "errors")
PLUGINS = ("name", "kind", "package", "target", "problem")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The pipeline.")]
File = Annotated[str, typer.Argument(metavar="FILE|-", help="A definition in YAML; - reads stdin.")]
Start = Annotated[str, typer.Argument(metavar="START", help="First open time, ISO 8601, UTC when it has no offset.")]
End = Annotated[str, typer.Argument(metavar="END", help="Where to stop, exclusive.")]
OneSeries = Annotated[
    tuple[str, str, str] | None, typer.Option("--series", metavar="SLUG SYMBOL TIMEFRAME", help="Only this series.")]
Horizon = Annotated[int, typer.Option(min=1, max=10_000, help="Candles after a signal at which its outcome is taken.")]


@app.callback()
def _group() -> None:
    """Signal pipelines: clean, filter, indicators, signal, confidence, execute."""


@contextmanager
def home() -> Iterator[Feed]:
    """Open the home."""
    from feed import open_feed

    with open_feed() as feed:
        yield feed


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show all pipelines."""
    from storage.pipelines import list_pipelines

    with home() as feed:
        with feed.lake.metadata.read() as tx:
            found = list_pipelines(tx)
        rows = [_listed(row, feed) for row in found]
    print_rows(rows, LISTED, as_json=as_json, empty="no pipelines; `candlelake pipelines create FILE` adds one")


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one pipeline: its definition, its state, its newest signals."""
    from feed.pipelines import load
    from storage.pipelines import list_signals

    with home() as feed:
        row, definition = load(feed, name)
        with feed.lake.metadata.read() as tx:
            newest = list_signals(tx, name, limit=10)
        shown = _listed(row, feed)
    if as_json:
        print_json({**shown, "definition": definition.model_dump(mode="json"), "signals": [_signal(item) for item in newest]})
        return
    print_object(shown, as_json=False)
    print()
    print(definition.as_yaml(), end="")
    if newest:
        print_rows([_signal(item) for item in newest], SIGNALS, as_json=False)


@app.command()
def create(
    file: File, owner: Annotated[str | None, typer.Option(help="Whose it is; your user name without it.")] = None,
    enable: Annotated[bool, typer.Option("--enable", help="Switch it on at once.")] = False, as_json: Json = False,
) -> None:
    """Store a new pipeline from a YAML file, switched off unless --enable is given."""
    from feed.pipelines import create as make
    from storage.pipelines import set_enabled

    with home() as feed:
        definition, now_us = _read(file), feed.clock.now_us()
        row = make(feed, definition, owner or person(), witness=witness("pipeline.create", definition.name, now_us))
        if enable:
            with feed.lake.metadata.write() as tx:
                row = set_enabled(tx, row.name, enabled=True, now_us=now_us)
                witness("pipeline.enable", row.name, now_us)(tx)
        _say(feed, row, "stored", as_json=as_json)


@app.command("import")
def import_(
    file: File, owner: Annotated[str | None, typer.Option(help="Who changes it; your user name without it.")] = None,
    as_json: Json = False,
) -> None:
    """Store a YAML file as a pipeline's next version; a new name makes a new pipeline."""
    from core.errors import NotFoundError
    from feed.pipelines import change, load
    from feed.pipelines import create as make

    definition, author = _read(file), owner or person()
    with home() as feed:
        try:
            load(feed, definition.name)
        except NotFoundError:
            row = make(feed, definition, author, witness=witness("pipeline.create", definition.name, feed.clock.now_us()))
        else:
            row = change(feed, definition, author, witness=witness("pipeline.change", definition.name, feed.clock.now_us()))
        _say(feed, row, "stored", as_json=as_json)


@app.command()
def export(
    name: Name, output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="This version; the one in force without it.")] = None,
    as_json: Json = False,
) -> None:
    """Write a pipeline's definition as YAML (or JSON)."""
    from feed.pipelines import load

    with home() as feed:
        _, definition = load(feed, name, version)
    if as_json:
        print_json(definition.model_dump(mode="json"))
    elif output is None:
        print(definition.as_yaml(), end="")
    else:
        output.write_text(definition.as_yaml(), encoding="utf-8")
        note(f"{name} version {definition.version} written to {output}")


@app.command()
def enable(name: Name, as_json: Json = False) -> None:
    """Switch a pipeline on: runs judge each new candle of its series."""
    _switch(name, enabled=True, as_json=as_json)


@app.command()
def disable(name: Name, as_json: Json = False) -> None:
    """Switch a pipeline off; what it said is kept."""
    _switch(name, enabled=False, as_json=as_json)


@app.command()
def shadow(
    name: Name, of: Annotated[str | None, typer.Option("--of", metavar="CHAMPION", help="The champion; without it the shadow ends.")] = None,
    as_json: Json = False,
) -> None:
    """Make a pipeline a challenger: it sees what its champion sees, at the same moment, and never trades."""
    from feed.pipelines import shadow as make_shadow

    with home() as feed:
        row = make_shadow(feed, name, of, witness("pipeline.shadow", name, feed.clock.now_us(), of=of or "nobody"))
        _say(feed, row, f"shadow of {of}" if of else "no shadow any more", as_json=as_json)


@app.command()
def delete(
    name: Name, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, as_json: Json = False,
) -> None:
    """Remove a pipeline with its versions, executions and signals; orders stay."""
    from storage.pipelines import delete_pipeline, get_pipeline

    with home() as feed:
        with feed.lake.metadata.read() as tx:
            get_pipeline(tx, name)
        if not yes:
            typer.confirm(f"Remove {name} with its signals?", abort=True, err=True)
        with feed.lake.metadata.write() as tx:
            delete_pipeline(tx, name)
            witness("pipeline.delete", name, feed.clock.now_us())(tx)
    print_object({"deleted": name}, as_json=as_json)


@app.command()
def run(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One pipeline; every enabled one without it.")] = None,
    as_json: Json = False,
) -> int:
    """Judge every candle that pipelines have not seen yet, store signals, execute them."""
    from feed.processing import process

    with home() as feed, progress_bar("pipelines", quiet=as_json) as progress:
        result = asyncio.run(process(feed, name, progress=progress))
    if as_json:
        print_json(result.as_dict())
    else:
        print_rows([record.as_dict() for record in result.signals], [c for c in SIGNALS if c != "execution"], as_json=False, empty="no signals")
        note(result.message)
    return 1 if result.errors else 0


@app.command()
def replay(
    name: Name, start: Start, end: End, series: OneSeries = None,
    version: Annotated[int | None, typer.Option(min=1, help="This version; the one in force without it.")] = None,
    as_first_seen: Annotated[bool, typer.Option("--as-first-seen", help="Use the values known then, not later corrections.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write a chart of candles with signals to this PNG file.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the chart with a table to this HTML file.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Print the signals as lines of JSON, byte for byte as the live run's.")] = False,
    horizon: Horizon = 10, as_json: Json = False,
) -> None:
    """Say what a pipeline would have said over a range of stored candles; stores and executes nothing."""
    from feed.replaying import replay_pipeline

    with home() as feed, progress_bar(f"replay {name}", quiet=as_json or lines) as progress:
        found = replay_pipeline(
            feed, name, _range(start, end), series=_key(series), version=version, as_first_seen=as_first_seen,
            progress=lambda done, total, _what: progress(done, total, "candles"))
    pipeline_reports.draw(found, png, html)
    if lines:
        sys.stdout.buffer.write(b"".join(item.result.lines for item in found))
        return
    reports = [pipeline_reports.report(item, horizon) for item in found]
    if as_json:
        print_json([{**report, "list": [record.as_dict() for record in item.result.records]}
                    for report, item in zip(reports, found, strict=True)])
        return
    for report in reports:
        stages = report.pop("stages")
        print_object(report, as_json=False)
        print_rows(stages, STAGES, as_json=False)


@app.command()
def compare(
    champion: Annotated[str, typer.Argument(help="The pipeline in use.")],
    challenger: Annotated[str, typer.Argument(help="The pipeline that may replace it.")],
    start: Start, end: End, series: OneSeries = None,
    live: Annotated[bool, typer.Option("--live", help="What both said when they ran side by side, not a replay.")] = False,
    horizon: Horizon = 10, as_json: Json = False,
) -> None:
    """Compare two pipelines on the same candles, and say whether there are enough of them to tell."""
    from feed.replaying import compare_pipelines, compare_shadow

    with home() as feed, progress_bar("compare", quiet=as_json) as progress:
        if live:
            found = compare_shadow(feed, champion, challenger, _range(start, end), horizon=horizon)
        else:
            found = compare_pipelines(
                feed, champion, challenger, _range(start, end), series=_key(series), horizon=horizon,
                progress=lambda done, total, _what: progress(done, total, "candles"))
    if as_json:
        print_json([item.as_dict() for item in found])
        return
    for item in found:
        values = item.as_dict()
        sides = [values.pop(side) for side in ("champion", "challenger")]
        print_object(values, as_json=False)
        print_rows(sides, list(sides[0]), as_json=False)


@app.command()
def check(
    name: Name, start: Annotated[str | None, typer.Option(help="First open time; the newest 5,000 candles without it.")] = None,
    end: Annotated[str | None, typer.Option(help="Where to stop, exclusive.")] = None, series: OneSeries = None,
    frontiers: Annotated[int, typer.Option(min=1, max=1000, help="How many candles are taken as the present.")] = 12,
    as_json: Json = False,
) -> int:
    """Look for look-ahead: cut the future off, poison it, take the home away, and see whether signals of the past change."""
    from core.errors import InputError
    from feed.replaying import check_pipeline

    if (start is None) != (end is None):
        raise InputError("range", f"{start} to {end}", "both --start and --end, or neither", "give the other one too")
    with home() as feed:
        reports = check_pipeline(
            feed, name, None if start is None or end is None else _range(start, end), series=_key(series), frontiers=frontiers)
    print_rows([report.as_dict() for report in reports], ("series", "status", "frontiers", "signals", "futures", "apart", "findings"), as_json=as_json)
    return 0 if all(report.is_clean for report in reports) else 1


@app.command()
def stats(
    name: Name, days: Annotated[float, typer.Option(min=0.001, max=36_500, help="Of how many days.")] = 30.0, as_json: Json = False,
) -> None:
    """Show a pipeline's live statistics: time and errors of each stage, and its signals."""
    from core.clock import DAY_US
    from pipeline.metrics import stage_statistics
    from storage.pipelines import execution_times, get_pipeline, list_signals

    with home() as feed:
        since = feed.clock.now_us() - round(days * DAY_US)
        with feed.lake.metadata.read() as tx:
            row = get_pipeline(tx, name)
            times = execution_times(tx, row.id, since)
            signals = [item for item in list_signals(tx, name) if item.created_at_us >= since]
    stages = [item.as_dict() for item in stage_statistics(times)]
    told = {
        "pipeline": name, "version": row.version, "days": days, "signals": len(signals),
        "buys": sum(item.side == "buy" for item in signals), "sells": sum(item.side == "sell" for item in signals),
        "actionable": sum(item.confidence >= item.threshold for item in signals),
        "mean_confidence": round(sum(item.confidence for item in signals) / len(signals), 3) if signals else None}
    if as_json:
        print_json({**told, "stages": stages})
        return
    print_object(told, as_json=False)
    print_rows(stages, STAGES, as_json=False, empty="no executions in this time")


@app.command()
def plugins(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One of them: what its parameters are.")] = None, as_json: Json = False,
) -> None:
    """List the plug-ins that a definition can name, also those of installed packages; of one its parameters."""
    from pipeline.registry import Registry

    if name is not None:
        print_rows(Registry().parameters(name), ("parameter", "default", "allowed", "description"), as_json=as_json, empty="it takes none")
        return
    rows = [{"name": item.name, "kind": item.kind, "package": item.package, "target": item.target, "problem": item.problem}
            for item in Registry().describe()]
    print_rows(rows, PLUGINS, as_json=as_json)


def _switch(name: str, *, enabled: bool, as_json: bool) -> None:
    from feed.pipelines import engine_of, load
    from storage.pipelines import set_enabled

    with home() as feed:
        if enabled:
            engine_of(load(feed, name)[1])  # a plug-in that has gone is told now, not at the next candle
        with feed.lake.metadata.write() as tx:
            row = set_enabled(tx, name, enabled=enabled, now_us=feed.clock.now_us())
            witness("pipeline.enable" if enabled else "pipeline.disable", name, feed.clock.now_us())(tx)
        _say(feed, row, "enabled" if enabled else "disabled", as_json=as_json)


def _say(feed: Feed, row: PipelineRow, what: str, *, as_json: bool) -> None:
    shown = _listed(row, feed)
    if as_json:
        print_json(shown)
    else:
        note(f"{row.name} version {row.version}: {what}; {'enabled' if row.is_enabled else 'disabled'}; {shown['orders_told']}")


def _listed(row: PipelineRow, feed: Feed) -> dict[str, Any]:
    from feed.order_kinds import orders_of

    orders = orders_of(feed, row)
    return {
        "name": row.name, "version": row.version, "enabled": row.is_enabled, "shadow_of": row.shadow_of,
        "series": len(row.definition["series"]), "threshold": row.definition["threshold"],
        "orders": orders.kind, "orders_told": orders.line, "owner": row.owner, "last_error": row.last_error}


def _signal(item: Any) -> dict[str, Any]:
    from feed.executing import record_of

    return {**record_of(item).as_dict(), "execution": item.execution}


def _read(file: str) -> PipelineDefinition:
    from core.errors import InputError
    from pipeline.definition import read_yaml

    text = sys.stdin.read(DEFINITION_LIMIT + 1) if file == "-" else Path(file).read_text(encoding="utf-8")
    if len(text) > DEFINITION_LIMIT:
        raise InputError("definition", file, f"at most {DEFINITION_LIMIT} characters", "give the YAML of one pipeline")
    return read_yaml(text)


def _range(start: str, end: str) -> Interval:
    from core.interval import Interval

    return Interval.parse(start, end)


def _key(series: tuple[str, str, str] | None) -> Series | None:
    from core.series import Series

    return None if series is None else Series.parse(*series)

"""Commands that say where a candle comes from: runs list, runs show, trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.data import Slug, Symbol, Timeframe, parse_moment
from cli.output import print_json, print_object, print_rows

if TYPE_CHECKING:
    from storage.provenance import RequestRow, RunRow

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
RUNS = ("run_id", "kind", "first_write", "last_write", "stored", "revised", "quarantined", "status", "message")
REQUESTS = ("series", "request_id", "start", "end", "answered_at", "written_at", "stored", "revised")

app = typer.Typer(help="Runs that changed the store, and the requests that brought the changes.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add this module's commands to `parent`."""
    parent.add_typer(app, name="runs")
    parent.command()(trace)


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="At most so many, newest first.")] = 50, as_json: Json = False,
) -> None:
    """Show the runs that stored or revised something; a run that found no change has left nothing."""
    from storage import open_lake
    from storage.provenance import list_runs

    with open_lake() as lake, lake.metadata.read() as tx:
        found = list_runs(tx, limit)
    print_rows([_run(row) for row in found], RUNS, as_json=as_json, empty="no run has changed anything yet")


@app.command("show")
def show(
    run_id: Annotated[str, typer.Argument(metavar="ID", help="As in a candle's run_id, or in `runs list`.")], as_json: Json = False,
) -> None:
    """Show one run: what it changed, and each request that brought something."""
    from storage import open_lake
    from storage.provenance import find_run, requests_of

    with open_lake() as lake, lake.metadata.read() as tx:
        run, requests = find_run(tx, run_id), requests_of(tx, run_id)
    rows = [_request(item) for item in requests]
    if as_json:
        print_json({**_run(run), "requests": rows})
        return
    print_object(_run(run), as_json=False)
    print_rows(rows, REQUESTS, as_json=False, empty="no request of it is on record: an import, or older than this record")


def trace(
    slug: Slug, symbol: Symbol, timeframe: Timeframe,
    ts: Annotated[str, typer.Argument(metavar="TIME", help="The candle's open time, ISO 8601.")],
    as_of: Annotated[str | None, typer.Option(help="The value that was known at this instant.")] = None,
    as_json: Json = False,
) -> None:
    """Show where one candle comes from: its value, the run that stored it, and the very request that brought it."""
    from core.clock import to_us
    from core.errors import NotFoundError
    from core.series import Series
    from storage import open_lake
    from storage.provenance import find_run, request_of

    series = Series.parse(slug, symbol, timeframe)
    moment = to_us(parse_moment(ts, "TIME"))
    known = None if as_of is None else parse_moment(as_of, "--as-of")
    with open_lake() as lake:
        frame = lake.candles(slug, symbol, timeframe, moment, moment + 1, as_of=known)
        if frame.is_empty():
            raise NotFoundError(f"{series} holds no candle that opens at {ts}; `candlelake gaps` may say why")
        candle = frame.row(0, named=True)
        with lake.metadata.read() as tx:
            request = request_of(tx, series, moment, candle["run_id"], to_us(candle["known_at"]))
            try:
                run = _run(find_run(tx, candle["run_id"]))
            except NotFoundError:  # stored before runs were kept
                run = None
    answer = {"candle": candle, "run": run, "request": None if request is None else _request(request)}
    if as_json:
        print_json(answer)
        return
    print_object(candle, as_json=False)
    print_object({"run": "not on record"} if run is None else run, as_json=False)
    print_object({"request": "not on record"} if request is None else _request(request), as_json=False)


def _run(row: RunRow) -> dict[str, object]:
    from core.clock import isoformat

    return {"run_id": row.run_id, "kind": row.kind, "first_write": isoformat(row.first_at_us),
            "last_write": isoformat(row.last_at_us), "stored": row.stored, "revised": row.revised,
            "quarantined": row.quarantined, "status": row.status, "message": row.message}


def _request(row: RequestRow) -> dict[str, object]:
    from core.clock import isoformat

    return {"series": None if row.series is None else str(row.series), "request_id": row.request_id,
            "start": isoformat(row.asked.start), "end": isoformat(row.asked.end), "answered_at": isoformat(row.at_us),
            "written_at": isoformat(row.written_at_us), "stored": row.stored, "revised": row.revised}

"""Commands of the proof: consistency, reconcile, derivations, snapshots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.data import Slug, Symbol, Timeframe, check_filter, parse_interval, parse_range
from cli.output import note, print_json, print_object, print_rows
from cli.witness import witness

if TYPE_CHECKING:
    from datetime import datetime

    import polars as pl

    from storage import Lake
    from storage.snapshots import SnapshotRow

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Start = Annotated[str | None, typer.Option("--start", help="From here on; ISO 8601, UTC when it has no offset.")]
End = Annotated[str | None, typer.Option("--end", help="Up to here, exclusive.")]
Anchor = Annotated[str, typer.Option(help="What cuts the candles: utc, server or new_york (17:00).")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The snapshot.")]
DISAGREEMENTS = ("timeframe", "ts", "field", "stored", "derived", "altered", "altered_ts", "within")
PAIRS = ("left", "right", "candles", "basis", "deviation", "lag", "correlation")
OUTLIERS = ("connection", "ts", "field", "value", "expected", "deviation")
DAYS = ("connection", "day", "told", "stored", "outliers", "score")
DERIVATIONS = ("connection", "symbol", "timeframe", "derive_from", "anchor")
SNAPSHOTS = ("name", "created", "series", "rows", "digest", "note")
MOST_ROWS = 50

derivations = typer.Typer(help="Derived timeframes that somebody needs: retention keeps what they are made of.", no_args_is_help=True)
snapshots = typer.Typer(help="Named snapshots: the same rows later, or proof that another home has them.", no_args_is_help=True)


def register(parent: typer.Typer) -> None:
    """Add this module's commands to `parent`."""
    parent.command()(consistency)
    parent.command()(reconcile)
    parent.add_typer(derivations, name="derivations")
    parent.add_typer(snapshots, name="snapshots")


def consistency(
    slug: Slug, symbol: Symbol, start: Start = None, end: End = None,
    base: Annotated[str, typer.Option("--from", help="The shortest timeframe, of which the others are made.")] = "1m",
    as_json: Json = False,
) -> int:
    """Compare a symbol's longer timeframes with what its shortest one makes; exit 1 where they disagree."""
    from storage import open_lake
    from storage.consistency import as_rows, check_consistency

    with open_lake() as lake:
        check_filter(lake, slug, base)
        report = check_consistency(lake, slug, symbol, parse_interval(start, end), base)
    rows = as_rows(report)
    if as_json:
        print_json({"connection": slug, "symbol": symbol, "base": base, "compared": report.compared, "disagreements": rows})
    else:
        told = ", ".join(f"{count} of {name}" for name, count in report.compared.items())
        print_rows(rows, DISAGREEMENTS, as_json=False, empty=f"all candles agree with their {base}: {told} compared")
        if rows:
            note(f"{len(rows)} values disagree; compared: {told}")
    return 1 if rows else 0


def reconcile(
    told: Annotated[list[str], typer.Argument(metavar="SLUG=SYMBOL ...", help="Two or more, e.g. kraken=BTC/USD coinbase=BTC/USD.")],
    timeframe: Annotated[str, typer.Option(help="Compare candles of this length.")] = "1h",
    derive_from: Annotated[str | None, typer.Option(help="Derive where TIMEFRAME is not stored, from this one.")] = None,
    start: Start = None, end: End = None,
    sigmas: Annotated[float, typer.Option(min=1, help="How many usual deviations make an outlier.")] = 12.0,
    as_json: Json = False,
) -> int:
    """Show how connections tell one instrument: spread, lead or lag, outliers, a score for each day. Changes nothing."""
    from core.clock import to_datetime
    from core.errors import InputError
    from storage import open_lake
    from storage.reconcile import reconcile as compare

    with open_lake() as lake:
        frames = {f"{slug} {symbol}": _told(lake, slug, symbol, timeframe, derive_from, parse_range(start, end))
                  for slug, symbol in map(_pair, told)}
    if len(frames) < 2:
        raise InputError("SLUG=SYMBOL", " ".join(told), "two or more different ones", "e.g. kraken=BTC/USD coinbase=BTC/USD")
    found = compare(frames, sigmas)
    outliers = [{"connection": item.connection, "ts": to_datetime(item.ts_us), "field": item.field, "value": item.value,
                 "expected": item.expected, "deviation": item.deviation} for item in found.outliers]
    pairs = [{name: getattr(item, name) for name in PAIRS} for item in found.pairs]
    days = [{name: getattr(item, name) for name in DAYS} for item in found.days]
    if as_json:
        print_json({"pairs": pairs, "outliers": outliers, "days": days})
        return 0
    print_rows([row | {"basis": f"{item.basis:+.4%}", "deviation": f"{item.deviation:.4%}",
                       "correlation": None if item.correlation is None else round(item.correlation, 4)}
                for row, item in zip(pairs, found.pairs, strict=True)], PAIRS, as_json=False)
    worst = sorted(outliers, key=lambda row: -abs(float(str(row["deviation"]))))[:MOST_ROWS]
    print_rows([row | {"deviation": f"{float(str(row['deviation'])):+.2%}"} for row in worst], OUTLIERS, as_json=False, empty="no outliers")
    print_rows(sorted((row for row in days if row["score"] != 100.0), key=lambda row: row["score"])[:MOST_ROWS], DAYS, as_json=False,
               empty=f"all {len(days)} days score 100")
    if len(outliers) > MOST_ROWS:
        note(f"{len(outliers)} outliers; the {MOST_ROWS} largest are shown, --json has all")
    return 0


@derivations.command("add")
def add_derivation(
    slug: Slug, symbol: Symbol, timeframe: Timeframe,
    derive_from: Annotated[str | None, typer.Option("--from", help="The stored timeframe that it is made of; else the shortest one.")] = None,
    anchor: Anchor = "utc",
) -> None:
    """Declare that TIMEFRAME is read derived: cleanup then refuses to remove what it is made of."""
    from core.series import Series
    from storage import open_lake
    from storage.lake.sources import declare_derivation, shortest_base

    with open_lake() as lake:
        check_filter(lake, slug)
        with lake.metadata.write() as tx:
            base = shortest_base(tx, slug, symbol) if derive_from is None else Series.parse(slug, symbol, derive_from)
            declare_derivation(tx, base, timeframe, anchor, lake.clock.now_us())
            witness("derivation.add", f"{slug} {symbol} {timeframe}", lake.clock.now_us(), base=base.timeframe, anchor=anchor)(tx)
    note(f"{slug} {symbol} {base.timeframe} is kept for {timeframe} at {anchor}")


@derivations.command("list")
def list_derivations_(as_json: Json = False) -> None:
    """Show what is declared."""
    from storage import open_lake
    from storage.lake.sources import list_derivations

    with open_lake() as lake, lake.metadata.read() as tx:
        rows = [{name: getattr(item, name) for name in DERIVATIONS} for item in list_derivations(tx)]
    print_rows(rows, DERIVATIONS, as_json=as_json, empty="nothing is declared as derived")


@derivations.command("remove")
def remove_derivation(slug: Slug, symbol: Symbol, timeframe: Timeframe, anchor: Anchor = "utc") -> None:
    """Take a declaration back."""
    from storage import open_lake
    from storage.lake.sources import drop_derivation

    with open_lake() as lake, lake.metadata.write() as tx:
        drop_derivation(tx, slug, symbol, timeframe, anchor=anchor)
        witness("derivation.remove", f"{slug} {symbol} {timeframe}", lake.clock.now_us(), anchor=anchor)(tx)
    note(f"{slug} {symbol} {timeframe} at {anchor} is no longer declared")


@snapshots.command("create")
def create(
    name: Name, slug: Annotated[str | None, typer.Option("--connection", help="Only this connection.")] = None,
    remark: Annotated[str, typer.Option("--note", help="What it is for.")] = "", as_json: Json = False,
) -> None:
    """Name what is stored now, and pin its files: cleanup and sweeps leave them."""
    from storage import open_lake

    with open_lake() as lake:
        check_filter(lake, slug)
        row = lake.create_snapshot(name, remark, slug, witness("snapshot.create", name, lake.clock.now_us(), connection=slug or "all"))
    print_object(_summary(row), as_json=as_json)


@snapshots.command("list")
def list_snapshots_(as_json: Json = False) -> None:
    """Show all snapshots."""
    from storage import open_lake
    from storage.snapshots import list_snapshots

    with open_lake() as lake, lake.metadata.read() as tx:
        rows = [_summary(row) for row in list_snapshots(tx)]
    print_rows(rows, SNAPSHOTS, as_json=as_json, empty="no snapshots: candlelake snapshots create NAME")


@snapshots.command("show")
def show(name: Name, as_json: Json = False) -> None:
    """Show a snapshot's series; with --json the whole manifest, which `verify --manifest` takes elsewhere."""
    from storage import open_lake
    from storage.snapshots import find_snapshot

    with open_lake() as lake, lake.metadata.read() as tx:
        row = find_snapshot(tx, name)
    if as_json:
        print_json({**_summary(row), **row.manifest})
        return
    print_object(_summary(row), as_json=False)
    print_rows(row.manifest["series"], ("connection", "symbol", "timeframe", "rows", "first", "last", "rows_digest"), as_json=False,
               empty="an empty snapshot")


@snapshots.command("verify")
def verify(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The snapshot.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="Compare this home with a manifest made here or elsewhere.")] = None,
    as_json: Json = False,
) -> int:
    """Check that a snapshot still reads as it was made, or that this home holds the rows of a manifest; exit 1 if not."""
    from core.errors import InputError
    from storage import open_lake
    from storage.snapshots import compare, verify_snapshot

    if (name is None) == (manifest is None):
        raise InputError("snapshots verify", f"{name!r} and --manifest {manifest}", "either NAME or --manifest FILE", "give one of them")
    with open_lake() as lake:
        found = verify_snapshot(lake.place, name) if name is not None else compare(lake.place, _loaded(manifest))
    rows = [{"path": item.path, "what": item.what, "fix": item.fix} for item in found]
    print_rows(rows, ("path", "what", "fix"), as_json=as_json, empty="the same rows, byte for byte" if name else "this home holds exactly these rows")
    return 1 if rows else 0


@snapshots.command("delete")
def delete(name: Name) -> None:
    """Forget a snapshot; what only it kept goes with the next cleanup."""
    from storage import open_lake
    from storage.snapshots import delete_snapshot

    with open_lake() as lake, lake.metadata.write() as tx:
        delete_snapshot(tx, name)
        witness("snapshot.delete", name, lake.clock.now_us())(tx)
    note(f"snapshot {name} deleted")


def _summary(row: SnapshotRow) -> dict[str, object]:
    from core.clock import isoformat

    items = row.manifest["series"]
    return {"name": row.name, "created": isoformat(row.created_at_us), "series": len(items),
            "rows": sum(item["rows"] for item in items), "digest": row.digest, "note": row.note}


def _loaded(path: Path | None) -> dict[str, Any]:
    from core.errors import InputError

    try:
        loaded = json.loads((path or Path()).read_text())
    except ValueError as error:
        raise InputError("--manifest", str(path), "JSON as `candlelake snapshots show NAME --json` prints it", str(error)) from None
    if not isinstance(loaded, dict):
        raise InputError("--manifest", str(path), "JSON as `candlelake snapshots show NAME --json` prints it", "make it anew")
    return loaded


def _pair(text: str) -> tuple[str, str]:
    from core.errors import InputError

    slug, found, symbol = text.partition("=")
    if not found or not slug or not symbol:
        raise InputError("SLUG=SYMBOL", text, "a connection and its symbol, e.g. kraken=BTC/USD", "join them by =")
    return slug, symbol


def _told(
    lake: Lake, slug: str, symbol: str, timeframe: str, derive_from: str | None, span: tuple[datetime | None, datetime | None],
) -> pl.DataFrame:
    from core.errors import NotFoundError
    from core.series import Series
    from storage.series import find_series

    check_filter(lake, slug, timeframe if derive_from is None else derive_from)
    with lake.metadata.read() as tx:
        try:
            find_series(tx, Series.parse(slug, symbol, timeframe))
        except NotFoundError:
            if derive_from is None:
                raise
        else:
            derive_from = None
    frame = lake.candles(slug, symbol, timeframe, span[0], span[1], derive_from=derive_from)
    return frame.filter("is_complete") if derive_from is not None else frame

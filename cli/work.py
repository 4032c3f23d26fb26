"""Commands that change the lake: fetch, backfill, repair, audit, flush, verify, cleanup."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import in_candles, note, print_error, print_json, print_object, print_rows, progress_bar
from cli.witness import deed

if TYPE_CHECKING:
    from feed import Feed
    from feed.audit import AuditScope
    from feed.result import RunResult
    from feed.upkeep import CleanupPlan
    from storage.ticks.store import TickRetention

TURN_SECONDS = 1.0  # between two looks whether another run has ended
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection.")]
AnySlug = Annotated[str | None, typer.Argument(metavar="[SLUG]", help="One connection; all of them without it.")]
COVERAGE = ("connection", "symbol", "timeframe", "first", "last", "expected", "stored", "explained", "unexplained")


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    for command in (fetch, backfill, repair, audit, flush, verify, cleanup):
        app.command()(command)


def fetch(
    slug: Slug,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="Only this timeframe, e.g. 1m, 1h, 1d.")] = None,
    as_json: Json = False,
) -> int:
    """Fetch what is due of a connection: new candles, an overlap, gaps that are due for another try."""
    from core.series import check_slug, check_symbol
    from core.timeframe import Timeframe
    from feed import open_feed
    from feed.fetch import fetch as run_fetch

    check_slug(slug)
    length = None if timeframe is None else Timeframe.parse(timeframe).name
    wanted = None if symbol is None else check_symbol(symbol)
    with open_feed() as feed:
        feed.connections.get(slug)
        _check_any_series(feed, slug, wanted, length)
        with progress_bar(f"fetch {slug}", quiet=as_json) as progress:
            result = asyncio.run(run_fetch(
                feed, connections=[slug], symbol=wanted, timeframe=length, due_only=False, progress=progress))
    return _end(result, as_json=as_json)


def backfill(
    slug: Slug,
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="In the provider's spelling, e.g. BTC/USDT.")],
    timeframe: Annotated[str, typer.Argument(metavar="TIMEFRAME", help="e.g. 1m, 1h, 1d.")],
    start: Annotated[str, typer.Argument(metavar="START", help="ISO 8601, UTC when it has no offset.")],
    end: Annotated[str, typer.Argument(metavar="END", help="ISO 8601, exclusive.")],
    as_json: Json = False,
) -> int:
    """Fetch the history of a series from START up to END; goes on where an earlier run stopped."""
    from core.interval import Interval
    from core.series import Series
    from feed import open_feed
    from feed.backfill import backfill as run_backfill

    series = Series.parse(slug, symbol, timeframe)
    interval = Interval.parse(start, end)
    with open_feed() as feed, progress_bar(f"backfill {series}", quiet=as_json) as progress:
        result = asyncio.run(_in_turn(lambda: run_backfill(feed, series, interval, progress=in_candles(progress))))
    return _end(result, as_json=as_json)


async def _in_turn(run: Callable[[], Awaitable[RunResult]]) -> RunResult:
    """Run; while another run holds the series, wait for its end: what a person orders is done, not skipped."""
    is_told = False
    while (result := await run()).only_skipped:
        if not is_told:
            note(f"waiting: {result.series[0].skipped}")
            is_told = True
        await asyncio.sleep(TURN_SECONDS)
    return result


def repair(slug: AnySlug = None, as_json: Json = False) -> int:
    """Ask again for every missing candle that a provider may still have."""
    from feed import open_feed
    from feed.repair import repair as run_repair

    with open_feed() as feed:
        if slug is not None:
            feed.connections.get(slug)
        with progress_bar("repair", quiet=as_json) as progress:
            result = asyncio.run(run_repair(feed, connection=slug, progress=progress))
    return _end(result, as_json=as_json)


def audit(
    slug: AnySlug = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="First rebuild lost metadata from the lake's files.")] = False,
    deep: Annotated[bool, typer.Option(
        "--deep", help="Ask the providers again for a sample of old candles; what they changed becomes revisions.")] = False,
    pages: Annotated[int, typer.Option(min=1, help="With --deep: how many pages of each series.")] = 3,
    start: Annotated[str | None, typer.Option(help="With --deep: this range in full; ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option(help="With --deep: up to here, exclusive.")] = None,
    symbol: Annotated[str | None, typer.Option(help="With --deep: only this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="With --deep: only this timeframe.")] = None,
    as_json: Json = False,
) -> int:
    """Check that every expected candle is stored or has a recorded cause; exit 1 where one has neither."""
    from cli.data import coverage_rows
    from storage import open_lake

    if deep:
        return _deep_audit(slug, pages, (start, end), symbol, timeframe, as_json=as_json)
    lake = open_lake()
    try:
        if rebuild:
            with deed(lake, "rebuild", "all") as told:
                report = lake.rebuild()
                told["files"] = report.files
            note(f"rebuilt from the lake's files: {_fields(report)}")
        rows = coverage_rows(lake, slug)
    finally:
        lake.close()
    print_rows(rows, COVERAGE, as_json=as_json, empty="no series yet: candlelake connections add")
    open_slots = sum(int(str(row["unexplained"])) for row in rows)
    if open_slots:
        note(f"{open_slots} expected candles are neither stored nor explained; run: candlelake repair")
        return 1
    return 0


def _deep_audit(
    slug: str | None, pages: int, ends: tuple[str | None, str | None], symbol: str | None, timeframe: str | None, *, as_json: bool,
) -> int:
    from feed import open_feed
    from feed.audit import audit as run_audit

    with open_feed() as feed, progress_bar("audit", quiet=as_json) as progress:
        result = asyncio.run(run_audit(feed, audit_scope(slug, pages, ends, symbol, timeframe), progress=progress))
    vanished, compared = sum(item.vanished for item in result.series), sum(item.compared for item in result.series)
    note(f"{compared} stored candles asked for again, {result.revised} had changed, {vanished} are no longer shown")
    return _end(result, as_json=as_json)


def audit_scope(
    slug: str | None, pages: int, ends: tuple[str | None, str | None], symbol: str | None, timeframe: str | None,
) -> AuditScope:
    """Return what a person wants to be asked for again; `ends` are the two ends of a range in full, as given."""
    from core.clock import EARLIEST_US, LATEST_US, parse_instant
    from core.interval import Interval
    from core.timeframe import Timeframe
    from feed.audit import AuditScope

    first = EARLIEST_US if ends[0] is None else parse_instant(ends[0], "--start")
    last = LATEST_US if ends[1] is None else parse_instant(ends[1], "--end")
    interval = None if ends == (None, None) else Interval(first, last)
    return AuditScope(slug, symbol, None if timeframe is None else Timeframe.parse(timeframe).name, interval, pages)


def flush(as_json: Json = False) -> int:
    """Move the head's candles into the Parquet lake and renew its catalog."""
    from feed import open_feed, upkeep

    with open_feed() as feed, progress_bar("flush", quiet=as_json) as progress:
        result = upkeep.flush(feed, progress)
    print_object({"partitions": result.partitions, "rows": result.rows}, as_json=as_json)
    return 0


def verify(
    slug: AnySlug = None,
    against_provider: Annotated[bool, typer.Option(
        "--against-provider", help="Ask the providers again for a sample of stored candles and show what differs; writes nothing.")] = False,
    pages: Annotated[int, typer.Option(min=1, help="With --against-provider: how many pages of each series.")] = 3,
    start: Annotated[str | None, typer.Option(help="With --against-provider: this range in full; ISO 8601.")] = None,
    end: Annotated[str | None, typer.Option(help="With --against-provider: up to here, exclusive.")] = None,
    symbol: Annotated[str | None, typer.Option(help="With --against-provider: only this symbol.")] = None,
    timeframe: Annotated[str | None, typer.Option(help="With --against-provider: only this timeframe.")] = None,
    as_json: Json = False,
) -> int:
    """Check every file of the lake against its recorded digest, or stored candles against their provider; exit 1 if not alike."""
    from core.errors import InputError
    from feed import open_feed, upkeep

    if against_provider:
        return _against_provider(slug, pages, (start, end), symbol, timeframe, as_json=as_json)
    if slug is not None:
        raise InputError("SLUG", slug, "none without --against-provider", "every file is checked; leave it out")
    with open_feed() as feed, progress_bar("verify", quiet=as_json) as progress:
        report = upkeep.verify(feed, progress)
    problems = [{"path": str(item.path), "what": item.what, "fix": item.fix} for item in report.problems]
    if as_json:
        print_json({"files": report.files, "rows": report.rows, "problems": problems})
    else:
        print_rows(problems, ("path", "what", "fix"), as_json=False,
                   empty=f"{report.files} files with {report.rows} rows, all as recorded")
    return 1 if problems else 0


def _against_provider(
    slug: str | None, pages: int, ends: tuple[str | None, str | None], symbol: str | None, timeframe: str | None, *, as_json: bool,
) -> int:
    from feed import open_feed
    from feed.audit import differences

    scope = audit_scope(slug, pages, ends, symbol, timeframe)
    with open_feed() as feed, progress_bar("verify", quiet=as_json) as progress:
        compared, rows = asyncio.run(differences(feed, scope, progress=progress))
    if as_json:
        print_json({"compared": compared, "differences": rows})
    else:
        print_rows(rows, ("series", "ts", "what", "stored", "provider"), as_json=False,
                   empty=f"{compared} stored candles asked for again, all as the provider shows them now")
    return 1 if rows else 0


def cleanup(
    retention_days: Annotated[
        int | None, typer.Option(help="Keep so many days; default CANDLELAKE_RETENTION_DAYS.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this the plan is shown only.")] = False,
    timeframe: Annotated[str | None, typer.Option(help="Only this timeframe, e.g. 1m.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Remove also what is the only source of another series.")] = False,
    as_json: Json = False,
) -> int:
    """Show which old candles and ticks would be removed, and with --apply remove them (their files go to .old/ first).

    Ticks have a retention of their own: CANDLELAKE_TICK_RETENTION_DAYS, or the connection's setting tick_retention_days.
    """
    from core.errors import InputError
    from feed import open_feed, upkeep
    from feed.ticks import plan_tick_cleanup, tick_counts, tick_retentions

    with open_feed() as feed:
        plan = upkeep.plan_cleanup(feed, retention_days, timeframe=timeframe, is_forced=force)
        ticks = plan_tick_cleanup(feed) if timeframe is None else []
        if retention_days is None and not plan.retention_days and not tick_retentions(feed):
            raise InputError("--retention-days", None, "1 to 36500", "give it, or set CANDLELAKE_RETENTION_DAYS")
        items = [{"series": str(item.series), "rows": item.rows} for item in plan.items]
        items += [{"series": f"ticks of {name}", "rows": rows} for name, rows in tick_counts(ticks).items()]
        removed = _remove(feed, plan, ticks, timeframe or "all") if apply else None
    refused = [{"series": str(item.series), "rows": item.rows, "reason": item.reason} for item in plan.refused]
    code, planned = 1 if refused and apply else 0, plan.rows + sum(tick_counts(ticks).values())
    if as_json:
        print_json({"applied": apply, "rows": planned, "items": items, "refused": refused})
        return code
    for item in plan.refused:
        note(f"refused: {item.reason}")
    print_rows(items, ("series", "rows"), as_json=False,
               empty="nothing else is older than the retention" if refused else "nothing is older than the retention")
    if removed is not None:
        note(f"removed {removed} rows; the old files stay in .old/ for the grace time")
    elif items:
        note(f"dry run: {planned} rows would go; add --apply to remove them")
    return code


def _remove(feed: Feed, plan: CleanupPlan, ticks: Sequence[TickRetention], what: str) -> int:
    """Remove what is planned, with a word in the audit log before and one after; return the rows that are gone."""
    from feed import upkeep
    from feed.ticks import apply_tick_cleanup, tick_counts

    planned = plan.rows + sum(tick_counts(ticks).values())
    if not planned:
        return 0
    with deed(feed.lake, "cleanup", what, rows=planned) as told:
        removed = upkeep.apply_cleanup(feed, plan).rows + apply_tick_cleanup(feed, ticks)
        told["rows"] = removed
    return removed


def _check_any_series(feed: Feed, slug: str, symbol: str | None, timeframe: str | None) -> None:
    from core.errors import NotFoundError
    from storage.series import list_series

    with feed.lake.metadata.read() as tx:
        if list_series(tx, slug, symbol, timeframe, only_active=True):
            return
        known = ", ".join(f"{row.series.symbol} {row.series.timeframe}" for row in list_series(tx, slug, only_active=True))
    asked = " ".join(part for part in (slug, symbol, timeframe) if part)
    raise NotFoundError(
        f"no active series {asked}; there are: {known or 'none'}; "
        f"add one with: candlelake backfill {slug} SYMBOL TIMEFRAME START END")


def _end(result: RunResult, *, as_json: bool) -> int:
    if as_json:
        print_json(result.as_dict())
    if result.exit_code == 1:
        print_error(result.message)
    elif not as_json:
        note(" ".join(result.message.split()))
    return result.exit_code


def _fields(report: object) -> str:
    names = getattr(report, "__dataclass_fields__", {})
    return ", ".join(f"{name} {getattr(report, name)}" for name in names if isinstance(getattr(report, name), int))

"""What pages and API show, read once for both: each list already holds only what the reader may see."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import polars as pl
from sqlalchemy import ColumnElement, select

from connections.rows import ConnectionName, ConnectionRow, read_names
from console.identity import Identity, not_there
from console.series_pages import Page, matching, page_of
from core.clock import EARLIEST_US, LATEST_US, isoformat, parse_instant
from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.series import Series
from feed.context import Feed
from storage.coverage import CoverageRow, coverage
from storage.lake.revisions import list_revisions
from storage.ledger import list_gaps
from storage.metadata.tables import connection_logs, connections
from storage.series import find_series, list_series

CANDLES_MAX: Final = 10_000
ROWS_MAX: Final = 1_000
ROWS_SHOWN: Final = 500
SERIES_SHOWN: Final = 100
_FLOW_RUN: Final = re.compile(r"backfill-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")  # a flow's run of one connection
NEAR: Final = 3  # times the page's own length that is looked at first for a page of the past


def seen_connection(feed: Feed, who: Identity, slug: str) -> ConnectionRow:
    """Return a connection that the reader may see; the same NotFoundError when it is absent or somebody else's."""
    try:
        row = feed.connections.get(slug)
    except NotFoundError:
        raise not_there(slug) from None
    return who.check_sees(row)


def seen_names(feed: Feed, who: Identity) -> list[ConnectionName]:
    """Return the names of the connections that the reader may see, by slug."""
    with feed.lake.metadata.read() as tx:
        return [row for row in read_names(tx) if who.may_see(row)]


def seen_slugs(feed: Feed, who: Identity) -> set[str]:
    """Return the slugs of the connections that the reader may see."""
    return {row.slug for row in seen_names(feed, who)}


def seen_series(feed: Feed, who: Identity, slug: str, symbol: str, timeframe: str) -> Series:
    """Return a series that the reader may see and that is there."""
    seen_connection(feed, who, slug)
    series = Series.parse(slug, symbol, timeframe)
    with feed.lake.metadata.read() as tx:
        find_series(tx, series)
    return series


def candles(feed: Feed, series: Series, start: str | None, end: str | None, limit: int, as_of: str | None = None) -> pl.DataFrame:  # noqa: PLR0917  as the lake's own
    """Return the newest `limit` candles of a range, ascending, with the lake's columns."""
    if not 1 <= limit <= CANDLES_MAX:
        raise InputError("limit", limit, f"1 to {CANDLES_MAX}", "ask for the next ones with end=<the first ts you have>")
    if (start, end, as_of) == (None, None, None):
        return feed.lake.latest(series.connection, series.symbol, series.timeframe.name, limit)
    where = (series.connection, series.symbol, series.timeframe.name)
    if start is None and end is not None:  # the page before `end`: most often it lies close by
        near = parse_instant(end, "end") - NEAR * limit * series.timeframe.length_us
        if near > EARLIEST_US:
            found = feed.lake.candles(*where, start=isoformat(near), end=end, as_of=as_of).tail(limit)
            if len(found) == limit:
                return found
    return feed.lake.candles(*where, start=start, end=end, as_of=as_of).tail(limit)


def candle_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Return candles as JSON-ready rows; instants are ISO 8601 with Z."""
    return as_text(frame).to_dicts()


def candle_json(frame: pl.DataFrame) -> bytes:
    """Return `candle_rows` as JSON; ten thousand of them without a Python object for each value."""
    return as_text(frame).write_json().encode()


def candle_columns(frame: pl.DataFrame) -> bytes:
    """Return candles as JSON with a list for each column, as charts take them; `t` is the open time in seconds since 1970."""
    columns = {"t": frame["ts"].dt.epoch("s").to_list()} | {name[0]: frame[name].to_list() for name in ("open", "high", "low", "close", "volume")}
    return orjson.dumps(columns | {name: frame[name].to_list() for name in ("parts", "parts_expected") if name in frame.columns})


def as_text(frame: pl.DataFrame) -> pl.DataFrame:
    """Return candles with their instants as ISO 8601 text."""
    # `known_at` keeps its microseconds: asked for as of it, the candle must be there.
    return frame.with_columns(
        pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ" if name == "known_at" else "%Y-%m-%dT%H:%M:%SZ")
        for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime))


def tick_json(frame: pl.DataFrame) -> bytes:
    """Return ticks as JSON; their instants keep the microseconds."""
    wire = frame.with_columns(pl.col(name).dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ") for name, kind in frame.schema.items()
                              if isinstance(kind, pl.Datetime))
    return wire.write_json().encode()


def coverage_rows(feed: Feed, seen: Collection[str]) -> list[dict[str, Any]]:
    """Return the coverage of every series of some connections (by slug)."""
    return [_covered(item) for slug in sorted(seen) for item in coverage(feed.lake, slug)]


def coverage_page(feed: Feed, seen: Collection[str], text: str, number: int) -> Page[dict[str, Any]]:
    """Return a page of the coverage of some connections' series (by slug): those that hold each word of `text`."""
    with feed.lake.metadata.read() as tx:
        known = [row for row in list_series(tx) if row.series.connection in seen]
    shown = page_of(matching(known, text, with_connection=True), number, SERIES_SHOWN)
    return shown.showing([_covered(item) for item in coverage(feed.lake, only=[row.id for row in shown.found])])


@dataclass(frozen=True, slots=True)
class RowFilter:
    """Which rows of the ledger or of the revisions: of a series, a cause, a range that they touch; which page of them."""

    symbol: str | None = None
    timeframe: str | None = None
    cause: str | None = None
    within: Interval | None = None
    limit: int = ROWS_SHOWN
    skip: int = 0


def gap_rows(feed: Feed, slug: str, only: RowFilter) -> list[dict[str, Any]]:
    """Return the ledger's entries of a connection that match, those that begin last first."""
    with feed.lake.metadata.read() as tx:
        found = list_gaps(tx, slug, only.symbol, only.timeframe, within=only.within, cause=only.cause, newest=only.limit, skip=only.skip)
    newest = sorted(found, key=lambda gap: gap.interval.start, reverse=True)
    return [{"symbol": gap.series.symbol, "timeframe": gap.series.timeframe.name, "start": isoformat(gap.interval.start),
             "end": isoformat(gap.interval.end), "cause": gap.cause, "attempts": gap.attempts, "next_try": _iso(gap.next_try_us),
             "proof": dict(gap.proof)} for gap in newest]


def revision_rows(feed: Feed, slug: str, only: RowFilter) -> list[dict[str, Any]]:
    """Return what the provider changed, what was seen last first."""
    with feed.lake.metadata.read() as tx:
        found = list_revisions(tx, slug, only.symbol, only.timeframe, only.limit, skip=only.skip)
    return [{"symbol": row.series.symbol, "timeframe": row.series.timeframe.name, "ts": isoformat(row.ts_us),
             "known_at": isoformat(row.known_at_us), "old": dict(row.old), "new": dict(row.new)} for row in found]


def range_of(start: str | None, end: str | None) -> Interval | None:
    """Return the range between two instants, None without both; open at the end that is not given."""
    if not start and not end:
        return None
    return Interval(parse_instant(start, "start") if start else EARLIEST_US, parse_instant(end, "end") if end else LATEST_US)


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which log rows: one action, one outcome, a text in the message, older than a row or newer than one."""

    action: str | None = None
    status: str | None = None
    text: str | None = None
    before: int | None = None
    after: int | None = None


def log_rows(feed: Feed, slug: str, limit: int, only: LogFilter | None = None) -> list[dict[str, Any]]:
    """Return the newest actions on a connection that match, newest first; `id` is where the next page begins."""
    if not 1 <= limit <= ROWS_MAX:
        raise InputError("limit", limit, f"1 to {ROWS_MAX}", "ask for the next ones with before=<the last id you have>")
    only, logs = only or LogFilter(), connection_logs.c
    query = select(connection_logs).where(_of_connection(slug)).order_by(logs.id.desc()).limit(limit)
    if only.text:
        query = query.where(logs.message.icontains(only.text, autoescape=True))
    for column, value in ((logs.action, only.action), (logs.status, only.status)):
        query = query if value is None else query.where(column == value)
    query = query if only.before is None else query.where(logs.id < only.before)
    query = query if only.after is None else query.where(logs.id > only.after)
    with feed.lake.metadata.read() as tx:
        found = tx.execute(query).mappings().all()
    return [{"id": row["id"], "at": isoformat(row["created_at_us"]), "action": row["action"], "status": row["status"],
             "message": row["message"], "run_id": _run_id(row["metadata"])} for row in found]


def log_actions(feed: Feed, slug: str) -> list[str]:
    """Return the kinds of actions that a connection's log holds."""
    with feed.lake.metadata.read() as tx:
        return sorted(tx.execute(select(connection_logs.c.action).where(_of_connection(slug)).distinct()).scalars())


def _of_connection(slug: str) -> ColumnElement[bool]:
    """Rows of the connection that is there now: a deleted one of the same name may have been somebody else's."""
    return connection_logs.c.connection_id == select(connections.c.id).where(connections.c.slug == slug).scalar_subquery()


def _covered(row: CoverageRow) -> dict[str, Any]:
    return {
        "connection": row.series.connection, "symbol": row.series.symbol, "timeframe": row.series.timeframe.name,
        "first": _iso(row.first_us), "last": _iso(row.last_us), "expected": row.expected, "stored": row.stored,
        "explained": row.explained, "unexplained": row.unexplained,
    }


def _run_id(kept: Mapping[str, Any] | None) -> str | None:
    """Return Prefect's number of the run that a log row is about, as far as its page shows it."""
    known = kept or {}
    if isinstance(known.get("run_id"), str):
        return str(known["run_id"])
    found = _FLOW_RUN.fullmatch(str(known.get("lake_run", "")))
    return None if found is None else found[1]


def _iso(value: int | None) -> str | None:
    return None if value is None else isoformat(value)

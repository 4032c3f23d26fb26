"""Pages of connections: the list, the form, one connection with its candles, gaps, changes, log and runs."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from connections.rows import ConnectionRow
from console import actions, derived_view, listing, readings
from console.listing import ConnectionFilter
from console.policy import CONNECTIONS, SIGNED_IN, identity_of
from console.readings import RowFilter
from console.rendering import digits_of, page
from console.series_pages import TEXT_MAX
from console.state import feed_of
from core.errors import InputError
from feed.context import Feed
from storage.gap_words import MEANINGS, why

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
Text = Annotated[str, Form(max_length=2000)]
TABLE_ROWS = 100
PageNumber = Annotated[int, Query(ge=1, le=100_000)]


@router.get("/", dependencies=[Depends(SIGNED_IN)])
def home(request: Request) -> Response:
    """Lead to the connections, or to the account where there are none to see."""
    return RedirectResponse("/connections" if identity_of(request).sees_connections else "/account", 303)


@router.get("/connections", dependencies=SEES)
def show_list(request: Request, query: str = "", health: str = "", page_number: PageNumber = 1) -> Response:
    """Show the reader's connections with their state, a page of them at a time: all, or those that match."""
    feed, text = feed_of(request), query[:TEXT_MAX]
    if health and health not in listing.STATES:
        raise InputError("health", health[:20], listing.STATES, "choose one of them, or none for all")
    shown = listing.listed_page(feed, identity_of(request), ConnectionFilter(text, health or None), page_number)
    return page(request, "connections.html", {
        "shown": shown, "query": text, "health": health, "states": listing.STATES, "turn": shown.links(query=text, health=health)})


@router.get("/connections/{slug}", dependencies=SEES)
def show(request: Request, slug: str, test: bool = False) -> Response:
    """Show one connection: state, what to do, coverage."""
    feed, row = _seen(request, slug)
    return _tab(request, row, "status", {
        "item": listing.listed_one(feed, row), "shown": readings.coverage_page(feed, [slug], "", 1), "test": test, "logs": readings.log_rows(feed, slug, 8)})


@router.post("/connections/{slug}/test", dependencies=SEES)
async def test(request: Request, slug: str) -> Response:
    """Try the connection; the answer is a part of the page."""
    return page(request, "part_test.html", {"result": await actions.test(feed_of(request), identity_of(request), slug)})


@router.post("/connections/{slug}/activate", dependencies=SEES)
def activate(request: Request, slug: str) -> Response:
    """Let scheduled fetches use it."""
    actions.switch(feed_of(request), identity_of(request), slug, is_active=True)
    return RedirectResponse(f"/connections/{slug}", 303)


@router.post("/connections/{slug}/deactivate", dependencies=SEES)
def deactivate(request: Request, slug: str) -> Response:
    """Fetch nothing more."""
    actions.switch(feed_of(request), identity_of(request), slug, is_active=False)
    return RedirectResponse(f"/connections/{slug}", 303)


@router.get("/connections/{slug}/delete", dependencies=SEES)
def show_delete(request: Request, slug: str) -> Response:
    """Show what would be removed."""
    feed, row = _seen(request, slug)
    stored = sum(item["stored"] for item in readings.coverage_rows(feed, [slug]))
    return _tab(request, row, "delete", {"stored": stored})


@router.post("/connections/{slug}/delete", dependencies=SEES)
def delete(request: Request, slug: str, confirm: Text = "", purge: Annotated[bool, Form()] = False) -> Response:
    """Remove it when its name was typed."""
    _seen(request, slug)
    if confirm.strip() != slug:
        raise InputError("confirmation", confirm[:80], slug, "type the connection's slug to delete it")
    actions.delete(feed_of(request), identity_of(request), slug, purge=purge)
    return RedirectResponse("/connections", 303)


@router.get("/connections/{slug}/candles", dependencies=SEES)
def show_candles(  # noqa: PLR0917  one for each field of the form
    request: Request, slug: str, symbol: str = "", timeframe: str = "", start: str = "", end: str = "", page_number: PageNumber = 1, anchor: str = "utc",
) -> Response:
    """Show the chart and the newest candles as pages of a table; a timeframe that is not stored is made of one that is."""
    feed, row = _seen(request, slug)
    symbol, timeframe = symbol or next(iter(row.symbols), ""), timeframe or next(iter(row.timeframes), "")
    rows: list[dict[str, Any]] = []
    error, base = None, None
    asked: dict[str, Any] = {"start": start or None, "end": end or None, "limit": readings.CANDLES_MAX if start or end else min(readings.CANDLES_MAX, page_number * TABLE_ROWS + 1), "as_of": None}
    try:
        if symbol and timeframe:
            base = None if timeframe in row.timeframes else derived_view.base_of(row.timeframes, timeframe)
            series = readings.seen_series(feed, identity_of(request), slug, symbol, base or timeframe)
            frame = derived_view.derived_candles(feed, series, timeframe, anchor, asked) if base else readings.candles(feed, series, **asked)
            rows = readings.candle_rows(frame)[::-1]
    except InputError as refused:
        error = str(refused)
    pages = max(1, -(-len(rows) // TABLE_ROWS))  # without a range: as far as was read, one row of the next page among them
    number = min(page_number, pages)
    shown = rows[(number - 1) * TABLE_ROWS:number * TABLE_ROWS]
    return _tab(request, row, "candles", {
        "symbol": symbol, "timeframe": timeframe, "start": start, "end": end, "error": error, "pages": pages, "number": number, "base": base,
        "anchor": anchor, "anchors": derived_view.ANCHORS, "offered": derived_view.offered(row.timeframes),
        "rows": shown, "count": len(rows), "digits": digits_of(item[name] for item in shown for name in ("open", "high", "low", "close"))})


@router.get("/connections/{slug}/gaps", dependencies=SEES)
def show_gaps(request: Request, slug: str, series: str = "", cause: str = "", page_number: PageNumber = 1) -> Response:
    """Show the ledger, newest first: all of it, or one series' or one cause's."""
    feed, row = _seen(request, slug)
    found = readings.gap_rows(feed, slug, _only(series, cause, page_number))
    return _tab(request, row, "gaps", _rows(found, page_number, series=series, cause=cause) | {
        "series": series, "cause": cause, "known": _names(row), "causes": MEANINGS, "why": why})


@router.get("/connections/{slug}/revisions", dependencies=SEES)
def show_revisions(request: Request, slug: str, series: str = "", page_number: PageNumber = 1) -> Response:
    """Show what the provider changed, newest first: all of it, or of one series."""
    feed, row = _seen(request, slug)
    found = readings.revision_rows(feed, slug, _only(series, "", page_number))
    return _tab(request, row, "revisions", _rows(found, page_number, series=series) | {"series": series, "known": _names(row)})


@router.get("/coverage", dependencies=SEES)
def show_coverage(request: Request, series: str = "", page_number: Annotated[int, Query(lt=2**31)] = 1) -> Response:
    """Show for each series what is expected, stored, explained and unexplained, a page of them at a time."""
    feed, who = feed_of(request), identity_of(request)
    text = series[:TEXT_MAX]
    shown = readings.coverage_page(feed, readings.seen_slugs(feed, who), text, page_number)
    return page(request, "coverage.html", {"series": text, "shown": shown, "turn": shown.links(series=text)})


def _only(series: str, cause: str, number: int) -> RowFilter:
    """Return what the filter of a page asks for, and one row more: whether there is another page."""
    symbol, _, timeframe = series[:120].rpartition(" ")
    return RowFilter(symbol or None, timeframe or None, cause[:30] or None, limit=TABLE_ROWS + 1, skip=(number - 1) * TABLE_ROWS)


def _rows(found: list[dict[str, Any]], number: int, **asked: str) -> dict[str, Any]:
    """Return a page of rows, and where the pages beside it are."""
    kept = {name: value for name, value in asked.items() if value}
    return {"rows": found[:TABLE_ROWS], "newer": f"?{urlencode(kept | {'page_number': number - 1})}" if number > 1 else None,
            "older": f"?{urlencode(kept | {'page_number': number + 1})}" if len(found) > TABLE_ROWS else None}


def _names(row: ConnectionRow) -> list[str]:
    return [f"{symbol} {timeframe}" for symbol in row.symbols for timeframe in row.timeframes]


def _seen(request: Request, slug: str) -> tuple[Feed, ConnectionRow]:
    feed, who = feed_of(request), identity_of(request)
    return feed, readings.seen_connection(feed, who, slug)


def _tab(request: Request, row: ConnectionRow, tab: str, values: dict[str, Any]) -> Response:
    return page(request, f"connection_{tab}.html", {"row": row, "tab": tab, **values})

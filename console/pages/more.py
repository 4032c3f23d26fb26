"""The map of coverage by day, a day's causes, and notifications."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import RedirectResponse, Response

from console import coverage_map, notes, readings
from console.notes import NoteFilter
from console.policy import CONNECTIONS, identity_of
from console.readings import RowFilter
from console.rendering import page
from console.series_pages import TEXT_MAX
from console.state import feed_of
from core.clock import DAY_US, isoformat, parse_instant
from core.interval import Interval

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
PAGE_ROWS: Final = 50


@router.get("/connections/{slug}/coverage", dependencies=SEES)
def show_map(
    request: Request, slug: str, days: Annotated[int, Query()] = 60, series: str = "",
    page_number: Annotated[int, Query(lt=2**31)] = 1,
) -> Response:
    """Show each series by day, a page of them at a time; `series` are words of symbol and timeframe to look for."""
    feed = feed_of(request)
    row = readings.seen_connection(feed, identity_of(request), slug)
    text = series[:TEXT_MAX]
    shown = coverage_map.days_of(feed, slug, days, text, page_number)
    return page(request, "connection_coverage.html", {
        "row": row, "tab": "coverage", "days": days, "series": text, "shown": shown,
        "turn": shown.links(days=days, series=text), "choices": sorted({*coverage_map.DAYS_OFFERED, days})})


@router.get("/connections/{slug}/day", dependencies=SEES)
def show_day(request: Request, slug: str, symbol: str = "", timeframe: str = "", day: str = "") -> Response:
    """Show why a day of a series is not complete."""
    feed = feed_of(request)
    row = readings.seen_connection(feed, identity_of(request), slug)
    start = parse_instant(day, "day") // DAY_US * DAY_US
    since, until = isoformat(start), isoformat(start + DAY_US)
    rows = readings.gap_rows(feed, slug, RowFilter(symbol or None, timeframe or None, within=Interval(start, start + DAY_US)))
    return page(request, "connection_day.html", {
        "row": row, "tab": "coverage", "symbol": symbol, "timeframe": timeframe, "day": since[:10], "until": until, "rows": rows})


@router.get("/notifications", dependencies=SEES)
def show_notifications(request: Request, unseen: bool = False, before: Annotated[int | None, Query(ge=1, lt=2**63)] = None) -> Response:
    """Show what people should know, newest first: all of it, or what nobody has acknowledged yet."""
    found = notes.note_rows(feed_of(request), identity_of(request), PAGE_ROWS + 1, NoteFilter(unseen, before))
    rows, kept = found[:PAGE_ROWS], {"unseen": "true"} if unseen else {}
    return page(request, "notifications.html", {
        "rows": rows, "unseen": unseen, "newer": f"?{urlencode(kept)}" if before else None,
        "older": f"?{urlencode(kept | {'before': rows[-1]['id']})}" if len(found) > PAGE_ROWS else None})


@router.post("/notifications/{note}/acknowledge", dependencies=SEES)
def acknowledge(request: Request, note: Annotated[int, Path(ge=1, lt=2**63)]) -> Response:
    """Mark a notification as seen."""
    notes.acknowledge(feed_of(request), identity_of(request), note)
    return RedirectResponse("/notifications", 303)

"""A connection's log and its runs: filters, pages, a live tail, files; fetch, backfill, repair and cleanup ordered and watched."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from console import actions, readings
from console.actions import RunOrder
from console.policy import CONNECTIONS, identity_of
from console.prefect_api import PrefectDesk, Run
from console.readings import LogFilter
from console.rendering import page
from console.state import desk_of, feed_of
from core.errors import CandlelakeError, InputError
from feed import Feed

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
Text = Annotated[str, Form(max_length=2000)]
PAGE_ROWS: Final = 50
LAST_RUNS: Final = 10
STOP_ASKING: Final = 286  # htmx then polls no more


@router.get("/connections/{slug}/logs", dependencies=SEES)
def show_logs(  # noqa: PLR0917  one for each field of the form
    request: Request, slug: str, action: str = "", status: str = "", text: str = "", before: str = "", tail: bool = False,
) -> Response:
    """Show what was done to the connection; as a tail the page asks for news by itself."""
    feed, row = feed_of(request), readings.seen_connection(feed_of(request), identity_of(request), slug)
    if before and not (before.isdecimal() and len(before) < 19):
        raise InputError("before", before[:40], "the id of a log row", "go back to the first page")
    only = LogFilter(action[:30] or None, status[:10] or None, text[:200] or None, int(before) if before else None)
    found = readings.log_rows(feed, slug, PAGE_ROWS + 1, only)
    kept = {name: value for name, value in (("action", action), ("status", status), ("text", text)) if value}
    values = {
        "row": row, "tab": "logs", "rows": found[:PAGE_ROWS], "action": action, "status": status, "text": text, "tail": tail, "before": before,
        "older": f"?{urlencode(kept | {'before': found[PAGE_ROWS - 1]['id']})}" if len(found) > PAGE_ROWS else None,
        "first": f"?{urlencode(kept)}", "news": f"?{urlencode(kept | {'tail': 1})}", "file": f"?{urlencode(kept)}"}
    if request.headers.get("hx-request") == "true":
        return page(request, "part_logs.html", values)
    return page(request, "connection_logs.html", values | {"kinds": readings.log_actions(feed, slug)})


@router.get("/connections/{slug}/logs.jsonl", dependencies=SEES)
def download_logs(request: Request, slug: str, action: str = "", status: str = "", text: str = "") -> Response:
    """Return the newest log rows that match as a file, one JSON object a line."""
    feed = feed_of(request)
    readings.seen_connection(feed, identity_of(request), slug)
    rows = readings.log_rows(feed, slug, readings.ROWS_MAX, LogFilter(action[:30] or None, status[:10] or None, text[:200] or None))
    body = "".join(json.dumps(item) + "\n" for item in reversed(rows))
    return Response(body, media_type="application/x-ndjson", headers={"content-disposition": f'attachment; filename="{slug}-logs.jsonl"'})


@router.get("/connections/{slug}/runs", dependencies=SEES)
def show_runs(request: Request, slug: str) -> Response:
    """Show the forms that order runs, and the runs that were ordered last."""
    return _runs(request, slug, None)


@router.post("/connections/{slug}/runs", dependencies=SEES)
def order(  # noqa: PLR0917  one for each field of the form
    request: Request, slug: str, flow: Text, symbol: Text = "", timeframe: Text = "", start: Text = "", end: Text = "", days: Text = "",
) -> Response:
    """Order a run and show how it goes."""
    feed, who = feed_of(request), identity_of(request)
    readings.seen_connection(feed, who, slug)
    try:
        wanted = RunOrder(flow=flow[:20], symbol=symbol[:100] or None, timeframe=timeframe[:10] or None, start=start[:40] or None,
                          end=end[:40] or None, retention_days=_days(days))
        run = actions.order(feed, desk_of(request), who, slug, wanted)
    except CandlelakeError as error:
        return _runs(request, slug, str(error))
    return RedirectResponse(f"/connections/{slug}/runs/{run.id}", 303)


@router.get("/connections/{slug}/cleanup", dependencies=SEES)
def show_cleanup(request: Request, slug: str, days: str = "") -> Response:
    """Show what retention would remove; the plan changes nothing."""
    feed, who = feed_of(request), identity_of(request)
    row = readings.seen_connection(feed, who, slug)
    plan, error = None, None
    try:
        plan = actions.cleanup_plan(feed, who, slug, _days(days))
    except InputError as refused:
        error = str(refused)
    return page(request, "connection_cleanup.html", {"row": row, "tab": "runs", "plan": plan, "days": days, "error": error})


@router.get("/connections/{slug}/runs/{number}", dependencies=SEES)
def show_run(request: Request, slug: str, number: str) -> Response:
    """Show a run; while it goes on the page asks again."""
    feed, desk = feed_of(request), desk_of(request)
    run = actions.run_of(feed, desk, identity_of(request), slug, number)
    is_part = request.headers.get("hx-request") == "true"
    values = run_values(feed, desk, run) | {"address": f"/connections/{slug}/runs/{run.id}", "is_part": is_part}
    if is_part:
        return page(request, "part_run.html", values, status=200 if values["is_asking"] else STOP_ASKING)
    return page(request, "connection_run.html", {"row": feed.connections.get(slug), "tab": "runs", **values})


@router.post("/connections/{slug}/runs/{number}/cancel", dependencies=SEES)
def cancel_run(request: Request, slug: str, number: str) -> Response:
    """Cancel a run and show it; one that has ended meanwhile is shown as it ended."""
    with suppress(InputError):  # it has ended: its page says how
        actions.cancel(feed_of(request), desk_of(request), identity_of(request), slug, number)
    return RedirectResponse(f"/connections/{slug}/runs/{number}", 303)


def run_values(feed: Feed, desk: PrefectDesk, run: Run) -> dict[str, Any]:
    """Return what the page of a run shows: state, progress, log lines, the address at Prefect, whether it asks again."""
    return {"run": run, "lines": desk.lines(run.id), "percent": desk.progress(run.id), "ui": desk.page_of(run),
            "is_asking": not run.is_told(feed.clock.now_us())}


def _runs(request: Request, slug: str, error: str | None) -> Response:
    feed = feed_of(request)
    row = readings.seen_connection(feed, identity_of(request), slug)
    last = [item for item in readings.log_rows(feed, slug, LAST_RUNS, LogFilter(action="run")) if item["run_id"]]
    return page(request, "connection_runs.html", {"row": row, "tab": "runs", "error": error, "last": last}, status=200 if error is None else 422)


def _days(text: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdecimal() or len(text.strip()) > 9 or not 1 <= int(text.strip()) <= 36_500:
        raise InputError("days", text[:20], "1 to 36500, or nothing for the connection's own", "correct it")
    return int(text.strip())

"""Pages of connections: the list, the form, one connection with its candles, gaps, changes, log and runs."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import SecretStr

from connections.rows import ConnectionRow
from console import actions, notes, readings
from console.actions import ChangedConnection, NewConnection, RunOrder
from console.identity import Identity
from console.policy import CONNECTIONS, SIGNED_IN, identity_of
from console.rendering import page
from console.state import desk_of, feed_of
from core.errors import CandlelakeError, InputError
from feed.context import Feed

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
Text = Annotated[str, Form(max_length=2000)]
Long = Annotated[str, Form(max_length=20_000)]
PROVIDERS = ("mtapi:mt5", "mtapi:mt4", "ccxt:binance", "ccxt:coinbase", "ccxt:kraken")
TABLE_ROWS = 100


@router.get("/", dependencies=[Depends(SIGNED_IN)])
def home() -> Response:
    """Lead to the connections."""
    return RedirectResponse("/connections", 303)


@router.get("/connections", dependencies=SEES)
def show_list(request: Request) -> Response:
    """Show the reader's connections with their state."""
    return page(request, "connections.html", {"items": readings.listed(feed_of(request), identity_of(request))})


@router.get("/connections/new", dependencies=SEES)
def show_new(request: Request) -> Response:
    """Show the empty form."""
    return _form(request, None, {}, None)


@router.post("/connections/new", dependencies=SEES)
def create(  # noqa: PLR0917  one for each field of the form
    request: Request, slug: Text, provider: Text, name: Text = "", base_url: Text = "", symbols: Long = "",
    timeframes: Long = "", credentials: Long = "", retention_days: Text = "",
) -> Response:
    """Add a connection and go on to its test."""
    values = {"slug": slug, "provider": provider, "name": name, "base_url": base_url, "symbols": symbols,
              "timeframes": timeframes, "retention_days": retention_days}
    try:
        given = NewConnection(
            slug=slug.strip(), provider=provider.strip(), name=name.strip(), base_url=base_url.strip() or None,
            symbols=_words(symbols), timeframes=_words(timeframes), credentials=_secrets(credentials), settings=_settings(retention_days))
        row = actions.create(feed_of(request), identity_of(request), given)
    except CandlelakeError as error:
        return _form(request, None, values, str(error))
    return RedirectResponse(f"/connections/{row.slug}?test=1", 303)


@router.get("/connections/{slug}", dependencies=SEES)
def show(request: Request, slug: str, test: bool = False) -> Response:
    """Show one connection: state, what to do, coverage."""
    feed, row = _seen(request, slug)
    item = next(found for found in readings.listed(feed, identity_of(request)) if found.row.slug == slug)
    return _tab(request, row, "status", {
        "item": item, "coverage": readings.coverage_rows(feed, [row]), "test": test, "logs": readings.log_rows(feed, slug, 8)})


@router.get("/connections/{slug}/edit", dependencies=SEES)
def show_edit(request: Request, slug: str) -> Response:
    """Show the form with what is stored; credentials stay where they are."""
    _, row = _seen(request, slug)
    retention = row.settings.get("retention_days")
    return _form(request, row, {
        "slug": slug, "provider": row.provider, "name": row.name, "base_url": row.base_url or "",
        "symbols": " ".join(row.symbols), "timeframes": " ".join(row.timeframes),
        "retention_days": "" if retention is None else str(retention)}, None)


@router.post("/connections/{slug}/edit", dependencies=SEES)
def edit(  # noqa: PLR0917  one for each field of the form
    request: Request, slug: str, name: Text = "", base_url: Text = "", symbols: Long = "", timeframes: Long = "",
    credentials: Long = "", retention_days: Text = "",
) -> Response:
    """Change a connection; blank credentials keep the stored ones."""
    _, row = _seen(request, slug)
    values: dict[str, Any] = {
        "name": name.strip(), "symbols": _words(symbols), "timeframes": _words(timeframes), "retention_days": retention_days}
    try:
        settings = {key: value for key, value in row.settings.items() if key != "retention_days"} | _settings(retention_days)
        given: dict[str, Any] = {"name": name.strip(), "symbols": _words(symbols), "timeframes": _words(timeframes), "settings": settings}
        if (base_url.strip() or None) != row.base_url:
            given["base_url"] = base_url.strip() or None
        if secret := _secrets(credentials):
            given["credentials"] = secret
        actions.update(feed_of(request), identity_of(request), slug, ChangedConnection(**given))
    except CandlelakeError as error:
        shown = values | {"slug": slug, "provider": row.provider, "base_url": base_url, "symbols": symbols, "timeframes": timeframes}
        return _form(request, row, shown, str(error))
    return RedirectResponse(f"/connections/{slug}?test=1", 303)


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
    stored = sum(item["stored"] for item in readings.coverage_rows(feed, [row]))
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
    request: Request, slug: str, symbol: str = "", timeframe: str = "", start: str = "", end: str = "", page_number: int = 1,
) -> Response:
    """Show the chart and the newest candles as a table."""
    feed, row = _seen(request, slug)
    symbol, timeframe = symbol or next(iter(row.symbols), ""), timeframe or next(iter(row.timeframes), "")
    rows: list[dict[str, Any]] = []
    error = None
    try:
        if symbol and timeframe:
            series = readings.seen_series(feed, identity_of(request), slug, symbol, timeframe)
            frame = readings.candles(feed, series, start or None, end or None, readings.CANDLES_MAX if start or end else TABLE_ROWS)
            rows = readings.candle_rows(frame)[::-1]
    except InputError as refused:
        error = str(refused)
    pages = max(1, -(-len(rows) // TABLE_ROWS))
    number = min(max(1, page_number), pages)
    return _tab(request, row, "candles", {
        "symbol": symbol, "timeframe": timeframe, "start": start, "end": end, "error": error, "pages": pages, "number": number,
        "rows": rows[(number - 1) * TABLE_ROWS:number * TABLE_ROWS], "count": len(rows)})


@router.get("/connections/{slug}/gaps", dependencies=SEES)
def show_gaps(request: Request, slug: str) -> Response:
    """Show the ledger."""
    feed, row = _seen(request, slug)
    return _tab(request, row, "gaps", {"rows": readings.gap_rows(feed, slug)})


@router.get("/connections/{slug}/revisions", dependencies=SEES)
def show_revisions(request: Request, slug: str) -> Response:
    """Show what the provider changed."""
    feed, row = _seen(request, slug)
    return _tab(request, row, "revisions", {"rows": readings.revision_rows(feed, slug)})


@router.get("/connections/{slug}/logs", dependencies=SEES)
def show_logs(request: Request, slug: str, action: str = "", status: str = "") -> Response:
    """Show what was done to the connection."""
    feed, row = _seen(request, slug)
    every = readings.log_rows(feed, slug, readings.ROWS_MAX)
    rows = [item for item in every if (not action or item["action"] == action) and (not status or item["status"] == status)]
    return _tab(request, row, "logs", {
        "rows": rows[:200], "kinds": sorted({item["action"] for item in every}), "action": action, "status": status})


@router.get("/connections/{slug}/runs", dependencies=SEES)
def show_runs(request: Request, slug: str) -> Response:
    """Show the forms that order runs."""
    _, row = _seen(request, slug)
    return _tab(request, row, "runs", {"error": None})


@router.post("/connections/{slug}/runs", dependencies=SEES)
def order(request: Request, slug: str, flow: Text, symbol: Text = "", timeframe: Text = "", start: Text = "", end: Text = "") -> Response:  # noqa: PLR0917  one for each field of the form
    """Order a run and show how it goes."""
    _, row = _seen(request, slug)
    wanted = RunOrder(flow=flow[:20], symbol=symbol[:100] or None, timeframe=timeframe[:10] or None, start=start[:40] or None, end=end[:40] or None)
    try:
        run = actions.order(feed_of(request), desk_of(request), identity_of(request), slug, wanted)
    except CandlelakeError as error:
        return _tab(request, row, "runs", {"error": str(error)})
    return RedirectResponse(f"/connections/{slug}/runs/{run.id}", 303)


@router.get("/connections/{slug}/runs/{number}", dependencies=SEES)
def show_run(request: Request, slug: str, number: str) -> Response:
    """Show a run; while it goes on the page asks again."""
    feed, row = _seen(request, slug)
    run = actions.run_of(feed, desk_of(request), identity_of(request), slug, number)
    values = {"run": run, "lines": desk_of(request).lines(number), "slug": slug, "ui": desk_of(request).url.removesuffix("/api")}
    if request.headers.get("hx-request") == "true":
        return page(request, "part_run.html", values)
    return _tab(request, row, "run", values)


@router.get("/coverage", dependencies=SEES)
def show_coverage(request: Request) -> Response:
    """Show for each series what is expected, stored, explained and unexplained."""
    feed, who = feed_of(request), identity_of(request)
    return page(request, "coverage.html", {
        "rows": readings.coverage_rows(feed, [row for row in feed.connections.list() if who.may_see(row)])})


@router.get("/notifications", dependencies=SEES)
def show_notifications(request: Request) -> Response:
    """Show what people should know."""
    feed = feed_of(request)
    return page(request, "notifications.html", {"rows": readings.notification_rows(feed, identity_of(request)), "seen": notes.acknowledged(feed)})


def _seen(request: Request, slug: str) -> tuple[Feed, ConnectionRow]:
    feed, who = feed_of(request), identity_of(request)
    return feed, readings.seen_connection(feed, who, slug)


def _tab(request: Request, row: ConnectionRow, tab: str, values: dict[str, Any]) -> Response:
    return page(request, f"connection_{tab}.html", {"row": row, "tab": tab, **values})


def _form(request: Request, row: ConnectionRow | None, values: dict[str, Any], error: str | None) -> Response:
    who: Identity = identity_of(request)
    return page(request, "connection_form.html", {
        "row": row, "values": values, "error": error, "providers": PROVIDERS, "is_admin": who.user.is_admin,
        "timeframes": ("1m", "5m", "15m", "1h", "4h", "1d")}, status=200 if error is None else 422)


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _secrets(text: str) -> dict[str, SecretStr]:
    """Return credentials from the field's JSON; what is wrong with them is never repeated."""
    if not text.strip():
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, (str, int)) for value in found.values()):
        raise InputError("credentials", "what is no JSON object of texts", '{"user": "…", "password": "…", "server": "…"}', "correct it")
    return {str(name): SecretStr(str(value)) for name, value in found.items()}


def _settings(retention_days: str) -> dict[str, Any]:
    if not retention_days.strip():
        return {}
    if not retention_days.strip().isdecimal():
        raise InputError("retention", retention_days[:20], "whole days, or nothing to keep all", "correct it")
    return {"retention_days": int(retention_days)}


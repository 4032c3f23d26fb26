"""The form of a connection: a picker of providers, symbols searched at the provider, credentials as fields that are never shown again."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import SecretStr

from connections.rows import ConnectionRow
from console import actions, choosing, readings
from console.actions import ChangedConnection, NewConnection
from console.policy import CONNECTIONS, identity_of
from console.rendering import page
from console.state import feed_of
from core.errors import CandlelakeError, InputError

router = APIRouter(include_in_schema=False)
SEES = [Depends(CONNECTIONS)]
Text = Annotated[str, Form(max_length=2000)]
Long = Annotated[str, Form(max_length=100_000)]
PREFIX = "credential_"
SECRET_MAX = 4000
MEANINGS = {
    "user": "Account number (login)", "password": "Password", "server": "Server name, as the terminal shows it", "host": "Server address",
    "port": "Server port", "api_key": "API key", "secret": "API secret", "uid": "Account id", "login": "Login",
}


DAYS = {"retention_days": "retention", "tick_retention_days": "retention of ticks"}  # settings that are days, and their names


async def entered_secrets(request: Request) -> dict[str, SecretStr]:
    """Return the credentials of the form, only those that were filled in.

    Raises:
        InputError: one is too long; its value is not repeated.
    """
    found = {}
    for key, value in (await request.form()).items():
        if key.startswith(PREFIX) and isinstance(value, str) and value.strip():
            if len(value) > SECRET_MAX:
                raise InputError(key.removeprefix(PREFIX)[:60], "a longer value", f"at most {SECRET_MAX} characters", "check it")
            found[key.removeprefix(PREFIX)[:60]] = SecretStr(value.strip())
    return found


Secrets = Annotated[dict[str, SecretStr], Depends(entered_secrets)]


def entered_settings(retention_days: Text = "", tick_retention_days: Text = "", stream: Text = "") -> dict[str, str]:
    """Return the form's part of the connection's own settings, as it was entered."""
    return {"retention_days": retention_days, "tick_retention_days": tick_retention_days, "stream": stream}


Entered = Annotated[dict[str, str], Depends(entered_settings)]


@router.get("/connections/new", dependencies=SEES)
def show_new(request: Request) -> Response:
    """Show the empty form."""
    return _form(request, None, {}, None)


@router.get("/connections/provider", dependencies=SEES)
def show_provider(request: Request, provider: str = "") -> Response:
    """Show the part of the form that depends on the provider."""
    return page(request, "part_provider.html", _provider_part(provider.strip(), None))


@router.get("/connections/symbols", dependencies=SEES)
async def search_symbols(request: Request, provider: str = "", base_url: str = "", symbol_query: str = "", connection: str = "") -> Response:
    """Show the symbols at the provider that match; without a provider nothing."""
    feed, who, query = feed_of(request), identity_of(request), symbol_query[:100]
    rows, problem = [], None
    try:
        if connection:
            rows = await choosing.symbols_of(feed, who, connection, query)
        elif provider.strip():
            rows = await choosing.provider_symbols(feed, who, provider.strip(), base_url.strip() or None, query)
        else:
            problem = "Choose a provider first."
    except CandlelakeError as error:
        problem = str(error)
    return page(request, "part_symbols.html", {"rows": rows, "problem": problem, "query": query, "most": choosing.SHOWN})


@router.post("/connections/new", dependencies=SEES)
def create(  # noqa: PLR0917  one for each field of the form
    request: Request, secrets: Secrets, entered: Entered, slug: Text, provider: Text, name: Text = "", base_url: Text = "",
    symbols: Long = "", timeframes: Long = "",
) -> Response:
    """Add a connection and go on to its test."""
    values = {"slug": slug, "provider": provider, "name": name, "base_url": base_url, "symbols": symbols,
              "timeframes": timeframes, **entered}
    try:
        given = NewConnection(
            slug=slug.strip(), provider=provider.strip(), name=name.strip(), base_url=base_url.strip() or None,
            symbols=_words(symbols), timeframes=_words(timeframes), credentials=secrets, settings=_settings(entered))
        row = actions.create(feed_of(request), identity_of(request), given)
    except CandlelakeError as error:
        return _form(request, None, values, str(error))
    return RedirectResponse(f"/connections/{row.slug}?test=1", 303)


@router.get("/connections/{slug}/edit", dependencies=SEES)
def show_edit(request: Request, slug: str) -> Response:
    """Show the form with what is stored; credentials stay where they are."""
    row = readings.seen_connection(feed_of(request), identity_of(request), slug)
    stored = {key: "" if row.settings.get(key) is None else str(row.settings[key]) for key in DAYS}
    return _form(request, row, {
        "slug": slug, "provider": row.provider, "name": row.name, "base_url": row.base_url or "",
        "symbols": " ".join(row.symbols), "timeframes": " ".join(row.timeframes),
        **stored, "stream": "on" if row.settings.get("stream") else ""}, None)


@router.post("/connections/{slug}/edit", dependencies=SEES)
def edit(  # noqa: PLR0917  one for each field of the form
    request: Request, secrets: Secrets, entered: Entered, slug: str, name: Text = "", base_url: Text = "", symbols: Long = "",
    timeframes: Long = "",
) -> Response:
    """Change a connection; blank credentials keep the stored ones."""
    row = readings.seen_connection(feed_of(request), identity_of(request), slug)
    try:
        settings = {key: value for key, value in row.settings.items() if key not in entered} | _settings(entered)
        given: dict[str, Any] = {"name": name.strip(), "symbols": _words(symbols), "timeframes": _words(timeframes), "settings": settings}
        if identity_of(request).user.is_admin and (base_url.strip() or None) != row.base_url:
            given["base_url"] = base_url.strip() or None
        if secrets:
            given["credentials"] = secrets
        actions.update(feed_of(request), identity_of(request), slug, ChangedConnection(**given))
    except CandlelakeError as error:
        return _form(request, row, {
            "slug": slug, "provider": row.provider, "name": name, "base_url": base_url, "symbols": symbols, "timeframes": timeframes,
            **entered}, str(error))
    return RedirectResponse(f"/connections/{slug}?test=1", 303)


def _form(request: Request, row: ConnectionRow | None, values: dict[str, Any], error: str | None) -> Response:
    part = _provider_part(values.get("provider", ""), row)
    return page(request, "connection_form.html", {
        "row": row, "values": values, "error": error, "providers": choosing.provider_rows(), "is_admin": identity_of(request).user.is_admin,
        **part}, status=200 if error is None else 422)


def _provider_part(provider: str, row: ConnectionRow | None) -> dict[str, Any]:
    """Return what the form shows of a provider: its credentials as fields, its timeframes to choose from."""
    stored = set() if row is None else set(row.credential_fields)
    try:
        known = choosing.capabilities_of(provider.strip()) if provider.strip() else None
    except InputError as error:
        return {"fields": [], "offered": (), "problem": str(error), "known": None, "stored": stored}
    if known is None:
        return {"fields": [], "offered": (), "problem": None, "known": None, "stored": stored}
    fields = [{"name": name, "label": MEANINGS.get(name, name.replace("_", " ").capitalize()), "is_required": name in known.credentials,
               "is_stored": name in stored, "is_plain": name in {"user", "server", "host", "port", "login"}}
              for name in (*known.credentials, *known.optional_credentials)]
    return {"fields": fields, "offered": known.timeframes, "problem": None, "known": known, "stored": stored}


def _words(text: str) -> list[str]:
    return list(dict.fromkeys(text.replace(",", " ").split()))


def _settings(entered: dict[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {"stream": True} if entered["stream"] else {}
    for name, what in DAYS.items():
        text = entered[name].strip()
        if text and not (text.isdecimal() and len(text) < 6):
            raise InputError(what, text[:20], "whole days, or nothing to keep all", "correct it")
        if text:
            out[name] = int(text)
    return out

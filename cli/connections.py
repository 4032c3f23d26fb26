"""Commands around connections: add, list, show, update, delete, test, activate, deactivate, logs."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.credentials import read_credentials
from cli.output import note, print_error, print_json, print_object, print_rows
from cli.witness import witness

if TYPE_CHECKING:
    from connections.service import ConnectionService

app = typer.Typer(no_args_is_help=True, help="Connections to brokers and exchanges.")

LISTED = ("slug", "type", "provider", "status", "is_active", "last_connected", "last_error")
LOGGED = ("created", "action", "status", "message")
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="The connection's short name, e.g. kraken-spot.")]
Credentials = Annotated[
    str | None,
    typer.Option("--credentials", metavar="ask|FILE|-",
                 help="Ask for them, unseen; or read a JSON object of them from a file or stdin (-)."),
]
OwnSettings = Annotated[
    str | None,
    typer.Option("--settings", metavar="JSON", help="Our own options of it: retention_days, stream, ...; null takes one away."),
]


@app.callback()
def _group() -> None:
    """Connections to brokers and exchanges."""


@contextmanager
def service() -> Iterator[ConnectionService]:
    """Open the home and yield its connection service."""
    from feed import open_feed

    with open_feed() as feed:
        yield feed.connections


@app.command()
def add(
    slug: Slug,
    provider: Annotated[str, typer.Option(help="mtapi:mt5, mtapi:mt4, ccxt:<exchange id> or replay.")],
    symbol: Annotated[list[str] | None, typer.Option(help="A symbol to keep; repeat it for more.")] = None,
    timeframe: Annotated[list[str] | None, typer.Option(help="A timeframe to keep; repeat it for more.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Send all requests here instead of to the provider.")] = None,
    credentials: Credentials = None,
    name: Annotated[str | None, typer.Option(help="For people; the slug without it.")] = None,
    config: Annotated[str | None, typer.Option(metavar="JSON", help="Options of the provider, as a JSON object.")] = None,
    settings: OwnSettings = None,
    as_json: Json = False,
) -> None:
    """Add a connection; credentials are stored encrypted and never shown again."""
    from connections.service import ConnectionInput
    from core.series import check_slug, check_symbol
    from core.timeframe import Timeframe

    check_slug(slug)
    symbols = [check_symbol(item) for item in symbol or []]
    timeframes = [Timeframe.parse(item).name for item in timeframe or []]
    options = {} if config is None else _json_object("--config", config)
    secret = {} if credentials is None else read_credentials(credentials, provider)
    with service() as connections:
        row = connections.create(ConnectionInput(
            slug=slug, name=name or slug, provider=provider, base_url=base_url, credentials=secret, config=options,
            symbols=tuple(symbols), timeframes=tuple(timeframes),
            settings={} if settings is None else _json_object("--settings", settings)),
            witness=witness("connection.create", slug, connections.clock.now_us(), provider=provider))
        shown = _shown(row)
    if as_json:
        print_json(shown)
        return
    note(f"added {slug} ({provider})")
    note(f"next: candlelake connections test {slug}")


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all connections."""
    with service() as connections:
        rows = [_shown(row) for row in connections.list()]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, LISTED, as_json=False, empty="no connections yet: candlelake connections add")


@app.command()
def show(slug: Slug, as_json: Json = False) -> None:
    """Show one connection, and whether its account is a demo or a REAL one; credentials stay hidden."""
    from connections.accounts import account_of

    with service() as connections:
        row = connections.get(slug)
        with connections.lake.metadata.read() as tx:
            account = account_of(tx, slug)
    told = {"account": account.kind, "account_told": account.line(slug)} if row.credential_fields else {}
    print_object({**_shown(row), **told}, as_json=as_json)


@app.command()
def update(
    slug: Slug,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="The symbols to keep from now on.")] = None,
    timeframe: Annotated[list[str] | None, typer.Option(help="The timeframes to keep from now on.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Send all requests here; '' for the provider itself.")] = None,
    credentials: Credentials = None,
    config: Annotated[str | None, typer.Option(metavar="JSON", help="Options of the provider, as a JSON object.")] = None,
    settings: OwnSettings = None,
    as_json: Json = False,
) -> None:
    """Change what is given and keep the rest."""
    from core.errors import InputError
    from core.series import check_symbol
    from core.timeframe import Timeframe

    changes: dict[str, object] = {}
    if name is not None:
        changes["name"] = name
    if symbol:
        changes["symbols"] = [check_symbol(item) for item in symbol]
    if timeframe:
        changes["timeframes"] = [Timeframe.parse(item).name for item in timeframe]
    if base_url is not None:
        changes["base_url"] = base_url or None
    if config is not None:
        changes["config"] = _json_object("--config", config)
    own = None if settings is None else _json_object("--settings", settings)
    if not changes and own is None and credentials is None:
        raise InputError("connections update", "nothing to change", "at least one option", "see --help")
    with service() as connections:
        if credentials is not None:
            changes["credentials"] = read_credentials(credentials, connections.get(slug).provider)
        if own is not None:
            merged = {**connections.get(slug).settings, **own}
            changes["settings"] = {key: value for key, value in merged.items() if value is not None}
        row = connections.update(slug, witness("connection.update", slug, connections.clock.now_us(), fields=", ".join(sorted(changes))), **changes)
        shown = _shown(row)
    if as_json:
        print_json(shown)
    else:
        note(f"updated {slug}: {', '.join(changes)}")


@app.command()
def delete(
    slug: Slug,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is deleted.")] = False,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its stored candles and ticks too.")] = False,
) -> None:
    """Delete a connection and its credentials; one that has stored candles or ticks only with --purge, one that is streamed not."""
    from core.errors import InputError

    with service() as connections:
        connections.get(slug)
        if not yes:
            raise InputError("connections delete", slug, "with --yes", "the connection and its credentials will be gone")
        gone = connections.delete(slug, purge=purge, witness=witness("connection.delete", slug, connections.clock.now_us(), purge=purge))
    note(f"deleted {slug}: {gone.credentials} credential fields, {gone.series} series, {gone.candles} candles")


@app.command()
def test(slug: Slug, as_json: Json = False) -> int:  # noqa: PT028  a command, no test of ours
    """Try a connection step by step: address, TLS, login, permission, one candle."""
    with service() as connections:
        connections.get(slug)
        outcome = asyncio.run(connections.test(slug))
        with connections.lake.metadata.write() as tx:
            witness("connection.test", slug, connections.clock.now_us(), "done" if outcome.type == "success" else "failed")(tx)
    steps = [{"name": step.name, "ok": step.ok, "ms": step.ms, "message": step.message} for step in outcome.steps]
    if as_json:
        print_json({"type": outcome.type, "message": outcome.message, "steps": steps})
    elif steps:
        print_rows(steps, ("name", "ok", "ms", "message"), as_json=False)
    if outcome.type == "error":
        print_error(outcome.message)
        return 1
    if not as_json:
        note(outcome.message)
    return 0


@app.command()
def activate(slug: Slug) -> None:
    """Let scheduled fetches use a connection."""
    with service() as connections:
        connections.activate(slug, witness("connection.activate", slug, connections.clock.now_us()))
    note(f"{slug} is active")


@app.command()
def deactivate(slug: Slug) -> None:
    """Keep a connection but fetch nothing through it."""
    with service() as connections:
        connections.deactivate(slug, witness("connection.deactivate", slug, connections.clock.now_us()))
    note(f"{slug} is inactive")


@app.command()
def logs(
    slug: Slug, limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    as_json: Json = False,
) -> None:
    """Show what was done with a connection and how it went."""
    with service() as connections:
        connections.get(slug)
        rows = [_shown(row) for row in connections.logs(slug, limit)]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, LOGGED, as_json=False, empty="nothing logged yet")


def _json_object(what: str, text: str) -> dict[str, object]:
    from core.errors import InputError

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(what, text, "a JSON object", """e.g. '{"market": "spot"}'""")
    return value


def _shown(row: object) -> dict[str, object]:
    """Return a row of the service as JSON-ready fields: `_us` columns as ISO times, no secrets (the row has none)."""
    from core.clock import isoformat

    if not dataclasses.is_dataclass(row) or isinstance(row, type):
        raise TypeError(f"expected a row of the connection service, got {type(row).__name__}")
    out: dict[str, object] = {}
    for field in dataclasses.fields(row):
        value = getattr(row, field.name)
        if field.name in {"id", "connection_id"}:
            continue
        if field.name.endswith("_us"):
            name = field.name.removesuffix("_us").removesuffix("_at")
            out[name] = isoformat(value) if isinstance(value, int) else None
        else:
            out[field.name] = value
    return out

"""What people do, through one door for pages and API: the service's call, then the audit row with how it ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connections.service import ConnectionInput, ConnectionRow, Deleted
from console.identity import Identity
from console.prefect_api import PrefectDesk, Run
from console.readings import seen_connection
from core.errors import CandlelakeError, InputError, NotFoundError, NotPermittedError
from feed.context import Feed
from storage import audit

_RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class NewConnection(BaseModel):
    """A connection as the console takes it; whose it is, is not the sender's to say."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    slug: str = Field(max_length=63, description="Short name: a-z, 0-9, -.", examples=["kraken-spot"])
    provider: str = Field(max_length=100, description="mtapi:mt5, mtapi:mt4, ccxt:<exchange id> or replay.", examples=["ccxt:kraken"])
    name: str = Field("", max_length=200, description="For people.")
    base_url: str | None = Field(None, max_length=2000, description="Send all requests here instead.")
    symbols: list[str] = Field(default_factory=list, max_length=5000, examples=[["BTC/USDT"]])
    timeframes: list[str] = Field(default_factory=list, max_length=50, examples=[["1m", "1h"]])
    credentials: dict[str, SecretStr] = Field(default_factory=dict, description="Write-only; stored encrypted.")
    settings: dict[str, Any] = Field(default_factory=dict, description="retention_days, overlap_candles, settle_seconds.")


class ChangedConnection(BaseModel):
    """What may be changed; what is left out stays, and so does a blank credential."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    name: str | None = Field(None, max_length=200)
    base_url: str | None = Field(None, max_length=2000)
    symbols: list[str] | None = Field(None, max_length=5000)
    timeframes: list[str] | None = Field(None, max_length=50)
    credentials: dict[str, SecretStr] | None = Field(None, description="Write-only; a blank one keeps what is stored.")
    settings: dict[str, Any] | None = None


class RunOrder(BaseModel):
    """A run to order at Prefect."""

    model_config = ConfigDict(extra="forbid")

    flow: str = Field(description="fetch, backfill or repair.", examples=["backfill"])
    symbol: str | None = Field(None, max_length=100)
    timeframe: str | None = Field(None, max_length=10)
    start: str | None = Field(None, max_length=40, examples=["2026-01-01"])
    end: str | None = Field(None, max_length=40, examples=["2026-02-01"])


@contextmanager
def noted(feed: Feed, who: Identity, action: str, subject: str, **detail: object) -> Iterator[None]:
    """Write the deed of the body into the audit log, also when it is refused or fails."""
    try:
        yield
    except CandlelakeError as error:
        outcome: audit.Outcome = "refused" if isinstance(error, (NotPermittedError, InputError)) else "failed"
        _note(feed, who, action, subject, outcome, error=str(error))
        raise
    _note(feed, who, action, subject, "done", **detail)


def create(feed: Feed, who: Identity, given: NewConnection) -> ConnectionRow:
    """Add a connection of the sender; an admin's belongs to the house."""
    _check_address(who, given.base_url)
    values = given.model_dump(exclude={"credentials"})
    with noted(feed, who, "connection.create", given.slug, provider=given.provider):
        return feed.connections.create(ConnectionInput(
            **values, credentials=_plain(given.credentials), owner=who.user.name, is_admin_owned=who.user.is_admin))


def update(feed: Feed, who: Identity, slug: str, given: ChangedConnection) -> ConnectionRow:
    """Change a connection that the sender may see."""
    seen_connection(feed, who, slug)
    if "base_url" in given.model_fields_set:
        _check_address(who, given.base_url)
    changes = {name: value for name, value in given.model_dump(exclude={"credentials"}).items() if name in given.model_fields_set}
    if given.credentials:
        changes["credentials"] = _plain(given.credentials)
    with noted(feed, who, "connection.update", slug, fields=", ".join(sorted(changes))):
        return feed.connections.update(slug, **changes)


def switch(feed: Feed, who: Identity, slug: str, *, is_active: bool) -> ConnectionRow:
    """Activate or deactivate a connection."""
    seen_connection(feed, who, slug)
    with noted(feed, who, "connection.activate" if is_active else "connection.deactivate", slug):
        return feed.connections.activate(slug) if is_active else feed.connections.deactivate(slug)


async def test(feed: Feed, who: Identity, slug: str) -> dict[str, Any]:
    """Try a connection with its stored credentials; what went wrong is in the answer."""
    await asyncio.to_thread(seen_connection, feed, who, slug)
    result = await feed.connections.test(slug)
    with feed.lake.metadata.write() as tx:
        outcome: audit.Outcome = "done" if result.type == "success" else "failed"
        audit.record(tx, who.user.name, who.via, "connection.test", slug, outcome, feed.clock.now_us())
    return asdict(result)


def delete(feed: Feed, who: Identity, slug: str, *, purge: bool) -> Deleted:
    """Remove a connection; its candles only when `purge` says so."""
    seen_connection(feed, who, slug)
    with noted(feed, who, "connection.delete", slug, purge=purge):
        return feed.connections.delete(slug, purge=purge)


def order(feed: Feed, desk: PrefectDesk, who: Identity, slug: str, wanted: RunOrder) -> Run:
    """Order a run for one connection at Prefect."""
    seen_connection(feed, who, slug)
    if wanted.flow not in {"fetch", "backfill", "repair"}:
        raise InputError("flow", wanted.flow, ("fetch", "backfill", "repair"), "choose one of them")
    config: dict[str, Any] = {"connection": slug}
    if wanted.flow == "backfill":
        needed = {name: getattr(wanted, name) for name in ("symbol", "timeframe", "start", "end")}
        missing = sorted(name for name, value in needed.items() if not value)
        if missing:
            raise InputError("backfill", f"no {', '.join(missing)}", "symbol, timeframe, start and end", "give them all")
        config |= needed
    elif wanted.flow == "fetch":
        config["due_only"] = False
    with noted(feed, who, f"run.{wanted.flow}", slug):
        return desk.order(wanted.flow, config)


def run_of(feed: Feed, desk: PrefectDesk, who: Identity, slug: str, number: str) -> Run:
    """Return a run that was ordered for this connection; the same NotFoundError for any other."""
    seen_connection(feed, who, slug)
    if not _RUN_ID.fullmatch(number) or desk.parameters(number).get("connection") != slug:
        raise NotFoundError("no such run of this connection")
    return desk.run(number)


def _check_address(who: Identity, base_url: str | None) -> None:
    """A user's server would speak for us to an address of their choice: that is an admin's decision."""
    if base_url and not who.user.is_admin:
        raise NotPermittedError("only an admin may send a connection's requests to another address")


def _plain(credentials: Mapping[str, SecretStr] | None) -> dict[str, Any]:
    return dict(credentials or {})


def _note(feed: Feed, who: Identity, action: str, subject: str, outcome: audit.Outcome, **detail: object) -> None:
    with feed.lake.metadata.write() as tx:
        audit.record(tx, who.user.name, who.via, action, subject, outcome, feed.clock.now_us(), **detail)

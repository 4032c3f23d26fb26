"""What people do, through one door for pages and API: the service's call, then the audit row with how it ended."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Final

from pydantic import Field, SecretStr
from sqlalchemy import Connection

from connections.rows import write_log
from connections.service import ConnectionInput, ConnectionRow, Deleted
from console.given import Given
from console.identity import Identity
from console.prefect_api import PrefectDesk, Run
from console.readings import seen_connection
from console.turns import TESTS
from core.clock import isoformat
from core.errors import CandlelakeError, InputError, NotFoundError, NotPermittedError
from core.interval import Interval
from feed.context import Feed
from feed.upkeep import plan_cleanup
from storage import access, audit
from storage.access import TokenRow

SERIES_MAX: Final = 1_000  # of a user's connection: they are added in one transaction, for which all others wait
FLOWS = ("fetch", "backfill", "repair", "cleanup")
RUN_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class NewConnection(Given):
    """A connection as the console takes it; whose it is, is not the sender's to say."""

    slug: str = Field(max_length=63, description="Short name: a-z, 0-9, -.", examples=["kraken-spot"])
    provider: str = Field(max_length=100, description="mtapi:mt5, mtapi:mt4, ccxt:<exchange id> or replay.", examples=["ccxt:kraken"])
    name: str = Field("", max_length=200, description="For people.")
    base_url: str | None = Field(None, max_length=2000, description="Send all requests here instead.")
    symbols: list[str] = Field(default_factory=list, max_length=5000, examples=[["BTC/USDT"]])
    timeframes: list[str] = Field(default_factory=list, max_length=50, examples=[["1m", "1h"]])
    credentials: dict[str, SecretStr] = Field(default_factory=dict, description="Write-only; stored encrypted.")
    settings: dict[str, Any] = Field(default_factory=dict, description="retention_days, overlap_candles, settle_seconds, stream, tick_retention_days; orders: docs/trading.md.")


class ChangedConnection(Given):
    """What may be changed; what is left out stays, and so does a blank credential."""

    name: str | None = Field(None, max_length=200)
    base_url: str | None = Field(None, max_length=2000)
    symbols: list[str] | None = Field(None, max_length=5000)
    timeframes: list[str] | None = Field(None, max_length=50)
    credentials: dict[str, SecretStr] | None = Field(None, description="Write-only; a blank one keeps what is stored.")
    settings: dict[str, Any] | None = None


class RunOrder(Given):
    """A run to order at Prefect."""

    flow: str = Field(description="fetch, backfill, repair, or cleanup: removes what the plan of cleanup lists.", examples=["backfill"])
    symbol: str | None = Field(None, max_length=100)
    timeframe: str | None = Field(None, max_length=10)
    start: str | None = Field(None, max_length=40, examples=["2026-01-01"])
    end: str | None = Field(None, max_length=40, examples=["2026-02-01"])
    retention_days: int | None = Field(None, ge=1, le=36_500, description="Of cleanup; the connection's own without it.")


@contextmanager
def noted(feed: Feed, who: Identity, action: str, subject: str, **detail: object) -> Iterator[audit.Witness]:
    """Give the body what writes its deed into the audit log, in the deed's own transaction; write down a refusal or failure."""
    def done(tx: Connection) -> None:
        audit.record(tx, who.user.name, who.via, action, subject, "done", feed.clock.now_us(), **detail)

    try:
        yield done
    except CandlelakeError as error:
        outcome: audit.Outcome = "refused" if isinstance(error, (NotPermittedError, InputError)) else "failed"
        _note(feed, who, action, subject, outcome, error=str(error))
        raise


@contextmanager
def attempted(feed: Feed, who: Identity, action: str, subject: str, **detail: object) -> Iterator[audit.Witness]:
    """Do `noted` for a deed that is done elsewhere: that it was begun is written down before."""
    with noted(feed, who, action, subject, **detail) as done:
        _note(feed, who, action, subject, "begun", **detail)
        yield done


def create(feed: Feed, who: Identity, given: NewConnection) -> ConnectionRow:
    """Add a connection of the sender; an admin's belongs to the house."""
    _check_address(who, given.base_url)
    _check_size(who, given.symbols, given.timeframes)
    values = given.model_dump(exclude={"credentials"})
    with noted(feed, who, "connection.create", given.slug, provider=given.provider) as done:
        return feed.connections.create(ConnectionInput(
            **values, credentials=_plain(given.credentials), owner=who.user.name, is_admin_owned=who.user.is_admin), witness=done)


def update(feed: Feed, who: Identity, slug: str, given: ChangedConnection) -> ConnectionRow:
    """Change a connection that the sender may see."""
    row = seen_connection(feed, who, slug)
    _check_size(who, row.symbols if given.symbols is None else given.symbols, row.timeframes if given.timeframes is None else given.timeframes)
    if "base_url" in given.model_fields_set:
        _check_address(who, given.base_url)
    changes = {name: value for name, value in given.model_dump(exclude={"credentials"}).items() if name in given.model_fields_set}
    if given.credentials:
        changes["credentials"] = _plain(given.credentials)
    with noted(feed, who, "connection.update", slug, fields=", ".join(sorted(changes))) as done:
        return feed.connections.update(slug, done, **changes)


def switch(feed: Feed, who: Identity, slug: str, *, is_active: bool) -> ConnectionRow:
    """Activate or deactivate a connection."""
    seen_connection(feed, who, slug)
    with noted(feed, who, "connection.activate" if is_active else "connection.deactivate", slug) as done:
        return feed.connections.activate(slug, done) if is_active else feed.connections.deactivate(slug, done)


async def test(feed: Feed, who: Identity, slug: str) -> dict[str, Any]:
    """Try a connection with its stored credentials; what went wrong is in the answer."""
    await asyncio.to_thread(seen_connection, feed, who, slug)
    async with TESTS.hold(who.user.name):
        result = await feed.connections.test(slug)
    with feed.lake.metadata.write() as tx:
        outcome: audit.Outcome = "done" if result.type == "success" else "failed"
        audit.record(tx, who.user.name, who.via, "connection.test", slug, outcome, feed.clock.now_us())
    return asdict(result)


def delete(feed: Feed, who: Identity, slug: str, *, purge: bool) -> Deleted:
    """Remove a connection; its candles only when `purge` says so."""
    seen_connection(feed, who, slug)
    with noted(feed, who, "connection.delete", slug, purge=purge) as done:
        return feed.connections.delete(slug, purge=purge, witness=done)


def order(feed: Feed, desk: PrefectDesk, who: Identity, slug: str, wanted: RunOrder) -> Run:
    """Order a run for one connection at Prefect."""
    row = seen_connection(feed, who, slug)
    if wanted.flow not in FLOWS:
        raise InputError("flow", wanted.flow, FLOWS, "choose one of them")
    config = _config(feed, slug, wanted)
    with attempted(feed, who, f"run.{wanted.flow}", slug) as done:
        run = desk.order(wanted.flow, config)
    with feed.lake.metadata.write() as tx:
        done(tx)
        write_log(tx, (row.id, slug), "run", "success", f"{wanted.flow} ordered by {who.user.name}: {run.name}", feed.clock.now_us(), run_id=run.id)
    return run


def _config(feed: Feed, slug: str, wanted: RunOrder) -> dict[str, Any]:
    """Return the flow's parameters; InputError when some are missing."""
    config: dict[str, Any] = {"connection": slug}
    if wanted.flow == "backfill":
        needed = {name: getattr(wanted, name) for name in ("symbol", "timeframe", "start", "end")}
        missing = sorted(name for name, value in needed.items() if not value)
        if missing:
            raise InputError("backfill", f"no {', '.join(missing)}", "symbol, timeframe, start and end", "give them all")
        Interval.parse(needed["start"], needed["end"])
        return config | needed
    if wanted.flow == "fetch":
        return config | {"due_only": False}
    if wanted.flow == "cleanup":
        plan = plan_cleanup(feed, wanted.retention_days, slug)
        if not plan.retention_days:
            raise InputError("cleanup", "no retention", "days to keep", "give retention_days, or set it on the connection")
        return config | {"apply": True, "retention_days": plan.retention_days[slug]}
    return config


def cleanup_plan(feed: Feed, who: Identity, slug: str, days: int | None) -> dict[str, Any]:
    """Return what cleanup would remove of a connection; changes nothing."""
    seen_connection(feed, who, slug)
    plan = plan_cleanup(feed, days, slug)
    return {
        "retention_days": plan.retention_days.get(slug), "rows": plan.rows,
        "before": isoformat(plan.parts[0].before_us) if plan.parts else None,
        "items": [{"series": str(item.series), "rows": item.rows, "whole_files": item.whole_files, "cut_files": item.cut_files}
                  for item in plan.items],
        "refused": [{"series": str(item.series), "rows": item.rows, "reason": item.reason} for item in plan.refused],
    }


def run_of(feed: Feed, desk: PrefectDesk, who: Identity, slug: str, number: str) -> Run:
    """Return a run that was ordered for this connection; the same NotFoundError for any other."""
    seen_connection(feed, who, slug)
    if not RUN_ID.fullmatch(number) or desk.parameters(number).get("connection") != slug:
        raise NotFoundError("no such run of this connection")
    return desk.run(number)


def cancel(feed: Feed, desk: PrefectDesk, who: Identity, slug: str, number: str) -> Run:
    """Cancel a run that was ordered for this connection; what it has stored stays stored.

    Raises:
        NotFoundError: no such run of this connection. InputError: it has ended.
    """
    row = seen_connection(feed, who, slug)
    named = run_of(feed, desk, who, slug, number).name
    with attempted(feed, who, "run.cancel", slug, run=named) as done:
        run = desk.cancel(number)
    with feed.lake.metadata.write() as tx:
        done(tx)
        write_log(tx, (row.id, slug), "run", "success", f"{named} cancelled by {who.user.name}", feed.clock.now_us(), run_id=run.id)
    return run


def revoke_token(feed: Feed, who: Identity, token_id: int) -> TokenRow:
    """End a token of the sender's own; NotFoundError for any other."""
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        row = access.revoke_token(tx, token_id, who.user.id, now_us)
        audit.record(tx, who.user.name, who.via, "token.revoke", row.name, "done", now_us)
    return row


def _check_address(who: Identity, base_url: str | None) -> None:
    """A user's server would speak for us to an address of their choice: that is an admin's decision."""
    if base_url and not who.user.is_admin:
        raise NotPermittedError("only an admin may send a connection's requests to another address")


def _check_size(who: Identity, symbols: Sequence[str], timeframes: Sequence[str]) -> None:
    count = len(set(symbols)) * len(set(timeframes))
    if count > SERIES_MAX and not who.user.is_admin:
        raise InputError("symbols x timeframes", f"{count} series", f"at most {SERIES_MAX}", "keep fewer, or ask an admin")


def _plain(credentials: Mapping[str, SecretStr] | None) -> dict[str, Any]:
    return dict(credentials or {})


def _note(feed: Feed, who: Identity, action: str, subject: str, outcome: audit.Outcome, **detail: object) -> None:
    with feed.lake.metadata.write() as tx:
        audit.record(tx, who.user.name, who.via, action, subject, outcome, feed.clock.now_us(), **detail)

"""/api/connections: list, create, change, test, switch, delete; logs; runs at Prefect."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Request

from connections.rows import ConnectionRow
from console import actions, listing, notes, readings
from console.actions import ChangedConnection, NewConnection, RunOrder
from console.api.models import (
    CleanupOut,
    ConnectionOut,
    DeletedOut,
    HealthOut,
    LogOut,
    NotificationOut,
    RunOut,
    TestOut,
)
from console.listing import ConnectionFilter
from console.notes import NoteFilter
from console.policy import CONNECTIONS, PUBLIC, identity_of
from console.prefect_api import Run
from console.series_pages import TEXT_MAX
from console.state import desk_of, feed_of

router = APIRouter(prefix="/api")
SEES = [Depends(CONNECTIONS)]


@router.get("/data-connections/health", dependencies=[Depends(PUBLIC)])
def health(request: Request) -> list[HealthOut]:
    """Return the state of every connection, for monitoring: no login, no names of people, no addresses."""
    return [HealthOut(**row) for row in listing.health_of_all(feed_of(request))]


@router.get("/connections", dependencies=SEES)
def list_connections(
    request: Request,
    query: Annotated[str, Query(max_length=TEXT_MAX, description="Words that slug, name, provider or owner hold.", examples=["kraken"])] = "",
    health: Annotated[listing.Health | None, Query(description="Only those that fare so.")] = None,
    limit: Annotated[int | None, Query(ge=1, le=readings.ROWS_MAX, description="All of them without it.")] = None,
    skip: Annotated[int, Query(ge=0, le=10_000_000, description="So many that come before: the next page begins after what you have.")] = 0,
) -> list[ConnectionOut]:
    """Return the connections that you may see, with their health, by slug."""
    found = listing.listed(feed_of(request), identity_of(request), ConnectionFilter(query, health), limit, skip)
    return [ConnectionOut(**item.as_dict()) for item in found]


@router.post("/connections", dependencies=SEES, status_code=201)
def create_connection(request: Request, given: NewConnection) -> ConnectionOut:
    """Add a connection."""
    return _shown(request, actions.create(feed_of(request), identity_of(request), given))


@router.get("/connections/{slug}", dependencies=SEES)
def show_connection(request: Request, slug: str) -> ConnectionOut:
    """Return one connection."""
    return _shown(request, readings.seen_connection(feed_of(request), identity_of(request), slug))


@router.patch("/connections/{slug}", dependencies=SEES)
def change_connection(request: Request, slug: str, given: ChangedConnection) -> ConnectionOut:
    """Change what is given and keep the rest."""
    return _shown(request, actions.update(feed_of(request), identity_of(request), slug, given))


@router.delete("/connections/{slug}", dependencies=SEES)
def delete_connection(
    request: Request, slug: str, purge: Annotated[bool, Query(description="Lose its stored candles too.")] = False,
) -> DeletedOut:
    """Remove a connection; refused while it has candles, unless `purge`."""
    return DeletedOut(**asdict(actions.delete(feed_of(request), identity_of(request), slug, purge=purge)))


@router.post("/connections/{slug}/activate", dependencies=SEES)
def activate_connection(request: Request, slug: str) -> ConnectionOut:
    """Let scheduled fetches use it."""
    return _shown(request, actions.switch(feed_of(request), identity_of(request), slug, is_active=True))


@router.post("/connections/{slug}/deactivate", dependencies=SEES)
def deactivate_connection(request: Request, slug: str) -> ConnectionOut:
    """Keep it and its candles, fetch nothing."""
    return _shown(request, actions.switch(feed_of(request), identity_of(request), slug, is_active=False))


@router.post("/connections/{slug}/test", dependencies=SEES)
async def test_connection(request: Request, slug: str) -> TestOut:
    """Try it with its stored credentials, step by step."""
    return TestOut(**await actions.test(feed_of(request), identity_of(request), slug))


@router.post("/connections/{slug}/runs", dependencies=SEES, status_code=202)
def order_run(request: Request, slug: str, wanted: RunOrder) -> RunOut:
    """Order a fetch, a backfill, a repair or a cleanup at Prefect."""
    return _run(actions.order(feed_of(request), desk_of(request), identity_of(request), slug, wanted))


@router.get("/connections/{slug}/runs/{number}", dependencies=SEES)
def show_run(request: Request, slug: str, number: str) -> RunOut:
    """Return how a run goes that was ordered for this connection."""
    run = actions.run_of(feed_of(request), desk_of(request), identity_of(request), slug, number)
    return _run(run, desk_of(request).progress(run.id))


@router.post("/connections/{slug}/runs/{number}/cancel", dependencies=SEES)
def cancel_run(request: Request, slug: str, number: str) -> RunOut:
    """Cancel a run that was ordered for this connection; what it has stored stays stored."""
    return _run(actions.cancel(feed_of(request), desk_of(request), identity_of(request), slug, number))


@router.get("/connections/{slug}/cleanup", dependencies=SEES)
def plan_cleanup(
    request: Request, slug: str, retention_days: Annotated[int | None, Query(ge=1, le=36_500, description="The connection's own without it.")] = None,
) -> CleanupOut:
    """Return what retention would remove; changes nothing. Order the run `cleanup` to remove it."""
    return CleanupOut(**actions.cleanup_plan(feed_of(request), identity_of(request), slug, retention_days))


@router.get("/connections/{slug}/logs", dependencies=SEES)
def list_logs(  # noqa: PLR0917  one for each parameter
    request: Request, slug: str, limit: Annotated[int, Query(ge=1, le=readings.ROWS_MAX)] = 100,
    action: Annotated[str | None, Query(max_length=30)] = None, status: Annotated[Literal["success", "error"] | None, Query()] = None,
    text: Annotated[str | None, Query(max_length=200, description="Stands in the message.")] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Older than this id: the next page.")] = None,
    after: Annotated[int | None, Query(ge=0, lt=2**63, description="Newer than this id: a live tail.")] = None,
) -> list[LogOut]:
    """Return what was done to a connection, newest first."""
    readings.seen_connection(feed_of(request), identity_of(request), slug)
    only = readings.LogFilter(action, status, text, before, after)
    return [LogOut(**row) for row in readings.log_rows(feed_of(request), slug, limit, only)]


@router.get("/notifications", dependencies=SEES)
def list_notifications(
    request: Request, limit: Annotated[int, Query(ge=1, le=readings.ROWS_MAX)] = 100,
    unseen: Annotated[bool, Query(description="Only those that nobody has acknowledged yet.")] = False,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Older than this id: the next page.")] = None,
) -> list[NotificationOut]:
    """Return what you should know of your connections, newest first."""
    return [NotificationOut(**row) for row in notes.note_rows(feed_of(request), identity_of(request), limit, NoteFilter(unseen, before))]


def _shown(request: Request, row: ConnectionRow) -> ConnectionOut:
    return ConnectionOut(**listing.listed_one(feed_of(request), row).as_dict())


def _run(run: Run, progress: float | None = None) -> RunOut:
    return RunOut(id=run.id, name=run.name, state=run.state, message=run.message, progress=progress, is_final=run.is_final)

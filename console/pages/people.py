"""Users and the audit log, for super admins."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import RedirectResponse, Response

from console import people_readings
from console.pages.access import Text
from console.policy import SUPER_ADMINS, identity_of
from console.rendering import page
from console.series_pages import TEXT_MAX, page_of
from console.state import feed_of
from core.secrets import Secret
from storage import access, audit, people
from storage.audit import AuditFilter

router = APIRouter(include_in_schema=False)
OVERSEES = [Depends(SUPER_ADMINS)]
PAGE_ROWS: Final = 100
SHOWN: Final = 50  # people on one page


@router.get("/users", dependencies=OVERSEES)
def show_users(request: Request, query: str = "", page_number: Annotated[int, Query(ge=1, le=100_000)] = 1) -> Response:
    """Show who is there, a page of them at a time: all, or those that match."""
    return page(request, "users.html", _shown(request, query[:TEXT_MAX], page_number))


@router.post("/users", dependencies=OVERSEES)
def add_user(request: Request, name: Text, role: Text, email: Text = "") -> Response:
    """Add a user and show the one-time code with which they set their password."""
    feed, who = feed_of(request), identity_of(request)
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        user = people.add_user(tx, name.strip().lower(), role, now_us, email.strip() or None)
        code = access.make_code(tx, "password", user.id, now_us)
        audit.record(tx, who.user.name, who.via, "user.add", user.name, "done", now_us, role=role)
    return _with_code(request, user.name, code)


@router.post("/users/{name}/code", dependencies=OVERSEES)
def make_code(request: Request, name: str) -> Response:
    """Show a new one-time code with which somebody sets a new password: the way back for whoever has lost theirs."""
    feed, who = feed_of(request), identity_of(request)
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        user = people.get_user(tx, name)
        code = access.make_code(tx, "password", user.id, now_us)
        audit.record(tx, who.user.name, who.via, "user.code", user.name, "done", now_us)
    return _with_code(request, user.name, code)


@router.post("/users/{name}", dependencies=OVERSEES)
def change_user(  # noqa: PLR0917  one for each field of the form
    request: Request, name: str, role: Text, is_active: Annotated[bool, Form()] = False,
    is_email_verified: Annotated[bool, Form()] = False, is_kyc_done: Annotated[bool, Form()] = False,
    manages_connections: Annotated[bool, Form()] = False,
) -> Response:
    """Change role, flags and the permission of a user; their sessions end."""
    feed, who = feed_of(request), identity_of(request)
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        user = people.change_user(tx, name, now_us, role=role, is_active=is_active, is_email_verified=is_email_verified,
                                  is_kyc_done=is_kyc_done)
        turn = people.grant if manages_connections else people.revoke
        turn(tx, name, [people.MANAGE_CONNECTIONS])
        if user.id != who.user.id or not is_active:
            access.close_sessions(tx, user.id)
        audit.record(tx, who.user.name, who.via, "user.change", name, "done", now_us, role=role, is_active=is_active,
                     manages_connections=manages_connections)
    return RedirectResponse("/users", 303)


@router.get("/audit", dependencies=OVERSEES)
def show_audit(  # noqa: PLR0917  one for each field of the form
    request: Request, actor: str = "", action: str = "", outcome: str = "", subject: str = "",
    before: Annotated[int | None, Query(ge=1, lt=2**63)] = None,
) -> Response:
    """Show who did what, newest first: all of it, or what matches."""
    feed = feed_of(request)
    asked = {"actor": actor[:63], "action": action[:63], "outcome": outcome[:10], "subject": subject[:200]}
    kept = {name: value for name, value in asked.items() if value}
    found = people_readings.audit_rows(feed, PAGE_ROWS + 1, AuditFilter(**kept, before_id=before))
    rows = found[:PAGE_ROWS]
    return page(request, "audit.html", asked | {
        "rows": rows, "before": before, "actions": people_readings.audit_actions(feed), "outcomes": audit.OUTCOMES, "is_filtered": bool(kept),
        "first": f"?{urlencode(kept)}", "older": f"?{urlencode(kept | {'before': rows[-1]['id']})}" if len(found) > PAGE_ROWS else None})


@router.get("/audit/chain", dependencies=OVERSEES)
def check_audit(request: Request) -> Response:
    """Say whether the log is whole; its page asks for it by itself."""
    return page(request, "audit_chain.html", {"chain": people_readings.audit_chain(feed_of(request))})


def _with_code(request: Request, name: str, code: Secret) -> Response:
    return page(request, "users.html", _shown(request) | {"for_user": name, "code": code.reveal()})


def _shown(request: Request, query: str = "", number: int = 1) -> dict[str, Any]:
    shown = page_of(people_readings.user_rows(feed_of(request), query), number, SHOWN)
    return {"shown": shown, "query": query, "turn": shown.links(query=query), "roles": people.ROLES, "for_user": None, "code": None}

"""/api/users and /api/audit for super admins, /api/account for oneself. Read only, but for ending one's own tokens.

Who gets in, and how, is changed on pages and on the command line: whoever stole a token would otherwise stay.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request

from console import actions, people_readings
from console.api.people_models import AccountOut, AuditOut, ChainOut, SessionOut, TokenOut, UserOut
from console.identity import cookie_name
from console.policy import SIGNED_IN, SUPER_ADMINS, identity_of
from console.series_pages import TEXT_MAX
from console.state import feed_of
from storage.audit import AuditFilter, Outcome

router = APIRouter(prefix="/api")
MINE = [Depends(SIGNED_IN)]
OVERSEES = [Depends(SUPER_ADMINS)]


@router.get("/users", dependencies=OVERSEES)
def list_users(
    request: Request, query: Annotated[str, Query(max_length=TEXT_MAX, description="Words that name, e-mail or role hold.", examples=["ann"])] = "",
) -> list[UserOut]:
    """Return everybody who may use the console, or those that match."""
    return [UserOut(**row) for row in people_readings.user_rows(feed_of(request), query)]


@router.get("/audit", dependencies=OVERSEES)
def list_audit(  # noqa: PLR0917  one for each parameter
    request: Request, limit: Annotated[int, Query(ge=1, le=people_readings.ROWS_MAX)] = 100,
    actor: Annotated[str | None, Query(max_length=63, description="A person's name; cli:NAME for the command line.")] = None,
    action: Annotated[str | None, Query(max_length=63, examples=["connection.delete"])] = None,
    outcome: Annotated[Outcome | None, Query()] = None,
    subject: Annotated[str | None, Query(max_length=200, description="Stands in the name of what it was done to.")] = None,
    before: Annotated[int | None, Query(ge=1, lt=2**63, description="Older than this id: the next page.")] = None,
) -> list[AuditOut]:
    """Return who did what, newest first."""
    only = AuditFilter(actor, action, outcome, subject, before)
    return [AuditOut(**row) for row in people_readings.audit_rows(feed_of(request), limit, only)]


@router.get("/audit/chain", dependencies=OVERSEES)
def check_audit(
    request: Request, head: Annotated[str | None, Query(max_length=100, description="A head told before: up to there the log must be as it was then.")] = None,
) -> ChainOut:
    """Return whether the audit log is whole; reads all of it."""
    return ChainOut(**people_readings.audit_chain(feed_of(request), head))


@router.get("/account", dependencies=MINE)
def show_account(request: Request) -> AccountOut:
    """Return who you are, and what this token may do."""
    return AccountOut(**people_readings.account(feed_of(request), identity_of(request)))


@router.get("/account/tokens", dependencies=MINE)
def list_tokens(request: Request) -> list[TokenOut]:
    """Return your tokens, newest first, never their values."""
    return [TokenOut(**row) for row in people_readings.token_rows(feed_of(request), identity_of(request))]


@router.post("/account/tokens/{token_id}/revoke", dependencies=MINE)
def revoke_token(request: Request, token_id: Annotated[int, Path(ge=1, lt=2**63)]) -> TokenOut:
    """End one of your tokens at once; that of this very call too."""
    feed = feed_of(request)
    return TokenOut(**actions.revoke_token(feed, identity_of(request), token_id).as_dict(feed.clock.now_us()))


@router.get("/account/sessions", dependencies=MINE)
def list_sessions(request: Request) -> list[SessionOut]:
    """Return your browsers that are signed in, last used first."""
    cookie = request.cookies.get(cookie_name(request), "")
    return [SessionOut(**row) for row in people_readings.session_rows(feed_of(request), identity_of(request), cookie)]

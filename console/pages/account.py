"""One's own account: tokens, password, the browsers that are signed in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Path, Request
from fastapi.responses import RedirectResponse, Response

from console import actions, people_readings
from console.identity import cookie_name
from console.pages.access import Text, has_right_code, signed_in
from console.policy import ACCOUNT, SIGNED_IN, identity_of
from console.rendering import page
from console.state import feed_of
from console.turns import Turns
from core.errors import InputError
from core.secrets import Secret
from storage import access, audit, people

router = APIRouter(include_in_schema=False)


@router.get("/account", dependencies=[Depends(SIGNED_IN)])
def show_account(request: Request) -> Response:
    """Show one's tokens."""
    return _account(request)


@router.post("/account/tokens", dependencies=[Depends(ACCOUNT)])
def create_token(
    request: Request, name: Text, days: Annotated[int, Form(ge=1, le=access.TOKEN_DAYS_MAX)] = 90, scope: Annotated[list[str] | None, Form()] = None,
) -> Response:
    """Make a token of one's own; its value is on this page and nowhere after."""
    feed, who = feed_of(request), identity_of(request)
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        _, value = access.create_token(tx, who.user, name, scope or ["read"], days, now_us)
        audit.record(tx, who.user.name, "page", "token.create", name, "done", now_us)
    return _account(request, value=value)


@router.post("/account/tokens/{token_id}/revoke", dependencies=[Depends(ACCOUNT)])
def revoke_token(request: Request, token_id: Annotated[int, Path(ge=1, lt=2**63)]) -> Response:
    """End one of one's tokens."""
    actions.revoke_token(feed_of(request), identity_of(request), token_id)
    return RedirectResponse("/account", 303)


@router.post("/account/password", dependencies=[Depends(ACCOUNT)])
async def change_password(request: Request, password: Text, new_password: Text, code: Text = "") -> Response:
    """Set another password; that takes the present one, and ends every session but a new one for this browser."""
    turns: Turns = request.app.state.logins
    return await turns.take(lambda: _change_password(request, password, new_password, code))


def _change_password(request: Request, password: str, new_password: str, code: str) -> Response:
    feed, user = feed_of(request), identity_of(request).user
    now_us, keys = feed.clock.now_us(), [f"user:{user.name}"]
    with feed.lake.metadata.read() as tx:
        access.check_throttle(tx, keys, now_us)
        known = people.verify_password(tx, user.name, Secret(password))
    if known is None or not has_right_code(feed, user, code, now_us):
        with feed.lake.metadata.write() as tx:
            access.note_failure(tx, keys, now_us)
            audit.record(tx, user.name, "page", "user.password", user.name, "refused", now_us)
        return _account(request, error="the present password or the code is not right", status=422)
    try:
        with feed.lake.metadata.write() as tx:
            people.set_password(tx, user.name, Secret(new_password), now_us)
            access.close_sessions(tx, user.id)
            value = access.open_session(tx, user, now_us)
            audit.record(tx, user.name, "page", "user.password", user.name, "done", now_us)
    except InputError as error:
        return _account(request, error=str(error), status=422)
    return signed_in(request, value, "/account")


@router.post("/account/sessions/end", dependencies=[Depends(ACCOUNT)])
def end_sessions(request: Request) -> Response:
    """Sign out every other browser."""
    feed, user = feed_of(request), identity_of(request).user
    with feed.lake.metadata.write() as tx:
        access.close_other_sessions(tx, user.id, request.cookies.get(cookie_name(request), ""))
        audit.record(tx, user.name, "page", "session.end", user.name, "done", feed.clock.now_us())
    return RedirectResponse("/account", 303)


def _account(request: Request, *, value: Secret | None = None, error: str | None = None, status: int = 200) -> Response:
    feed, who = feed_of(request), identity_of(request)
    return page(request, "account.html", {
        "account": people_readings.account(feed, who), "tokens": people_readings.token_rows(feed, who), "scopes": access.SCOPES,
        "sessions": people_readings.session_rows(feed, who, request.cookies.get(cookie_name(request), "")),
        "value": None if value is None else value.reveal(), "error": error}, status=status)

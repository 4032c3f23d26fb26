"""Signing in through an OpenID Connect provider. There and back: the provider's page lies in between."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response

from console import oidc
from console.identity import cookie_name
from console.pages.access import set_session
from console.policy import ENTRANCE
from console.rendering import page
from console.state import feed_of
from core.errors import CandlelakeError, CredentialsRefusedError
from storage import access, audit, identities
from storage.people import UserRow

router = APIRouter(include_in_schema=False)
PENDING: Final = "candlelake_oidc"
_BACK: Final = "/login/oidc/back"
Text = Annotated[str, Query(max_length=2000)]


@router.get("/login/oidc", dependencies=[Depends(ENTRANCE)])
def leave(request: Request) -> Response:
    """Send the browser to the provider."""
    feed = feed_of(request)
    now = feed.clock.now_us() // 1_000_000
    try:
        address, pending = oidc.begin(feed.settings, _return_to(request), now)
    except CandlelakeError as error:
        return page(request, "login.html", {"error": str(error)}, status=503)
    response = RedirectResponse(address, 303)
    # Lax: the way back is a navigation that begins on the provider's site, with which a strict cookie would not come.
    response.set_cookie(PENDING, pending.seal(), httponly=True, samesite="lax", secure=request.url.scheme == "https",
                        path="/login/oidc", max_age=oidc.PENDING_SECONDS)
    return response


@router.get(_BACK, dependencies=[Depends(ENTRANCE)])
def come_back(request: Request, state: Text = "", code: Text = "") -> Response:
    """Sign in whom the provider names, when an admin has let them in before."""
    feed, now_us = feed_of(request), feed_of(request).clock.now_us()
    address = f"address:{request.client.host if request.client else 'unknown'}"
    try:
        with feed.lake.metadata.read() as tx:
            access.check_throttle(tx, [address], now_us)
        pending = oidc.unseal(request.cookies.get(PENDING, ""), state, now_us // 1_000_000)
        if not code:
            raise CredentialsRefusedError("the OIDC provider did not let you in; sign in again")
        known = oidc.finish(feed.settings, _return_to(request), code, pending, now_us // 1_000_000)
        user = _user_of(request, known)
    except CandlelakeError as error:
        with feed.lake.metadata.write() as tx:
            if isinstance(error, CredentialsRefusedError):
                access.note_failure(tx, [address], now_us)
            audit.record(tx, "nobody", "page", "login.oidc", "", "refused", now_us)
        response = page(request, "login.html", {"error": str(error)}, status=401)
        response.delete_cookie(PENDING, path="/login/oidc")
        return response
    with feed.lake.metadata.write() as tx:
        if old := request.cookies.get(cookie_name(request)):
            access.close_session(tx, old)
        value = access.open_session(tx, user, now_us)
        audit.record(tx, user.name, "page", "login.oidc", user.name, "done", now_us)
    # A page and not a redirect: the strict session cookie comes along only from a page of our own site.
    response = page(request, "signed_in.html", {"name": user.name})
    response.delete_cookie(PENDING, path="/login/oidc")
    set_session(response, request, value)
    return response


def _user_of(request: Request, known: oidc.Known) -> UserRow:
    """Return the user of an identity; the first time, the one to whom an admin gave its verified e-mail address."""
    feed = feed_of(request)
    with feed.lake.metadata.write() as tx:
        user = identities.find_user(tx, known.issuer, known.subject)
        if user is None and known.email is not None:
            user = identities.user_of_email(tx, known.email)
            if user is not None and user.is_active:
                identities.link(tx, known.issuer, known.subject, user, feed.clock.now_us())
    if user is None or not user.is_active:
        raise CredentialsRefusedError("nobody here has this identity's verified e-mail address; ask an admin to add you with it")
    return user


def _return_to(request: Request) -> str:
    base = feed_of(request).settings.console_url or str(request.base_url)
    return base.rstrip("/") + _BACK

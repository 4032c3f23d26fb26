"""Signing in and out, the first admin, a new password."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response

from console.identity import Identity, cookie_name
from console.pages.factor import vault_of
from console.policy import ENTRANCE, LEAVE
from console.rendering import page
from console.state import feed_of
from console.turns import Turns
from core.errors import CredentialsRefusedError, InputError, NotPermittedError
from core.secrets import Secret
from feed.context import Feed
from storage import access, audit, factors, people
from storage.people import UserRow

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=200)]


@router.get("/login", dependencies=[Depends(ENTRANCE)])
def show_login(request: Request) -> Response:
    """Show the form, or the first admin's when nobody is there yet."""
    with feed_of(request).lake.metadata.read() as tx:
        is_new = not people.has_users(tx)
    return RedirectResponse("/setup", 303) if is_new else page(request, "login.html", {"error": None})


@router.post("/login", dependencies=[Depends(ENTRANCE)])
async def login(request: Request, name: Text, password: Text, code: Text = "") -> Response:
    """Sign in: a new session, whatever the browser had before; failures wait longer and longer.

    Where there is a second factor, its code is asked for; one answer for a wrong password and a wrong code tells neither.
    Guesses that come at once go by turns: each meets what the ones before it have failed, and none takes the threads of others.
    """
    turns: Turns = request.app.state.logins
    return await turns.take(lambda: _login(request, name, password, code))


def _login(request: Request, name: str, password: str, code: str) -> Response:
    feed, now_us = feed_of(request), feed_of(request).clock.now_us()
    name = name.strip().lower()[:63]
    keys = [f"user:{name}", f"address:{request.client.host if request.client else 'unknown'}"]
    with feed.lake.metadata.read() as tx:
        access.check_throttle(tx, keys, now_us)
        user = people.verify_password(tx, name, Secret(password))
    if user is None or not user.is_active or not has_right_code(feed, user, code, now_us):
        with feed.lake.metadata.write() as tx:
            access.note_failure(tx, keys, now_us)
            audit.record(tx, name or "nobody", "page", "login", name, "refused", now_us)
        return page(request, "login.html", {"error": "name, password or code is not right"}, status=401)
    with feed.lake.metadata.write() as tx:
        access.forget_failures(tx, keys[0])
        if old := request.cookies.get(cookie_name(request)):
            access.close_session(tx, old)
        value = access.open_session(tx, user, now_us)
        audit.record(tx, user.name, "page", "login", user.name, "done", now_us)
        lacks_factor = user.role in feed.settings.totp_roles and not factors.has_factor(tx, user.id)
    return signed_in(request, value, "/account/second-factor" if lacks_factor else home_of(user))


@router.post("/logout", dependencies=[Depends(LEAVE)])
def logout(request: Request) -> Response:
    """End this session at the server."""
    with feed_of(request).lake.metadata.write() as tx:
        access.close_session(tx, request.cookies.get(cookie_name(request), ""))
    response = RedirectResponse("/login", 303)
    response.delete_cookie(cookie_name(request), httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return response


@router.get("/setup", dependencies=[Depends(ENTRANCE)])
def show_setup(request: Request) -> Response:
    """Show the form for the first admin; gone as soon as there is one."""
    with feed_of(request).lake.metadata.read() as tx:
        if people.has_users(tx):
            return RedirectResponse("/login", 303)
    return page(request, "setup.html", {"error": None})


@router.post("/setup", dependencies=[Depends(ENTRANCE)])
def setup(request: Request, code: Text, name: Text, password: Text) -> Response:
    """Make the first admin with the code that `candlelake up` prints."""
    feed, now_us = feed_of(request), feed_of(request).clock.now_us()
    try:
        with feed.lake.metadata.write() as tx:
            access.check_throttle(tx, ["setup"], now_us)
            if people.has_users(tx):
                raise NotPermittedError("the first admin is there already; sign in")
            access.use_code(tx, "setup", code, now_us)
            user = people.add_user(tx, name.strip().lower(), "super_admin", now_us)
            people.set_password(tx, user.name, Secret(password), now_us)
            value = access.open_session(tx, user, now_us)
            audit.record(tx, user.name, "page", "user.setup", user.name, "done", now_us)
    except (CredentialsRefusedError, InputError) as error:
        with feed.lake.metadata.write() as tx:
            access.note_failure(tx, ["setup"], now_us)
        return page(request, "setup.html", {"error": str(error)}, status=422)
    return signed_in(request, value)


@router.get("/password", dependencies=[Depends(ENTRANCE)])
def show_password(request: Request) -> Response:
    """Show the form that takes a one-time code from an admin and a new password."""
    return page(request, "password.html", {"error": None})


@router.post("/password", dependencies=[Depends(ENTRANCE)])
def password(request: Request, code: Text, password: Text) -> Response:
    """Set a password with a one-time code; every session of that user ends."""
    feed, now_us = feed_of(request), feed_of(request).clock.now_us()
    keys = [f"address:{request.client.host if request.client else 'unknown'}"]
    try:
        with feed.lake.metadata.write() as tx:
            access.check_throttle(tx, keys, now_us)
            user = people.user_of_id(tx, access.use_code(tx, "password", code, now_us))
            people.set_password(tx, user.name, Secret(password), now_us)
            access.close_sessions(tx, user.id)
            audit.record(tx, user.name, "page", "user.password", user.name, "done", now_us)
    except (CredentialsRefusedError, InputError) as error:
        with feed.lake.metadata.write() as tx:
            access.note_failure(tx, keys, now_us)
        return page(request, "password.html", {"error": str(error)}, status=422)
    return RedirectResponse("/login", 303)


def home_of(user: UserRow) -> str:
    """Return the page on which somebody begins."""
    return "/connections" if Identity(user, "page", frozenset()).sees_connections else "/account"


def set_session(response: Response, request: Request, value: Secret) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(request), value.reveal(), httponly=True, samesite="strict", secure=request.url.scheme == "https", path="/",
        max_age=access.ABSOLUTE_US // 1_000_000)


def has_right_code(feed: Feed, user: UserRow, code: str, now_us: int) -> bool:
    """Whether a user needs no code of an authenticator app, or this is one."""
    with feed.lake.metadata.write() as tx:
        return not factors.has_factor(tx, user.id) or factors.use_factor_code(tx, vault_of(feed), user.id, code, now_us)


def signed_in(request: Request, value: Secret, onward: str = "/connections") -> Response:
    """Give the browser its session and lead it on."""
    response = RedirectResponse(onward, 303)
    set_session(response, request, value)
    return response

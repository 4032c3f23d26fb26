"""A person's second factor: setting it up with an authenticator app, removing it, and an admin's reset for a lost phone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated

import segno
from fastapi import APIRouter, Depends, Form, Request
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from console.policy import ENROL, SUPER_ADMINS, identity_of
from console.rendering import page
from console.state import feed_of
from core.errors import CredentialsRefusedError, InputError
from core.secrets import Secret
from feed.context import Feed
from storage import access, audit, factors, people
from storage.vault import KeyRing, Vault

router = APIRouter(include_in_schema=False)
Text = Annotated[str, Form(max_length=200)]


def vault_of(feed: Feed) -> Vault:
    """Return the vault that seals second factors."""
    return Vault(feed.lake.metadata, KeyRing.load(feed.settings), feed.clock)


@router.get("/account/second-factor", dependencies=[Depends(ENROL)])
def show(request: Request) -> Response:
    """Show whether there is one, and the code to scan when one is being set up."""
    return _show(request)


@router.post("/account/second-factor", dependencies=[Depends(ENROL)])
def begin(request: Request) -> Response:
    """Make a secret for the app."""
    feed, user = feed_of(request), identity_of(request).user
    with feed.lake.metadata.write() as tx:
        factors.begin_factor(tx, vault_of(feed), user)
    return RedirectResponse("/account/second-factor", 303)


@router.post("/account/second-factor/confirm", dependencies=[Depends(ENROL)])
def confirm(request: Request, code: Text) -> Response:
    """Put it in force with a first code, and show the recovery codes once."""
    feed, user = feed_of(request), identity_of(request).user
    now_us, keys = feed.clock.now_us(), [f"factor:{user.name}"]
    try:
        with feed.lake.metadata.write() as tx:
            access.check_throttle(tx, keys, now_us)
            recovery = factors.confirm_factor(tx, vault_of(feed), user, code, now_us)
            audit.record(tx, user.name, "page", "factor.confirm", user.name, "done", now_us)
    except (CredentialsRefusedError, InputError) as error:
        with feed.lake.metadata.write() as tx:
            access.note_failure(tx, keys, now_us)
        return _show(request, error=str(error), status=422)
    return _show(request, recovery=recovery)


@router.post("/account/second-factor/remove", dependencies=[Depends(ENROL)])
def remove(request: Request, code: Text) -> Response:
    """Remove it; that takes a code, so that a browser left open is not enough."""
    feed, user = feed_of(request), identity_of(request).user
    now_us, keys = feed.clock.now_us(), [f"factor:{user.name}"]
    with feed.lake.metadata.write() as tx:
        access.check_throttle(tx, keys, now_us)
        is_right = factors.use_factor_code(tx, vault_of(feed), user.id, code, now_us)
        if is_right:
            factors.remove_factor(tx, user.id)
        else:
            access.note_failure(tx, keys, now_us)
        audit.record(tx, user.name, "page", "factor.remove", user.name, "done" if is_right else "refused", now_us)
    return RedirectResponse("/account/second-factor", 303) if is_right else _show(request, error="the code is not right", status=422)


@router.post("/users/{name}/second-factor/reset", dependencies=[Depends(SUPER_ADMINS)])
def reset(request: Request, name: str) -> Response:
    """Remove somebody's second factor: a lost phone and no recovery codes. Their sessions end."""
    feed, who = feed_of(request), identity_of(request)
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        user = people.get_user(tx, name)
        factors.remove_factor(tx, user.id)
        if user.id != who.user.id:
            access.close_sessions(tx, user.id)
        audit.record(tx, who.user.name, who.via, "factor.reset", name, "done", now_us)
    return RedirectResponse("/users", 303)


def _show(request: Request, *, error: str | None = None, recovery: Sequence[Secret] = (), status: int = 200) -> Response:
    feed, user = feed_of(request), identity_of(request).user
    with feed.lake.metadata.read() as tx:
        found = factors.find_factor(tx, user.id)
        secret = factors.begun_secret(tx, vault_of(feed), user) if found and not found.is_confirmed else None
    return page(request, "second_factor.html", {
        "factor": found, "secret": None if secret is None else secret.reveal(), "error": error,
        "picture": None if secret is None else _picture(factors.address_of(secret, user)),
        "recovery": [item.reveal() for item in recovery], "is_required": user.role in feed.settings.totp_roles}, status=status)


def _picture(address: Secret) -> Markup:
    """Return the QR code as inline SVG: no request leaves with the secret, and no file keeps it."""
    out = io.BytesIO()
    segno.make(address.reveal(), micro=False, error="m").save(
        out, kind="svg", scale=5, border=4, dark="#000", light="#fff", xmldecl=False, svgclass=None, lineclass=None, omitsize=False,
        title="QR code for the authenticator app")
    return Markup(out.getvalue().decode())  # noqa: S704  made here of numbers alone

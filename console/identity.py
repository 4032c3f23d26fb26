"""Who asks: a person with a session cookie, or a program with a token; and what they may see."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from fastapi import Request

from connections.rows import ConnectionName, ConnectionRow
from core.clock import Clock
from core.errors import NotFoundError
from core.settings import Settings
from storage.access import SEEN_EVERY_US, find_session, find_token, touch_session
from storage.factors import has_factor
from storage.metadata.store import MetadataStore
from storage.people import UserRow

COOKIE = "candlelake_session"
log = logging.getLogger("candlelake.console")


def cookie_name(request: Request) -> str:
    """Return the name of the session's cookie: over https one that browsers take from this very host alone, and only with Secure."""
    return f"__Host-{COOKIE}" if request.url.scheme == "https" else COOKIE


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who is let in. `csrf` is set for a session; `scopes` are what the token or the session may do."""

    user: UserRow
    via: Literal["page", "api"]
    scopes: frozenset[str]
    csrf: str | None = None
    lacks_factor: bool = False  # their role has to have a second factor, and they have none

    @property
    def sees_connections(self) -> bool:
        """Whether connections are for them at all: not for a staff admin without the permission."""
        return self.user.role == "user" or self.user.is_admin

    def may_see(self, row: ConnectionRow | ConnectionName) -> bool:
        """Whether a connection is theirs: admins see all, users their own and never an admin's."""
        return self.user.is_admin or (self.user.role == "user" and row.owner == self.user.name and not row.is_admin_owned)

    def check_sees(self, row: ConnectionRow) -> ConnectionRow:
        """Return a connection that they may see; for others the same error as when there is none."""
        if not self.may_see(row):
            log.warning("refused: %s asked by %s for connection %s of somebody else", self.user.name, self.via, row.slug)
            raise not_there(row.slug)
        return row


def not_there(slug: str) -> NotFoundError:
    """Return the one answer for a connection that is absent and for one that is somebody else's."""
    return NotFoundError(f"no connection {slug[:80]!r} of yours; the list of connections shows those there are")


def identify(request: Request, store: MetadataStore, clock: Clock) -> Identity | None:
    """Return who sends a request, None when nobody that we know. Tokens are taken from the header only, never from a URL."""
    required = request.app.state.feed.settings.totp_roles
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    now_us = clock.now_us()
    if scheme:
        with store.read() as tx:
            found = find_token(tx, value.strip(), now_us) if scheme.lower() == "bearer" else None
            lacks = found is not None and found[1].role in required and not has_factor(tx, found[1].id)
        return None if found is None else Identity(found[1], "api", frozenset(found[0].scopes), lacks_factor=lacks)
    cookie = request.cookies.get(cookie_name(request))
    if not cookie:
        return None
    with store.read() as tx:
        session = find_session(tx, cookie, now_us)
        lacks = session is not None and session.user.role in required and not has_factor(tx, session.user.id)
    if session is None:
        return None
    if session.seen_at_us < now_us - SEEN_EVERY_US:
        with store.write() as tx:
            touch_session(tx, cookie, now_us)
    return Identity(session.user, "page", frozenset({"read", "manage"}), session.csrf, lacks)


def gate(user: UserRow, settings: Settings) -> str | None:
    """Return why a user may not use the console yet, None when they may."""
    if settings.console_require_verified_email and not user.is_email_verified:
        return "your e-mail address is not verified yet; ask an admin"
    if settings.console_require_kyc and not user.is_kyc_done:
        return "your KYC is not finished yet; ask an admin"
    return None

"""What pages and API show of people: users, the audit log, one's own account, tokens and sessions. No secret is read here."""

from __future__ import annotations

from typing import Any, Final

from console.identity import Identity
from core.clock import isoformat
from core.errors import InputError
from feed.context import Feed
from storage import access, audit, factors, people
from storage.audit import AuditFilter

ROWS_MAX: Final = 1_000


def user_rows(feed: Feed, text: str = "") -> list[dict[str, Any]]:
    """Return those who may use the console and whose name, e-mail or role hold each word of `text`, by name."""
    words = text.casefold().split()
    with feed.lake.metadata.read() as tx:
        with_factor = factors.users_with_factor(tx)
        return [user.as_dict() | {"email": user.email, "has_second_factor": user.id in with_factor, "created": isoformat(user.created_at_us)}
                for user in people.list_users(tx)
                if all(word in f"{user.name} {user.email or ''} {user.role}".casefold() for word in words)]


def audit_rows(feed: Feed, limit: int, only: AuditFilter) -> list[dict[str, Any]]:
    """Return who did what, newest first; `id` is where the next page begins."""
    if not 1 <= limit <= ROWS_MAX:
        raise InputError("limit", limit, f"1 to {ROWS_MAX}", "ask for the next ones with before=<the last id you have>")
    with feed.lake.metadata.read() as tx:
        return [row.as_dict() for row in audit.list_audit(tx, limit, only)]


def audit_actions(feed: Feed) -> list[str]:
    """Return the kinds of deeds that the audit log holds."""
    with feed.lake.metadata.read() as tx:
        return audit.audit_actions(tx)


def audit_chain(feed: Feed, noted: str | None = None) -> dict[str, Any]:
    """Return whether the audit log is whole, and as it was up to the head `noted`, and its head now; reads all of it."""
    with feed.lake.metadata.read() as tx:
        broken = audit.verify_audit(tx, noted)
        return {"is_whole": broken is None, "first_broken": broken, "head": audit.audit_head_of(tx)}


def account(feed: Feed, who: Identity) -> dict[str, Any]:
    """Return who asks, and what they may do by this session or token."""
    with feed.lake.metadata.read() as tx:
        has_factor = factors.has_factor(tx, who.user.id)
    return {"name": who.user.name, "role": who.user.role, "permissions": sorted(who.user.permissions), "scopes": sorted(who.scopes),
            "sees_connections": who.sees_connections, "has_second_factor": has_factor}


def token_rows(feed: Feed, who: Identity) -> list[dict[str, Any]]:
    """Return one's own tokens, newest first, never their values."""
    with feed.lake.metadata.read() as tx:
        return [row.as_dict(feed.clock.now_us()) for row in access.list_tokens(tx, who.user.id)]


def session_rows(feed: Feed, who: Identity, cookie: str) -> list[dict[str, Any]]:
    """Return one's own live sessions, last used first; `is_this` is the one of `cookie`."""
    with feed.lake.metadata.read() as tx:
        return [{"began": isoformat(began_us), "last_used": isoformat(seen_us), "is_this": is_this}
                for began_us, seen_us, is_this in access.list_sessions(tx, who.user.id, cookie, feed.clock.now_us())]

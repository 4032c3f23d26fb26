"""Notifications as their readers see them, newest first; who may see one may say that it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from console.identity import Identity
from console.readings import ROWS_MAX
from core.clock import isoformat
from core.errors import InputError, NotFoundError
from feed import notices
from feed.context import Feed
from storage import audit
from storage.metadata.tables import connections, notifications


@dataclass(frozen=True, slots=True)
class NoteFilter:
    """Which notifications: those that nobody has acknowledged yet, older than one of them."""

    only_unseen: bool = False
    before: int | None = None


def note_rows(feed: Feed, who: Identity, limit: int = 100, only: NoteFilter | None = None) -> list[dict[str, Any]]:
    """Return the newest notifications about the reader's connections that match; `id` is where the next page begins."""
    if not 1 <= limit <= ROWS_MAX:
        raise InputError("limit", limit, f"1 to {ROWS_MAX}", "ask for the next ones with before=<the last id you have>")
    only, note = only or NoteFilter(), notifications.c
    query = _seen_by(who).order_by(note.id.desc()).limit(limit)
    query = query.where(note.acknowledged_at_us.is_(None)) if only.only_unseen else query
    query = query if only.before is None else query.where(note.id < only.before)
    with feed.lake.metadata.read() as tx:
        found = tx.execute(query).mappings().all()
    return [{"id": row["id"], "at": isoformat(row["created_at_us"]), "severity": row["severity"], "title": row["title"], "message": row["message"],
             "connection": row["slug"], "acknowledged": None if row["acknowledged_at_us"] is None else isoformat(row["acknowledged_at_us"])}
            for row in found]


def acknowledge(feed: Feed, who: Identity, note: int) -> str:
    """Mark a notification as seen; return when it was first so marked, ISO 8601.

    Raises:
        NotFoundError: no such notification, or not the reader's: one answer for both.
    """
    with feed.lake.metadata.read() as tx:
        if tx.execute(_seen_by(who).where(notifications.c.id == note)).first() is None:
            raise NotFoundError(f"no notification {note} of yours")
    seen_at_us, is_new = notices.acknowledge(feed, note)
    if is_new:
        with feed.lake.metadata.write() as tx:
            audit.record(tx, who.user.name, who.via, "notification.acknowledge", str(note), "done", seen_at_us)
    return isoformat(seen_at_us)


def _seen_by(who: Identity) -> Select[Any]:
    """Return the query of what somebody may see: admins all, users what is about their own connections."""
    query = select(notifications, connections.c.slug).outerjoin(connections, notifications.c.connection_id == connections.c.id)
    return query if who.user.is_admin else query.where(connections.c.owner == who.user.name, connections.c.is_admin_owned.is_(False))

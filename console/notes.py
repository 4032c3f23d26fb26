"""Acknowledging notifications: who may see one may say that it was seen."""

from __future__ import annotations

from sqlalchemy import select

from console import readings
from console.identity import Identity
from core.clock import isoformat
from core.errors import NotFoundError
from feed import notices
from feed.context import Feed
from storage import audit
from storage.metadata.tables import notifications


def acknowledge(feed: Feed, who: Identity, note: int) -> str:
    """Mark a notification as seen; return when it was first so marked, ISO 8601.

    Raises:
        NotFoundError: no such notification, or not the reader's: one answer for both.
    """
    if note not in {row["id"] for row in readings.notification_rows(feed, who, readings.ROWS_MAX)}:
        raise NotFoundError(f"no notification {note} of yours")
    seen_at_us, is_new = notices.acknowledge(feed, note)
    if is_new:
        with feed.lake.metadata.write() as tx:
            audit.record(tx, who.user.name, who.via, "notification.acknowledge", str(note), "done", seen_at_us)
    return isoformat(seen_at_us)


def acknowledged(feed: Feed) -> frozenset[int]:
    """Return the notifications that were marked as seen."""
    with feed.lake.metadata.read() as tx:
        found = tx.execute(select(notifications.c.id).where(notifications.c.acknowledged_at_us.is_not(None)))
        return frozenset(int(note) for (note,) in found)

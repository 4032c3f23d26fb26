"""Sends notifications out, each once by each channel: claimed before it is sent, tried again later and later when it fails.

A process that dies between sending and noting it leaves the claim behind; when that runs out the notice goes out again under the
same key, by which a receiver knows it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, func, select

from connections.rows import notify
from core.clock import DAY_US, MINUTE_US
from core.errors import CandlelakeError, NotFoundError
from feed.context import Feed
from feed.notice_channels import Channel, Notice, channels_of, said
from storage.metadata.tables import connections, notifications
from storage.metadata.tables_deliveries import deliveries
from storage.metadata.tables_people import users
from storage.statements import lock_table

TRIES: Final = 8  # with the waits between them: over a day and a half
LOOKED_BACK_US: Final = DAY_US  # what is older when a channel is set up is history, not news
_FIRST_WAIT_US: Final = 5 * MINUTE_US
_CLAIM_US: Final = 10 * MINUTE_US
_LONGEST_WAIT_US: Final = _FIRST_WAIT_US * 2 ** TRIES  # a try further ahead was put off by a clock that was wrong
_BATCH: Final = 100


@dataclass(slots=True)
class Sent:
    """What one round did: how many went out, and one line for each failure."""

    sent: int = 0
    errors: list[str] = field(default_factory=list)


async def send_notices(feed: Feed) -> Sent:
    """Send what is due by every channel that is set up; a channel that fails never hinders another.

    Raises:
        InputError: the settings name a channel by an address that is none.
    """
    out = Sent()
    for channel in channels_of(feed.settings, feed.clock):
        for notice in _claim(feed, channel.name):
            await _send(feed, channel, notice, out)
    return out


def tell_pipeline(tx: Connection, connection_id: int, name: str, error: str | None, now_us: int) -> None:
    """Note that a pipeline fails, once until it works again; and that it works again."""
    titles = {"pipeline_failing": f"pipeline {name} fails", "pipeline_recovered": f"pipeline {name} works again"}
    newest = tx.execute(select(notifications.c.kind).where(
        notifications.c.connection_id == connection_id, notifications.c.title.in_(list(titles.values())))
        .order_by(notifications.c.id.desc()).limit(1)).scalar()
    if error is not None and newest != "pipeline_failing":
        notify(tx, "pipeline_failing", "error", connection_id, titles["pipeline_failing"], error, now_us)
    elif error is None and newest == "pipeline_failing":
        notify(tx, "pipeline_recovered", "info", connection_id, titles["pipeline_recovered"], "its last candle was judged", now_us)


@dataclass(frozen=True, slots=True)
class NoteRow:
    """A notification as people see it, and how far it got: `sent` and `failed` name channels."""

    id: int
    severity: str
    connection: str | None
    title: str
    message: str
    created_at_us: int
    acknowledged_at_us: int | None
    sent: tuple[str, ...]
    failed: tuple[str, ...]


def list_notices(feed: Feed, limit: int = 100, *, only_unseen: bool = False) -> list[NoteRow]:
    """Return the newest notifications, newest first."""
    query = select(notifications, connections.c.slug).outerjoin(
        connections, connections.c.id == notifications.c.connection_id).order_by(notifications.c.id.desc()).limit(limit)
    if only_unseen:
        query = query.where(notifications.c.acknowledged_at_us.is_(None))
    with feed.lake.metadata.read() as tx:
        rows = tx.execute(query).mappings().all()
        told = tx.execute(select(deliveries).where(
            deliveries.c.notification_id.in_([row["id"] for row in rows])).order_by(deliveries.c.channel)).mappings().all()
    sent: defaultdict[int, list[str]] = defaultdict(list)
    failed: defaultdict[int, list[str]] = defaultdict(list)
    for row in told:
        (failed if row["sent_at_us"] is None else sent)[row["notification_id"]].append(
            row["channel"] if row["sent_at_us"] is not None else f"{row['channel']}: {row['last_error'] or 'under way'}")
    return [NoteRow(row["id"], row["severity"], row["slug"], row["title"], row["message"], row["created_at_us"],
                    row["acknowledged_at_us"], tuple(sent[row["id"]]), tuple(failed[row["id"]])) for row in rows]


def acknowledge(feed: Feed, note: int) -> tuple[int, bool]:
    """Mark a notification as seen; return when that was first done, and whether it was now.

    Raises:
        NotFoundError: no such notification.
    """
    now_us = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        found = tx.execute(select(notifications.c.acknowledged_at_us).where(notifications.c.id == note)).first()
        if found is None:
            raise NotFoundError(f"no notification {note}; `candlelake notifications list` shows those there are")
        if found[0] is not None:
            return int(found[0]), False
        tx.execute(notifications.update().where(notifications.c.id == note).values(acknowledged_at_us=now_us))
    return now_us, True


async def send_trial(feed: Feed) -> dict[str, str]:
    """Send one notice that nothing happened by every channel; return what became of it, by channel."""
    now_us = feed.clock.now_us()
    notice = Notice(0, "trial", "info", "none", "a trial", "Sent by `candlelake notifications trial`; nothing happened.", now_us)
    out = {}
    for channel in channels_of(feed.settings, feed.clock):
        try:
            await channel.send(notice)
            out[channel.name] = "sent"
        except CandlelakeError as error:
            out[channel.name] = said(error)
    return out


async def _send(feed: Feed, channel: Channel, notice: Notice, out: Sent) -> None:
    try:
        await channel.send(notice)
    except CandlelakeError as error:
        out.errors.append(f"{channel.name}: {said(error)}")
        _note(feed, channel.name, notice.id, {"last_error": said(error)})
        return
    out.sent += 1
    _note(feed, channel.name, notice.id, {"sent_at_us": feed.clock.now_us(), "next_try_us": None, "last_error": None})


def _claim(feed: Feed, channel: str) -> list[Notice]:
    """Return what is due by a channel, claimed in the same transaction: no other process sends it meanwhile."""
    now_us = feed.clock.now_us()
    of_channel = (deliveries.c.notification_id == notifications.c.id) & (deliveries.c.channel == channel)
    with feed.lake.metadata.write() as tx:
        lock_table(tx, deliveries)
        rows = tx.execute(
            select(notifications, connections.c.slug, connections.c.owner, deliveries.c.attempts)
            .join(connections, connections.c.id == notifications.c.connection_id).outerjoin(deliveries, of_channel)
            .where(notifications.c.created_at_us >= now_us - LOOKED_BACK_US * 3, _is_due(now_us))
            .order_by(notifications.c.id).limit(_BATCH)).mappings().all()
        for row in rows:
            _claim_one(tx, channel, row["id"], int(row["attempts"] or 0) + 1, now_us)
        return [_notice(tx, row) for row in rows]


def _is_due(now_us: int) -> Any:
    fresh = deliveries.c.attempts.is_(None) & (notifications.c.created_at_us >= now_us - LOOKED_BACK_US)
    return fresh | (deliveries.c.next_try_us <= now_us) | (deliveries.c.next_try_us > now_us + _LONGEST_WAIT_US)


def _claim_one(tx: Connection, channel: str, note: int, attempt: int, now_us: int) -> None:
    wait = max(_CLAIM_US, _FIRST_WAIT_US * 2 ** (attempt - 1))
    values = {"attempts": attempt, "next_try_us": now_us + wait if attempt < TRIES else None}
    if attempt == 1:
        tx.execute(deliveries.insert().values(notification_id=note, channel=channel, **values))
    else:
        tx.execute(deliveries.update().where(
            deliveries.c.notification_id == note, deliveries.c.channel == channel).values(**values))


def _note(feed: Feed, channel: str, note: int, values: dict[str, Any]) -> None:
    with feed.lake.metadata.write() as tx:
        tx.execute(deliveries.update().where(
            deliveries.c.notification_id == note, deliveries.c.channel == channel).values(**values))


def _notice(tx: Connection, row: Any) -> Notice:
    to = tx.execute(select(users.c.email).where(
        users.c.name == row["owner"], users.c.is_active, users.c.is_email_verified, func.length(users.c.email) > 0)).scalars().all()
    return Notice(row["id"], row["kind"], row["severity"], row["slug"], row["title"], row["message"], row["created_at_us"], tuple(to))

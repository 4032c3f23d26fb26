"""The audit log: who did what, and how it ended.

Rows are chained by digest, so that a change or a hole is found; the head says which row is the newest, so that rows cut off
at the end are missed. Who can write both can forge both: the head that somebody has noted elsewhere tells of that too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import orjson
from sqlalchemy import Connection, func, select

from core.clock import isoformat
from core.errors import InputError
from core.secrets import redact
from storage.metadata.tables_people import audit_head, audit_log
from storage.statements import lock_table

Via = Literal["page", "api", "cli"]
Outcome = Literal["begun", "done", "refused", "failed"]  # begun: ends elsewhere, at Prefect; written before it is asked
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)
Witness = Callable[[Connection], None]  # writes a deed down within the deed's own transaction
_FIRST: Final = "0" * 64
_HEAD: Final = re.compile(r"[0-9]{1,18}:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One deed."""

    id: int
    at_us: int
    actor: str
    via: str
    action: str
    subject: str
    outcome: str
    detail: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"id": self.id, "at": isoformat(self.at_us), "actor": self.actor, "via": self.via, "action": self.action, "subject": self.subject,
                "outcome": self.outcome, "detail": dict(self.detail)}


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which deeds: of one person, of one kind, with one outcome, about what holds a text (whatever the case); older than a row."""

    actor: str | None = None
    action: str | None = None
    outcome: str | None = None
    subject: str | None = None
    before_id: int | None = None


def record(  # noqa: PLR0917  one word for each column
    tx: Connection, actor: str, via: Via, action: str, subject: str, outcome: Outcome, now_us: int, **detail: object,
) -> None:
    """Write a deed down in the transaction given; others who do so wait for its end."""
    lock_table(tx, audit_log)  # or two deeds would follow the same one
    last, before = _head(tx)
    last = max(last, tx.execute(select(func.coalesce(func.max(audit_log.c.id), 0))).scalar_one())  # more than its head knows: somebody removed that
    values = {
        "at_us": now_us, "actor": _plain(actor)[:63], "via": via, "action": action, "subject": _plain(subject)[:200], "outcome": outcome,
        "detail": {name: _plain(str(value))[:500] for name, value in detail.items()},
    }
    # PostgreSQL's own numbers leave holes where a transaction was rolled back, and a hole looks like a row that was removed.
    chain = _chain(before, values)
    tx.execute(audit_log.insert().values(id=last + 1, **values, chain=chain))
    tx.execute(audit_head.delete())
    tx.execute(audit_head.insert().values(last_id=last + 1, chain=chain))


def unwitnessed(_tx: Connection) -> None:
    """Write nothing down: the witness of a deed that no person has ordered."""


def list_audit(tx: Connection, limit: int = 100, only: AuditFilter | None = None) -> list[AuditRow]:
    """Return the newest deeds that match, newest first."""
    only, log = only or AuditFilter(), audit_log.c
    query = select(audit_log).order_by(log.id.desc()).limit(limit)
    for column, value in ((log.actor, only.actor), (log.action, only.action), (log.outcome, only.outcome)):
        query = query if value is None else query.where(column == value)
    query = query if only.subject is None else query.where(log.subject.icontains(only.subject, autoescape=True))
    rows = tx.execute(query if only.before_id is None else query.where(log.id < only.before_id)).mappings()
    return [AuditRow(**{name: row[name] for name in AuditRow.__dataclass_fields__}) for row in rows]


def audit_actions(tx: Connection) -> list[str]:
    """Return the kinds of deeds that the log holds."""
    return sorted(tx.execute(select(audit_log.c.action).distinct()).scalars())


def verify_audit(tx: Connection, noted: str | None = None) -> int | None:
    """Return the id of the first row that was changed, is missing or stands behind a hole; None when the log is whole.

    Args:
        tx: the metadata store.
        noted: what `audit_head_of` told at some time: that row has to be in the log still, as it was.

    Raises:
        InputError: `noted` is none.
    """
    known = None if noted is None else _parsed(noted)
    last, before = 0, _FIRST
    for row in tx.execute(select(audit_log).order_by(audit_log.c.id)).mappings():
        values = {name: row[name] for name in ("at_us", "actor", "via", "action", "subject", "outcome", "detail")}
        is_next = row["id"] == last + 1 or not last  # logs of early releases begin where they like
        last, before = int(row["id"]), _chain(before, values)
        if before != row["chain"] or not is_next or (known is not None and known[0] == last and known[1] != before):
            return last
    head = _head(tx)
    if head != (last, before):
        return last if head[0] == last else min(head[0], last) + 1
    return known[0] if known is not None and known[0] > last else None


def audit_head_of(tx: Connection) -> str:
    """Return the newest row's number and digest as `ID:DIGEST`: noted elsewhere, it proves later that nothing up to there was changed."""
    last, chain = _head(tx)
    return f"{last}:{chain}"


def _head(tx: Connection) -> tuple[int, str]:
    last, chain = tx.execute(select(audit_head.c.last_id, audit_head.c.chain)).first() or (0, _FIRST)
    return int(last), str(chain)


def _parsed(noted: str) -> tuple[int, str]:
    if not _HEAD.fullmatch(noted):
        raise InputError("audit head", noted, "a row's number, a colon, and its digest of 64 digits a-f and 0-9", "give what --check printed")
    last, _, chain = noted.partition(":")
    return int(last), chain


def _plain(text: str) -> str:
    """Return what can be stored of a text: whoever tries to get in with a name that is none is written down all the same."""
    return redact(text).encode(errors="replace").decode()


def _chain(before: str, values: Mapping[str, Any]) -> str:
    return hashlib.sha256(before.encode() + orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()

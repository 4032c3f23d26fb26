"""Brokers' wall clocks as they were seen: which rules held from when, each confirmation, each contradiction with its alarm."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from connections.rows import ConnectionRow, notify, write_log
from core.clock import HOUR_US, MINUTE_US
from core.errors import ClockRuleError
from core.interval import Interval, merge, subtract
from core.server_clock import ServerClock
from storage.metadata.tables import connections
from storage.metadata.tables_market import clock_history

Kind = Literal["learned", "set", "confirmed", "contradicted"]
CONFIRM_EVERY_US = HOUR_US  # a confirmation is noted at most so often


@dataclass(frozen=True, slots=True)
class ClockEntry:
    """One line of a clock's history. `offset_minutes` is what was measured then, None where nothing was."""

    connection: str
    kind: Kind
    rules: Sequence[Mapping[str, Any]]
    offset_minutes: int | None
    evidence: Mapping[str, Any]
    seen_at_us: int
    last_seen_us: int


def note_clock(  # noqa: PLR0917  one word for each column
    tx: Connection, row: ConnectionRow, kind: Kind, clock: ServerClock, offset_us: int | None, now_us: int,
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """Add a line to the clock's history; one that says the same as the newest only moves its last sight."""
    offset = None if offset_us is None else offset_us // MINUTE_US
    values = {"kind": kind, "rules": clock.as_config(), "offset_minutes": offset, "evidence": dict(evidence or {})}
    last = tx.execute(select(clock_history).where(clock_history.c.connection_id == row.id)
                      .order_by(clock_history.c.seen_at_us.desc(), clock_history.c.id.desc()).limit(1)).mappings().first()
    if last is not None and all(last[name] == value for name, value in values.items()):
        if now_us - last["last_seen_us"] >= CONFIRM_EVERY_US or kind != "confirmed":
            tx.execute(clock_history.update().where(clock_history.c.id == last["id"]).values(last_seen_us=now_us))
        return
    tx.execute(clock_history.insert().values(connection_id=row.id, seen_at_us=now_us, last_seen_us=now_us, **values))


def alarm(tx: Connection, row: ConnectionRow, error: ClockRuleError, now_us: int) -> None:
    """Tell people once that a clock is not what its rule says, and keep the contradiction in its history."""
    clock = ServerClock.from_config(row.config)
    for line in history(tx, row.slug):
        if line.kind in {"learned", "set"} and line.offset_minutes is None:
            break  # other rules since: whatever was told before them was another matter
        if line.kind == "contradicted" and line.evidence.get("message") == str(error):
            return
    if clock is not None:
        note_clock(tx, row, "contradicted", clock, None, now_us, {"message": str(error)})
    write_log(tx, (row.id, row.slug), "clock", "error", str(error), now_us)
    notify(tx, "clock_changed", "error", row.id, f"{row.slug}: the broker's clock is not what its rule says",
           f"{error}; nothing is fetched until it is right: candlelake clock {row.slug} --learn", now_us)


def replace_clock(  # noqa: PLR0917  one word for each column
    tx: Connection, row: ConnectionRow, clock: ServerClock, kind: Kind, now_us: int, evidence: Mapping[str, Any],
) -> None:
    """Put other rules in force, keep them in the history, and tell people of it."""
    config = {**row.config, "server_clock": clock.as_config()}
    tx.execute(connections.update().where(connections.c.id == row.id).values(config=config, updated_at_us=now_us))
    note_clock(tx, row, kind, clock, None, now_us, evidence)
    rules = json.dumps(clock.as_config())
    write_log(tx, (row.id, row.slug), "clock", "success", f"clock rules {kind}: {rules}"[:1900], now_us, server_clock=clock.as_config())
    notify(tx, "clock_learned", "warning", row.id, f"{row.slug}: other rules for the broker's clock",
           f"{kind}: {rules}; see: candlelake clock {row.slug}", now_us)


def history(tx: Connection, slug: str) -> list[ClockEntry]:
    """Return the history of a connection's clock, newest first."""
    query = select(clock_history, connections.c.slug).join_from(clock_history, connections).where(
        connections.c.slug == slug).order_by(clock_history.c.seen_at_us.desc(), clock_history.c.id.desc())
    return [ClockEntry(row["slug"], row["kind"], row["rules"], row["offset_minutes"], row["evidence"], row["seen_at_us"],
                       row["last_seen_us"]) for row in tx.execute(query).mappings()]


def is_learned(entries: Sequence[ClockEntry], clock: ServerClock) -> bool:
    """Whether rules in force were learned by us: then better evidence may replace them; a person's word stands."""
    return any(entry.kind == "learned" and list(entry.rules) == clock.as_config() for entry in entries)


def unproved(
    entries: Sequence[ClockEntry], clock: ServerClock, interval: Interval, symbol: str | None = None, *, by_reference: bool = False,
) -> list[Interval]:
    """Return the parts of `interval` in which nothing has shown yet that the rules hold, for the server or for one symbol of it.

    With `by_reference` only what was held against a stored reference counts.
    """
    proved = [Interval(entry.evidence["from_us"], entry.evidence["to_us"]) for entry in entries
              if list(entry.rules) == clock.as_config() and "from_us" in entry.evidence and entry.kind != "contradicted"
              and entry.evidence.get("of") == symbol and (not by_reference or entry.evidence.get("reference") is not None)]
    return subtract([interval], merge(proved))


def withheld(entries: Sequence[ClockEntry], clock: ServerClock | None, symbol: str) -> list[Interval]:
    """Return the stretches that rules in force were found to be no ground to store, ascending; other rules are judged anew.

    `entries`: newest first. A person who says the same rules again has looked, and stands for what was found before.
    """
    if clock is None:
        return []
    rules = clock.as_config()
    of_rules = [entry for entry in entries if list(entry.rules) == rules]
    since = itertools.takewhile(lambda entry: entry.kind != "set", of_rules)
    return merge(part for entry in since if entry.evidence.get("of") in {None, symbol} for part in withheld_parts(entry.evidence))


def withheld_parts(evidence: Mapping[str, Any]) -> list[Interval]:
    """Return the stretches that a line of a clock's history withholds."""
    return [Interval(part["from_us"], part["to_us"]) for part in evidence.get("withheld", ())]

"""The ledger of lost ticks: ranges in which some may be missing, each with its cause, until history heals it.

Causes: `not_streaming` (between two streams), `killed`, `disconnected`, `stalled`, `overflow` (we were too slow),
`sequence` (ids of trades that count up skip some), `damaged` (the disk spoiled the journal, or was full), `unheard` (REST counts more in a candle than was heard).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, update

from core.errors import NotFoundError
from core.interval import Interval, subtract
from storage.metadata.tables import connections
from storage.metadata.tables_ticks import tick_gaps, tick_series
from storage.statements import execute_many, fetch, insert_into


@dataclass(frozen=True, slots=True)
class TickGap:
    """One range [start, end) in which ticks of a symbol may be missing. `healed_at_us`: since when it is filled."""

    connection: str
    symbol: str
    interval: Interval
    cause: str
    seen_at_us: int
    healed_at_us: int | None = None
    proof: Mapping[str, object] = field(default_factory=dict)
    id: int = 0


def ensure_tick_series(tx: Connection, slug: str, symbol: str, now_us: int) -> int:
    """Return the id of a symbol's ticks, made when there are none yet; NotFoundError without such a connection."""
    owner = tx.execute(select(connections.c.id).where(connections.c.slug == slug)).scalar()
    if owner is None:
        raise NotFoundError(f"no connection {slug!r}; see candlelake connections list")
    found = find_tick_series(tx, slug, symbol)
    if found is not None:
        return found
    tx.execute(insert_into(tx, tick_series).values(connection_id=owner, symbol=symbol, created_at_us=now_us).on_conflict_do_nothing())
    return int(tx.execute(select(tick_series.c.id).where(tick_series.c.connection_id == owner, tick_series.c.symbol == symbol)).scalar_one())


def find_tick_series(tx: Connection, slug: str, symbol: str) -> int | None:
    """Return the id of a symbol's ticks, None when none were ever stored or streamed."""
    rows = fetch(tx, "SELECT t.id FROM tick_series t JOIN connections c ON c.id = t.connection_id WHERE c.slug = ? AND t.symbol = ?",
                 (slug, symbol))
    return int(rows[0][0]) if rows else None


def list_tick_series(tx: Connection, slug: str | None = None) -> list[tuple[int, str, str]]:
    """Return id, connection and symbol of all ticks, of one connection when `slug` is given."""
    where, values = ("", ()) if slug is None else (" WHERE c.slug = ?", (slug,))
    return [(int(key), owner, symbol) for key, owner, symbol in fetch(
        tx, "SELECT t.id, c.slug, t.symbol FROM tick_series t JOIN connections c ON c.id = t.connection_id"  # noqa: S608  a constant
            f"{where} ORDER BY 2, 3", values)]


def covered_until(tx: Connection, series_id: int) -> int | None:
    """Return up to when a stream saw all ticks of a symbol; None when none ever did."""
    found = tx.execute(select(tick_series.c.covered_until_us).where(tick_series.c.id == series_id)).scalar()
    return None if found is None else int(found)


def cover(tx: Connection, series_ids: Sequence[int], until_us: int) -> None:
    """Move the mark up to which a stream saw all, never back."""
    execute_many(tx, "UPDATE tick_series SET covered_until_us = ? WHERE id = ? AND (covered_until_us IS NULL OR covered_until_us < ?)",
                 [(until_us, key, until_us) for key in series_ids])


def book_losses(tx: Connection, series_id: int, losses: Sequence[tuple[Interval, str, Mapping[str, object]]], now_us: int) -> None:
    """Book ranges with their cause and proof; empty ones are left out."""
    execute_many(tx, "INSERT INTO tick_gaps (tick_series_id, start_us, end_us, cause, seen_at_us, proof) VALUES (?, ?, ?, ?, ?, ?)", [
        (series_id, span.start, span.end, cause, now_us, json.dumps(proof)) for span, cause, proof in losses if span.start < span.end])


def book_once(tx: Connection, series_id: int, spans: Sequence[Interval], cause: str, now_us: int) -> None:
    """Book ranges that are not booked with this cause yet: whoever was killed behind it does it again."""
    known = {(start, end) for start, end in fetch(
        tx, "SELECT start_us, end_us FROM tick_gaps WHERE tick_series_id = ? AND cause = ?", (series_id, cause))} if spans else set()
    book_losses(tx, series_id, [(span, cause, {}) for span in spans if (span.start, span.end) not in known], now_us)


def extend(tx: Connection, series_id: int, cause: str, span: Interval) -> bool:
    """Let the open range of a cause that ends where `span` begins end where it ends; whether there is one."""
    changed = tx.execute(update(tick_gaps).where(
        tick_gaps.c.tick_series_id == series_id, tick_gaps.c.end_us == span.start, tick_gaps.c.cause == cause,
        tick_gaps.c.healed_at_us.is_(None),
    ).values(end_us=span.end))
    return bool(changed.rowcount)


def heal(tx: Connection, series_id: int, interval: Interval, now_us: int) -> int:
    """Mark what is booked inside `interval` as healed, cutting ranges at its ends; return how many entries it touched."""
    rows = fetch(tx, "SELECT id, start_us, end_us, cause, seen_at_us, proof FROM tick_gaps WHERE tick_series_id = ?"
                     " AND healed_at_us IS NULL AND start_us < ? AND end_us > ?", (series_id, interval.end, interval.start))
    for key, start, end, cause, seen, proof in rows:
        inside = Interval(max(start, interval.start), min(end, interval.end))
        tx.execute(update(tick_gaps).where(tick_gaps.c.id == key).values(
            start_us=inside.start, end_us=inside.end, healed_at_us=now_us))
        for rest in subtract([Interval(start, end)], [interval]):
            tx.execute(tick_gaps.insert().values(
                tick_series_id=series_id, start_us=rest.start, end_us=rest.end, cause=cause, seen_at_us=seen,
                proof=proof if isinstance(proof, dict) else json.loads(proof)))
    return len(rows)


def list_losses(tx: Connection, slug: str | None = None, symbol: str | None = None, *, healed_too: bool = False) -> list[TickGap]:
    """Return the booked ranges that match, by connection, symbol and time."""
    query = (select(connections.c.slug, tick_series.c.symbol, tick_gaps)
             .join_from(tick_gaps, tick_series).join(connections, connections.c.id == tick_series.c.connection_id)
             .order_by(connections.c.slug, tick_series.c.symbol, tick_gaps.c.start_us, tick_gaps.c.id))
    if slug is not None:
        query = query.where(connections.c.slug == slug)
    if symbol is not None:
        query = query.where(tick_series.c.symbol == symbol)
    if not healed_too:
        query = query.where(tick_gaps.c.healed_at_us.is_(None))
    return [TickGap(row["slug"], row["symbol"], Interval(row["start_us"], row["end_us"]), row["cause"], row["seen_at_us"],
                    row["healed_at_us"], row["proof"], row["id"]) for row in tx.execute(query).mappings()]

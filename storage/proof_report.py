"""The published proof: for connections and a period, what is complete, what is missing and why, what changed, and digests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection

from core.calendar import Calendar
from core.candles import VALUES
from core.clock import MINUTE_US, SECOND_US, isoformat
from core.clock_words import evidence_in_words, rules_in_words
from core.interval import Interval
from core.slots import expected_slots
from core.timeframe import Grid
from storage.calendars import calendar_for
from storage.gap_words import why
from storage.lake.place import Place
from storage.lake.reader import pin, read_pin
from storage.lake.revisions import list_revisions
from storage.ledger import booked_in, booked_span
from storage.listings import find_listing
from storage.proof_strip import NO_MARKET, strip_of
from storage.repairs import list_repairs
from storage.series import SeriesRow, grids_of, list_series
from storage.snapshots import digest_of, rows_digest
from storage.statements import fetch

MOST_GAPS: Final = 200
MOST_REVISIONS: Final = 500
OVERDUE_US: Final = 10 * MINUTE_US  # a live candle that has not come so long after it settled is missing


@dataclass(frozen=True, slots=True)
class SeriesProof:
    """One series in the period, counted in slots.

    Attributes:
        expected: slots within the period, from the series' first stored or booked one to its last, as `coverage` counts them.
        causes: slots by the ledger's cause.
        completeness: stored / expected without closed time, 0 to 1; None when nothing was expected.
        rows_digest: SHA-256 over the stored rows of the period.
        withheld: of the unexplained ones, those that a broker's clock in doubt is no ground to store.
        behind: open-market slots after the series' last stored or booked one that should have come by now.
        strip: for each of up to 120 equal parts of the period, its shares by what they are (`storage.proof_strip.LEGEND`).
    """

    connection: str
    symbol: str
    timeframe: str
    first: str | None
    last: str | None
    expected: int
    stored: int
    explained: int
    unexplained: int
    causes: dict[str, int]
    completeness: float | None
    revisions: int
    rows_digest: str
    withheld: int = 0
    behind: int = 0
    strip: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ProofReport:
    """All of it, JSON-ready by `as_dict`. Durations are in seconds, instants ISO 8601."""

    connection: str | None
    start: str
    end: str
    made_at: str
    digest: str
    totals: dict[str, Any]
    series: list[SeriesProof]
    gaps: list[dict[str, Any]]
    revisions: list[dict[str, Any]]
    repairs: dict[str, Any]
    clocks: list[dict[str, Any]]
    retentions: list[dict[str, Any]]
    runs: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self)


def make_report(place: Place, connection: str | None, period: Interval | None = None) -> ProofReport:
    """Read the proof of one connection's series, or of all.

    Args:
        place: the lake.
        connection: its slug; None is all.
        period: of the candles' open times; None is from the first stored candle to the last one's close.
    """
    now_us = place.clock.now_us()
    with place.metadata.read() as tx:
        rows = list_series(tx, connection)
        grids = grids_of(tx, rows)
        due = {row.id: _due_until(tx, row, now_us) for row in rows}
        calendars = _calendars(tx, rows)
    if period is None:
        held = [(row.first_us, grids[row.id].next(row.last_us)) for row in rows if row.first_us is not None and row.last_us is not None]
        start = min((first for first, _ in held), default=now_us)
        period = Interval(start, max((end for _, end in held), default=start))
    proofs, gaps = [], []
    for row in rows:
        late = _Late(calendars[row.id], due[row.id])
        proof, open_gaps = _series(place, row, grids[row.id], period, late)
        proofs.append(proof)
        gaps += open_gaps
    with place.metadata.read() as tx:
        revisions = [item for item in list_revisions(tx, connection) if period.start <= item.ts_us < period.end]
        repairs = _repairs(tx, connection, period)
        clocks, retentions, runs = _clocks(tx, connection), _retentions(tx, connection), _runs(tx, connection, period)
    return ProofReport(
        connection, isoformat(period.start), isoformat(period.end), isoformat(now_us // SECOND_US * SECOND_US),
        digest_of([{"connection": item.connection, "symbol": item.symbol, "timeframe": item.timeframe, "rows": item.stored,
                    "first": item.first, "last": item.last, "rows_digest": item.rows_digest} for item in proofs if item.stored]),
        _totals(proofs), proofs, sorted(gaps, key=lambda gap: -gap["slots"])[:MOST_GAPS],
        [{"series": str(item.series), "ts": isoformat(item.ts_us), "known_at": isoformat(item.known_at_us),
          "old": {name: item.old[name] for name in VALUES}, "new": {name: item.new[name] for name in VALUES}}
         for item in revisions[:MOST_REVISIONS]],
        repairs, clocks, retentions, runs)


@dataclass(frozen=True, slots=True)
class _Late:
    """What tells which slots of a series should have come by now: its market's hours, and until when candles are due."""

    calendar: Calendar
    until_us: int

    def count(self, grid: Grid, start_us: int) -> int:
        """Return how many open-market slots from `start_us` on are due."""
        end_us = grid.floor(self.until_us)
        return 0 if end_us <= start_us else len(expected_slots(grid, self.calendar, Interval(start_us, end_us)))


def _due_until(tx: Connection, row: SeriesRow, now_us: int) -> int:
    """Return up to when candles of a series are due: a while ago for a live one, its end for one that is kept no more."""
    if not row.is_active:
        return 0
    listing = find_listing(tx, row.connection_id, row.series.symbol)
    late = now_us - OVERDUE_US - round((row.settle_seconds or 0.0) * SECOND_US)
    return late if listing is None or listing.delisted_us is None else min(late, listing.delisted_us)


def _calendars(tx: Connection, rows: Sequence[SeriesRow]) -> dict[int, Calendar]:
    types: dict[int, str] = {row[0]: row[1] for row in fetch(tx, "SELECT id, type FROM connections")}
    return {row.id: calendar_for(tx, row.connection_id, row.series.symbol, types[row.connection_id]) for row in rows}


def _series(
    place: Place, row: SeriesRow, grid: Grid, period: Interval, late: _Late,
) -> tuple[SeriesProof, list[dict[str, Any]]]:
    with place.metadata.read() as tx:
        pinned = pin(tx, row.id, period)
        span = booked_span(tx, row.id)
        booked = [(gap, both) for gap in booked_in(tx, row.id, period) if (both := gap.interval.intersect(period)) is not None]
        changes = fetch(tx, "SELECT count(*) FROM revisions WHERE series_id = ? AND ts_us >= ? AND ts_us < ?",
                        (row.id, period.start, period.end))[0][0]
    frame = read_pin(place, pinned, period)
    slots = frame["ts"].dt.epoch("us").to_numpy()
    edges = [us for us in (row.first_us, row.last_us) if us is not None] + ([] if span is None else [span.start, span.end - 1])
    reached = Interval(grid.floor(min(edges)), grid.next(max(edges))) if edges else None
    whole = None if reached is None else reached.intersect(period)
    expected = 0 if whole is None else grid.count(whole)
    causes: Counter[str] = Counter()
    for gap, part in booked:
        causes[gap.cause] += grid.count(part)
    explained = sum(count for cause, count in causes.items() if cause != "unknown")
    due = expected - sum(causes[cause] for cause in NO_MARKET)
    proof = SeriesProof(
        row.series.connection, row.series.symbol, row.series.timeframe.name,
        isoformat(int(slots[0])) if len(slots) else None, isoformat(int(slots[-1])) if len(slots) else None,
        expected, len(slots), explained, expected - len(slots) - explained, dict(sorted(causes.items())),
        None if due <= 0 else len(slots) / due, changes, rows_digest([frame]),
        sum(grid.count(part) for gap, part in booked if "withheld" in gap.proof), 0 if reached is None else late.count(grid, reached.end), strip_of(slots, grid.timeframe.length_us, booked, whole, period))
    listed = [
        {"series": str(row.series), "start": isoformat(part.start), "end": isoformat(part.end), "slots": grid.count(part),
         "cause": gap.cause, "attempts": gap.attempts, "first_seen": isoformat(gap.first_seen_us),
         "next_try": None if gap.next_try_us is None else isoformat(gap.next_try_us), "proof": dict(gap.proof), "why": why(gap.cause, gap.proof)}
        for gap, part in booked if gap.cause not in NO_MARKET]
    return proof, listed


def _totals(proofs: Sequence[SeriesProof]) -> dict[str, Any]:
    causes: Counter[str] = Counter()
    for item in proofs:
        causes.update(item.causes)
    expected, stored = sum(item.expected for item in proofs), sum(item.stored for item in proofs)
    explained = sum(item.explained for item in proofs)
    due = expected - sum(causes[cause] for cause in NO_MARKET)
    return {
        "series": len(proofs), "expected": expected, "stored": stored, "explained": explained,
        "unexplained": expected - stored - explained, "withheld": sum(item.withheld for item in proofs), "causes": dict(sorted(causes.items())),
        "completeness": None if due <= 0 else stored / due,
        "explained_share": None if expected == 0 else (stored + explained) / expected,
        "revisions": sum(item.revisions for item in proofs), "behind": sum(item.behind for item in proofs),
    }


def _repairs(tx: Connection, connection: str | None, period: Interval) -> dict[str, Any]:
    """Return how long booked ranges of the period took until they were filled, closed time left out."""
    rows = [row for row in list_repairs(tx, connection)
            if row.cause not in NO_MARKET and row.interval.intersect(period) is not None]
    times = sorted((row.repaired_at_us - row.first_seen_us) / 1_000_000 for row in rows)
    if not times:
        return {"ranges": 0, "median_seconds": None, "p90_seconds": None, "longest_seconds": None, "by_cause": {}}
    return {
        "ranges": len(times), "median_seconds": float(np.median(times)), "p90_seconds": float(np.quantile(times, 0.9)),
        "longest_seconds": times[-1], "by_cause": dict(Counter(row.cause for row in rows)),
    }


def _clocks(tx: Connection, connection: str | None) -> list[dict[str, Any]]:
    rows = fetch(tx, "SELECT c.slug, h.kind, h.rules, h.offset_minutes, h.evidence, h.seen_at_us, h.last_seen_us"
                     " FROM clock_history h JOIN connections c ON c.id = h.connection_id ORDER BY c.slug, h.seen_at_us, h.id")
    return [{"connection": slug, "kind": kind, "rules": _json(rules), "offset_minutes": offset, "evidence": _json(evidence),
             "seen_at": isoformat(seen), "last_seen": isoformat(last), "rules_in_words": rules_in_words(_json(rules)),
             "evidence_in_words": evidence_in_words(_json(evidence))}
            for slug, kind, rules, offset, evidence, seen, last in rows if connection in {None, slug}]


def _retentions(tx: Connection, connection: str | None) -> list[dict[str, Any]]:
    rows = fetch(tx, "SELECT c.slug, s.symbol, s.timeframe, t.before_us, t.applied_at_us, t.rows FROM retentions t"
                     " JOIN series s ON s.id = t.series_id JOIN connections c ON c.id = s.connection_id ORDER BY t.id")
    return [{"series": f"{slug} {symbol} {timeframe}", "before": isoformat(before), "applied_at": isoformat(applied), "rows": count}
            for slug, symbol, timeframe, before, applied, count in rows if connection in {None, slug}]


def _runs(tx: Connection, connection: str | None, period: Interval) -> dict[str, int]:
    if connection is not None:  # a run may work on many people's connections: how many there were is the home's affair
        return {}
    rows = fetch(tx, "SELECT kind, count(*) FROM runs WHERE last_at_us >= ? AND first_at_us < ? GROUP BY kind ORDER BY kind",
                 (period.start, period.end))
    return {kind: int(count) for kind, count in rows}


def _json(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value

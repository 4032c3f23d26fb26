"""How long after its close a candle may still change at its provider, learned for each series.

Two things teach it. Whatever a provider shows before a candle counts as closed is noted, and compared with what the candle
became: equal says that so short a wait is enough, different that it is not. And a stored candle that changed soon after
its close was stored too early. A wait is lengthened at once and shortened only after many equal sights in a row; a series that
was late once comes down again in steps, each after more of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl
from sqlalchemy import Connection

from core.candles import VALUES
from core.clock import MINUTE_US, SECOND_US
from storage.statements import execute_many, fetch

JUDGED_ENOUGH = 20  # so many candles in a row, seen early and unchanged, shorten the wait
FORGIVEN = 100  # so many in a row after a surprise, and it counts for a quarter
LONGEST_US = 10 * MINUTE_US  # a change later than this is a correction, not a candle that was still being made
MARGIN = 1.25
LEAST_US = 2 * SECOND_US
_KEPT_US = 24 * 60 * MINUTE_US


@dataclass(frozen=True, slots=True)
class Sight:
    """A candle seen before it counted as closed. `digest` None: the provider did not show it yet."""

    ts_us: int
    age_us: int  # the provider's clock less the candle's close
    digest: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a series: how many early sights in a row were right, and the greatest age of a wrong one."""

    judged: int = 0
    late_us: int = 0
    final_us: int = 0


def digests(candles: pl.DataFrame) -> dict[int, str]:
    """Return a digest of each candle's values, by open time."""
    return {row[0]: hashlib.sha256(repr(row[1:]).encode()).hexdigest()
            for row in candles.select(pl.col("ts").dt.epoch("us"), *VALUES).iter_rows()}


def note_sights(tx: Connection, series_id: int, sights: Sequence[Sight]) -> None:
    """Keep sights until their candles have been stored; of one candle the first sight counts."""
    execute_many(tx, "INSERT INTO settle_sights (series_id, ts_us, age_us, digest) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                 [(series_id, item.ts_us, item.age_us, item.digest) for item in sights])


def judge(tx: Connection, series_id: int, final: Mapping[int, str], length_us: int, now_us: int) -> Evidence | None:
    """Compare earlier sights with what the candles became; return the new evidence, None when there was nothing to compare.

    Args:
        tx: a writing transaction.
        series_id: the series.
        final: digests of candles that count as closed now, by open time.
        length_us: of its timeframe.
        now_us: stamps the evidence; sights a day older are dropped.
    """
    waiting = fetch(tx, "SELECT ts_us, age_us, digest FROM settle_sights WHERE series_id = ? ORDER BY ts_us", (series_id,))
    told = [row for row in waiting if row[0] in final]
    old = [row for row in waiting if row[0] not in final and row[0] + length_us < now_us - _KEPT_US]
    execute_many(tx, "DELETE FROM settle_sights WHERE series_id = ? AND ts_us = ?", [(series_id, row[0]) for row in told + old])
    if not told:
        return None
    known = evidence_of(tx, series_id)
    for ts_us, age_us, digest in told:
        known = _right(known, age_us) if digest == final[ts_us] else Evidence(0, max(known.late_us, age_us), 0)
    _put(tx, series_id, known, now_us)
    return known


def _right(known: Evidence, age_us: int) -> Evidence:
    """Return the evidence with one more early sight that was right, at this age."""
    final_us = max(known.final_us, age_us)
    if known.late_us == 0 or known.judged + 1 < FORGIVEN:
        return Evidence(known.judged + 1, known.late_us, final_us)
    late_us = known.late_us // 4
    return Evidence(0, late_us if late_us >= LEAST_US else 0, final_us)


def note_changes(
    tx: Connection, series_id: int, changes: Sequence[tuple[int, int]], length_us: int, now_us: int,
) -> Evidence | None:
    """Learn from stored candles that changed: pairs of age when the old and when the new value was seen, microseconds.

    When the old value became right is not known, only when it was still wrong; so the wait doubles with each surprise.
    What changed later than the next two candles is a correction of history and says nothing here.
    """
    late = [min(LONGEST_US, seen_us, max(2 * held_us, MINUTE_US)) for held_us, seen_us in changes
            if 0 <= held_us <= LONGEST_US and seen_us <= 2 * length_us + LONGEST_US]
    if not late:
        return None
    known = Evidence(0, max(evidence_of(tx, series_id).late_us, *late), 0)
    _put(tx, series_id, known, now_us)
    return known


def evidence_of(tx: Connection, series_id: int) -> Evidence:
    """Return what is known of a series' settling."""
    rows = fetch(tx, "SELECT judged, late_us, final_us FROM settle_evidence WHERE series_id = ?", (series_id,))
    return Evidence(*rows[0]) if rows else Evidence()


def settle_us(known: Evidence, start_us: int) -> int:
    """Return how long to wait after a close: `start_us` until enough was seen, less after that, more after a surprise."""
    wait = max(LEAST_US, round(max(known.late_us, known.final_us) * MARGIN) + SECOND_US)
    if known.late_us > 0:
        return max(start_us, wait)
    return min(start_us, wait) if known.judged >= JUDGED_ENOUGH else start_us


def put_settle(tx: Connection, series_id: int, wait_us: int) -> None:
    """Keep the wait with the series, where every plan reads it."""
    execute_many(tx, "UPDATE series SET settle_seconds = ? WHERE id = ?", [(wait_us / SECOND_US, series_id)])


def _put(tx: Connection, series_id: int, known: Evidence, now_us: int) -> None:
    values = (series_id, known.judged, known.late_us, known.final_us, now_us)
    execute_many(tx, "INSERT INTO settle_evidence (series_id, judged, late_us, final_us, updated_at_us) VALUES (?, ?, ?, ?, ?)"
                     " ON CONFLICT (series_id) DO UPDATE SET judged = excluded.judged, late_us = excluded.late_us,"
                     " final_us = excluded.final_us, updated_at_us = excluded.updated_at_us", [values])

"""Removes candles below a boundary: plan first, then apply. Files go to .old/ and are deleted after its grace."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from sqlalchemy import Connection

from core.clock import EARLIEST_US, LATEST_US, isoformat
from core.errors import InputError, StoreBusyError, StoreCorruptError
from core.interval import Interval
from core.series import Series
from core.timeframe import Timeframe
from storage.lake.blocks import drop_before
from storage.lake.damage import Damage, read_unaltered
from storage.lake.flush import LiveFile, OvertakenError, discard, discard_unless_live, live_by_label, lock_series
from storage.lake.place import Place, retire
from storage.lake.publish import publish, writing
from storage.lake.reader import stored_slots
from storage.lake.sources import reason_to_keep
from storage.lake.writer import NewFile, swap_manifest, write_file
from storage.ledger import booked_in, clear_range
from storage.series import SeriesRow, list_series
from storage.statements import execute_many, fetch

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class RetentionItem:
    """What a series loses: candles, whole files, and files that are cut."""

    series_id: int
    series: Series
    rows: int
    whole_files: int
    cut_files: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A series that retention leaves alone, and why."""

    series: Series
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What lies before `before_us`; `rows` counts all candles. `refused` names series that are the only source of others."""

    items: list[RetentionItem]
    rows: int
    before_us: int
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """Candles removed, and files moved to .old/."""

    rows: int
    files: int


@dataclass(frozen=True, slots=True)
class RetiredGap:
    """A range that the ledger had booked below a boundary of retention: kept as a record, expected no more."""

    series: Series
    interval: Interval
    cause: str
    attempts: int
    proof: Mapping[str, Any]
    first_seen_us: int
    retired_at_us: int


def list_retired(tx: Connection, connection: str | None = None, symbol: str | None = None,
                 timeframe: str | Timeframe | None = None) -> list[RetiredGap]:
    """Return what retention has taken out of the ledger, by series and time."""
    sql = ("SELECT c.slug, s.symbol, s.timeframe, g.start_us, g.end_us, g.cause, g.attempts, g.proof, g.first_seen_us, g.retired_at_us"
           " FROM retired_gaps g JOIN series s ON s.id = g.series_id JOIN connections c ON c.id = s.connection_id WHERE 1 = 1")
    values = []
    for column, value in (("c.slug", connection), ("s.symbol", symbol),
                          ("s.timeframe", None if timeframe is None else Timeframe.parse(str(timeframe)).name)):
        if value is not None:
            sql += f" AND {column} = ?"
            values.append(value)
    rows = fetch(tx, f"{sql} ORDER BY g.series_id, g.start_us, g.retired_at_us", values)
    return [RetiredGap(Series(row[0], row[1], Timeframe.parse(row[2])), Interval(row[3], row[4]), row[5], row[6],
                       json.loads(row[7]) if isinstance(row[7], str) else row[7], row[8], row[9]) for row in rows]


def plan_retention(place: Place, before_us: int, connection: str | None = None, *, timeframe: str | None = None,
                   is_forced: bool = False) -> RetentionPlan:
    """Say what lies before `before_us`, without changing anything.

    Args:
        place: the lake.
        before_us: the boundary.
        connection: only this connection's series.
        timeframe: only this timeframe.
        is_forced: take also what is the only source of another series.

    Raises:
        InputError: the boundary lies outside 1970 to 2100.
    """
    if not EARLIEST_US <= before_us <= LATEST_US:
        raise InputError("retention boundary", before_us, f"0 to {LATEST_US} ({isoformat(LATEST_US)})", "give microseconds")
    with place.metadata.read() as tx:
        rows = [row for row in list_series(tx, connection, None, timeframe) if row.first_us is not None and row.first_us < before_us]
        touched = {row.id: _below(tx, row.id, before_us) for row in rows}
    items, refused = [], []
    for row in rows:
        whole, cut = touched[row.id]
        count = _count(place, row.id, before_us)
        reason = None if is_forced else _reason(place, row, before_us)
        if reason is not None:
            refused.append(Refusal(row.series, count, reason))
            continue
        items.append(RetentionItem(row.id, row.series, count, len(whole), len(cut)))
    return RetentionPlan(items, sum(item.rows for item in items), before_us, tuple(refused))


def apply_retention(place: Place, plan: RetentionPlan) -> RetentionResult:
    """Remove what lies before the plan's boundary in the plan's series.

    Whole partitions are dropped and the boundary's own is cut exactly, together with head rows; each series is one
    transaction. Revisions stay, and the ledger's entries move to `retired_gaps`.

    Raises:
        StoreBusyError, StoreFullError, StoreUnwritableError: series that are done stay done; apply again for the rest.
        StoreCorruptError: series whose files were altered are left as they are; all others are done.
    """
    rows = files = 0
    damage = Damage()
    for item in plan.items:
        with damage.apart(), writing(place, item.series):
            done = _apply(place, item, plan.before_us)
            rows, files = rows + done.rows, files + done.files
    damage.tell()
    return RetentionResult(rows, files)


def refresh_watermarks(tx: Connection, series_id: int) -> None:
    """Set first and last stored candle to what head and manifest say."""
    ends = fetch(tx, "SELECT min(first_us), max(last_us) FROM (SELECT first_us, last_us FROM lake_files"
                     " WHERE series_id = ? AND dataset = 'candles' AND superseded_at_us IS NULL UNION ALL"
                     " SELECT min(first_us), max(last_us) FROM head_candles WHERE series_id = ?) AS ends", (series_id, series_id))
    execute_many(tx, "UPDATE series SET first_us = ?, last_us = ? WHERE id = ?", [(*ends[0], series_id)])


def _count(place: Place, series_id: int, before_us: int) -> int:
    """Return how many candles lie below the boundary; where a file cannot be read, how many manifest and head tell of, those in both twice."""
    try:
        return len(stored_slots(place, series_id, Interval(EARLIEST_US, before_us)))
    except StoreCorruptError:  # what goes whole need not be read
        with place.metadata.read() as tx:
            return int(fetch(tx, "SELECT coalesce(sum(rows), 0) FROM (SELECT rows FROM lake_files WHERE series_id = ? AND first_us < ?"
                                 " AND dataset = 'candles' AND superseded_at_us IS NULL UNION ALL"
                                 " SELECT rows FROM head_candles WHERE series_id = ? AND first_us < ?) AS parts",
                             (series_id, before_us, series_id, before_us))[0][0])


def _reason(place: Place, row: SeriesRow, before_us: int) -> str | None:
    try:
        return reason_to_keep(place, row, before_us)
    except StoreCorruptError as error:  # the other series need not wait for it
        return f"{row.series}: whether another series is made of it is not known: {error}"


def _below(tx: Connection, series_id: int, before_us: int) -> tuple[list[str], list[str]]:
    """Return the labels of live partitions that lie below the boundary whole, and of those that cross it."""
    rows = fetch(tx, "SELECT period, last_us FROM lake_files WHERE series_id = ? AND dataset = 'candles'"
                     " AND superseded_at_us IS NULL AND first_us < ? ORDER BY first_us", (series_id, before_us))
    return [row[0] for row in rows if row[1] < before_us], [row[0] for row in rows if row[1] >= before_us]


def _apply(place: Place, item: RetentionItem, before_us: int) -> RetentionResult:
    for _ in range(_ATTEMPTS):
        with place.metadata.read() as tx:
            whole, cut = _below(tx, item.series_id, before_us)
            live = live_by_label(tx, item.series_id)
        count = _count(place, item.series_id, before_us)
        files = [write_file(place, item.series, label, _kept(place, live[label], before_us)) for label in cut]
        try:
            _commit(place, item.series_id, files, whole, before_us,
                    old={label: (live[label].id, live[label].generation) for label in (*whole, *cut)}, rows=count)
        except OvertakenError:
            discard(place, files)
            continue
        except BaseException:
            discard_unless_live(place, item.series_id, files)
            raise
        for file in files:
            publish(place.root, file.path, {live[file.label].path})
        for label in whole:
            retire(place.root, live[label].path)
        _mark(place, item.series_id, before_us)
        return RetentionResult(count, len(whole) + len(cut))
    raise StoreBusyError(f"{item.series}: other writers keep changing its partitions; try again")


def _mark(place: Place, series_id: int, before_us: int) -> None:
    """Note in the object store which files hold candles that were removed, also those that a flush had superseded before."""
    if place.objects is None:
        return
    with place.metadata.read() as tx:
        paths = fetch(tx, "SELECT path FROM lake_files WHERE series_id = ? AND dataset = 'candles' AND superseded_at_us IS NOT NULL"
                          " AND first_us < ?", (series_id, before_us))
    for (path,) in paths:
        place.objects.mark_removed(path)


def _kept(place: Place, file: LiveFile, before_us: int) -> pl.DataFrame:
    return read_unaltered(place, file.path, file.digest, Interval(before_us, LATEST_US))


def _commit(place: Place, series_id: int, files: list[NewFile], whole: list[str], before_us: int, *,
            old: dict[str, tuple[int, int]], rows: int) -> None:
    now_us = place.clock.now_us()
    with place.metadata.write() as tx:
        lock_series(tx, series_id)
        live = live_by_label(tx, series_id)
        if any(label not in live or (live[label].id, live[label].generation) != seen for label, seen in old.items()):
            raise OvertakenError
        swap_manifest(tx, series_id, files, old, now_us)
        execute_many(tx, "UPDATE lake_files SET superseded_at_us = ? WHERE id = ?", [(now_us, old[label][0]) for label in whole])
        drop_before(tx, series_id, before_us)
        _retire_ledger(tx, series_id, before_us, now_us)
        _note(tx, series_id, before_us, rows, now_us)
        refresh_watermarks(tx, series_id)


def _retire_ledger(tx: Connection, series_id: int, before_us: int, now_us: int) -> None:
    """Keep what the ledger says below the boundary, but out of the ledger: nothing is expected there any more."""
    gone = Interval(EARLIEST_US, before_us)
    execute_many(
        tx, "INSERT INTO retired_gaps (series_id, start_us, end_us, cause, attempts, first_seen_us, last_seen_us, proof,"
        " retired_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [(series_id, part.start, part.end, gap.cause, gap.attempts, gap.first_seen_us, gap.last_seen_us,
          json.dumps(dict(gap.proof), sort_keys=True), now_us)
         for gap in booked_in(tx, series_id, gone) if (part := gap.interval.intersect(gone)) is not None])
    clear_range(tx, series_id, gone)


def _note(tx: Connection, series_id: int, before_us: int, rows: int, now_us: int) -> None:
    """Note the boundary: past views end there, also when the clock has been set back since the last change."""
    last = fetch(tx, "SELECT max(known_at_us) FROM revisions WHERE series_id = ? AND ts_us < ?", (series_id, before_us))[0][0]
    execute_many(tx, "INSERT INTO retentions (series_id, before_us, applied_at_us, rows) VALUES (?, ?, ?, ?)",
                 [(series_id, before_us, max(now_us, last or 0), rows)])

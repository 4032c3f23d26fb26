"""Learns from a fetch how long a series' candles need to settle, and when it is worth to look again."""

from __future__ import annotations

import json

from sqlalchemy import Connection

from core.calendar import Calendar, open_parts
from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from core.interval import Interval
from core.timeframe import Grid
from feed.context import Feed
from feed.series_run import SeriesRun
from storage.series import SeriesRow
from storage.settling import (
    LONGEST_US,
    Evidence,
    Sight,
    digests,
    judge,
    note_changes,
    note_sights,
    put_settle,
    settle_us,
)
from storage.statements import fetch

SAMPLED = 16  # once a series' wait is learned, one candle in so many is still looked at early; all that are an hour or longer
LATE_LOOKS_US = 10 * MINUTE_US  # so long after a session's end its last candle may still come
CLOSED_LOOK_US = HOUR_US  # in closed time a broker is looked at this often: a calendar may be wrong


def learn(tx: Connection, feed: Feed, run: SeriesRun, revised: int, since_us: int) -> None:
    """Compare what was seen early with what it became, note what is seen early now, and keep the wait that follows."""
    length, known = run.row.series.timeframe.length_us, None
    for look in run.early:
        known = judge(tx, run.row.id, digests(look.closed), length, feed.clock.now_us()) or known
        shown = digests(look.shown)
        note_sights(tx, run.row.id, [
            Sight(slot, look.server_us - run.grid.next(slot), shown.get(slot)) for slot in look.unsettled
            if run.row.settle_seconds is None or length >= HOUR_US or slot // length % SAMPLED == 0])
    if revised:
        known = note_changes(tx, run.row.id, _changes(tx, run, since_us), length, feed.clock.now_us()) or known
    if known is not None:
        _keep(tx, feed, run, known)


def _keep(tx: Connection, feed: Feed, run: SeriesRun, known: Evidence) -> None:
    start = round(feed.settle_seconds(run.row.series.connection) * SECOND_US)
    wait = settle_us(known, start)
    held = None if run.row.settle_seconds is None else round(run.row.settle_seconds * SECOND_US)
    if wait != held and (held is not None or wait != start):
        put_settle(tx, run.row.id, wait)


def _changes(tx: Connection, run: SeriesRun, since_us: int) -> list[tuple[int, int]]:
    """Return (age when the old value was stored, age when the new one was) of the candles changed since an instant.

    What REST tells otherwise than a stream did says nothing of how long REST takes.
    """
    rows = fetch(tx, "SELECT ts_us, old_known_at_us, known_at_us, old FROM revisions WHERE series_id = ? AND known_at_us >= ?",
                 (run.row.id, since_us))
    return [(before - run.grid.next(ts), after - run.grid.next(ts)) for ts, before, after, old in rows
            if (json.loads(old) if isinstance(old, str) else old)["source"] != "stream"]


def wait_us(row: SeriesRow, now_us: int) -> int:
    """Return how long until a series is due; 0: it is. A wait longer than any was noted while our own clock was wrong."""
    wait = row.next_due_us - now_us
    return wait if 0 < wait <= row.series.timeframe.length_us + LONGEST_US + 2 * CLOSED_LOOK_US else 0


def next_due_us(grid: Grid, now_us: int, settle: float, calendar: Calendar | None = None) -> int:
    """Return when the next candle will have closed and settled; in closed time the first one after it, an hour at most."""
    settle_wait = round(settle * SECOND_US)
    close = grid.next(now_us - settle_wait)
    if calendar is None:
        return close + settle_wait
    candle = Interval(grid.floor(close - 1), close)
    recent = Interval(max(0, now_us - LATE_LOOKS_US), now_us + 1)
    if open_parts(calendar, candle) or open_parts(calendar, recent):
        return close + settle_wait
    opens = open_parts(calendar, Interval(now_us, now_us + 14 * DAY_US))
    first = grid.next(grid.floor(opens[0].start)) if opens else now_us + CLOSED_LOOK_US
    return max(close + settle_wait, min(first + settle_wait, now_us + CLOSED_LOOK_US))

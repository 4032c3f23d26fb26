"""Learns a market's calendar from what is stored: hours of the week that never trade, holidays, outages of an exchange.

What never traded in a given hour over many weeks is closed time, if chance cannot explain it. A single silence is a holiday
only where a holiday calendar names the day, and an outage only where every series of the connection was silent at once:
anything else stays missing, so that a provider's loss is never learned away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import polars as pl

from connections.rows import read_connection
from core.calendar import WEEK_MINUTES, Calendar, Closure, MarketCalendar, WeeklyClosure, day_of, holidays_of
from core.clock import HOUR_US, MINUTE_US, to_datetime
from core.errors import InputError
from core.interval import Interval, intersect, merge, subtract
from core.slots import Slots, expected_slots, grid_slots
from core.timeframe import Grid
from feed.context import Feed
from feed.planning import not_in, slot_runs, without
from storage.calendars import WHOLE_CONNECTION
from storage.ledger import booked_in
from storage.series import SeriesRow, grid_of, list_series

LEAST_WEEKS: Final = 8
NEVER: Final = 0.01  # traded in no more than this share of the weeks: stray quotes happen
CHANCE: Final = math.log(1e-9)  # closed time must be less likely than this by chance
HOLIDAY_US: Final = HOUR_US  # a silence this long on a holiday is the holiday
OUTAGE_US: Final = 30 * MINUTE_US
DENSE: Final = 0.99  # an exchange's outages show only in series that hardly ever pause
HOLIDAYS: Final = ("country:US", "financial:NYSE")
_FIXED: Final = {(12, 24): "Christmas Eve", (12, 26): "day after Christmas", (12, 31): "New Year's Eve", (1, 2): "day after New Year"}


@dataclass(frozen=True, slots=True)
class Learned:
    """A calendar and what it was learned from."""

    symbol: str
    calendar: MarketCalendar
    evidence: dict[str, object]


def learn_calendar(feed: Feed, slug: str, symbol: str | None = None) -> Learned:
    """Return the calendar that the stored candles of a connection (or of one symbol) show; stores nothing.

    Raises:
        InputError: fewer than `LEAST_WEEKS` weeks are stored in a timeframe of an hour or less.
        NotFoundError: no such connection.
    """
    with feed.lake.metadata.read() as tx:
        row = read_connection(tx, slug)
        rows = [item for item in list_series(tx, slug, symbol)
                if item.first_us is not None and item.series.timeframe.length_us <= HOUR_US]
        grids = {item.id: grid_of(tx, item) for item in rows}
    name = WHOLE_CONNECTION if symbol is None else symbol
    if row.type == "crypto":
        return Learned(name, *_outages(feed, _finest(rows), grids))
    chosen = _longest(rows)
    if chosen is None:
        raise InputError("calendar", f"no candles of {slug} {symbol or ''}".strip(), "candles of an hour or less", "backfill some first")
    slots = _stored(feed, chosen)
    calendar, evidence = from_slots(slots, grids[chosen.id], _unread(feed, chosen, slots, grids[chosen.id]))
    return Learned(name, calendar, {"series": str(chosen.series), **evidence})


def from_slots(slots: Slots, grid: Grid, failed: Sequence[Interval] = (), zone: str = "America/New_York",
               ) -> tuple[MarketCalendar, dict[str, object]]:
    """Return the weekly profile and the holidays that stored slots (ascending, UTC) show, and from how many weeks.

    Args:
        slots: open times.
        grid: their grid, an hour or less.
        failed: ranges that nobody asked for, or that could not be fetched: they teach nothing.
        zone: the time zone whose weeks repeat; FX follows New York.

    Raises:
        InputError: too few weeks.
    """
    weekly, weeks, share = _profile(_told(slots, grid, failed), grid, zone)
    if weeks < LEAST_WEEKS:
        raise InputError("calendar", f"{weeks} whole weeks of candles", f"{LEAST_WEEKS} or more", "backfill more history first")
    base = MarketCalendar(zone, tuple(weekly))
    closures = _holidays(slots, grid, base, failed)
    return (MarketCalendar(zone, tuple(weekly), (), tuple(closures)),
            {"weeks": weeks, "traded_share": round(share, 4), "first": to_datetime(int(slots[0])).isoformat(),
             "last": to_datetime(int(slots[-1])).isoformat(), "holidays": len(closures)})


def _told(slots: Slots, grid: Grid, failed: Sequence[Interval]) -> Slots:
    """Return the slots with those of ranges that nobody could read: for all we know there were candles, so they are no silence."""
    if len(slots) == 0 or not failed:
        return slots
    span = Interval(int(slots[0]), int(slots[-1]) + 1)
    unread = [grid_slots(grid, part) for part in intersect(failed, [span])]
    return np.unique(np.concatenate([slots, *unread])).astype(np.int64)


def _profile(slots: Slots, grid: Grid, zone: str) -> tuple[list[WeeklyClosure], int, float]:
    if len(slots) == 0:
        return [], 0, 0.0
    step = max(1, grid.timeframe.length_us // MINUTE_US)
    local = pl.from_epoch(pl.Series(slots), time_unit="us").dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    local_us = local.dt.replace_time_zone(None).dt.epoch("us").to_numpy()
    monday = 4 * 1440
    minutes = local_us // MINUTE_US - monday
    week, place = minutes // WEEK_MINUTES, minutes % WEEK_MINUTES // step
    size = WEEK_MINUTES // step
    names, counts = np.unique(week, return_counts=True)
    whole = names[1:-1][counts[1:-1] >= np.median(counts) / 2]  # the first and the last one may be cut
    inside = np.isin(week, whole)
    pairs = np.unique(week[inside] * size + place[inside]) % size
    present = np.bincount(pairs.astype(np.int64), minlength=size) / max(1, len(whole))
    traded = float(np.median(present[present > 0.5])) if (present > 0.5).any() else 0.0
    silent = present <= NEVER
    if silent.all() or not silent.any() or traded == 0.0:
        return [], len(whole), traded
    closures = []
    start = int(np.flatnonzero(~silent)[0])  # begin the circle at an open slot
    run = 0
    for number in range(start, start + size + 1):
        if number < start + size and silent[number % size]:
            run += 1
        elif run:
            if len(whole) * run * math.log(max(1e-6, 1 - min(traded, 0.999))) < CHANCE:
                first = (number - run) % size * step
                closures.append(WeeklyClosure(first, first + run * step, "closed every week"))
            run = 0
    return sorted(_named(closures), key=lambda rule: rule.start), len(whole), traded


def _named(rules: list[WeeklyClosure]) -> list[WeeklyClosure]:
    saturday = 5 * 1440 + 720
    hours = [(rule.start % 1440, rule.end % 1440) for rule in rules]
    out = []
    for rule, hour in zip(rules, hours, strict=True):
        is_weekend = rule.start <= saturday < rule.end or rule.start <= saturday + WEEK_MINUTES < rule.end
        why = "weekend" if is_weekend else "daily break" if hours.count(hour) >= 3 else rule.why
        out.append(WeeklyClosure(rule.start, rule.end, why))
    return out


def _holidays(slots: Slots, grid: Grid, base: Calendar, failed: Sequence[Interval]) -> list[Closure]:
    expected = expected_slots(grid, base, Interval(int(slots[0]), grid.next(int(slots[-1]))))
    out = []
    for run in slot_runs(not_in(expected, slots), grid):
        name = holiday_name(run)
        if name is not None and run.end - run.start >= HOLIDAY_US and not intersect([run], failed):
            out.append(Closure(run, name))
    return out


def holiday_name(interval: Interval) -> str | None:
    """Return the holiday that a stretch of time touches, its eve and the day after included; None when it touches none."""
    zone = ZoneInfo("America/New_York")
    day, last = day_of(interval.start, zone), day_of(interval.end - 1 + 7 * HOUR_US, zone)  # the trading day turns at 17:00
    days = [day + timedelta(days=number) for number in range(min(14, (last - day).days) + 1)]
    for item in days:
        if (found := _day_name(item)) is not None:
            return found
    for item in days:
        for near, word in ((item + timedelta(days=1), "before"), (item - timedelta(days=1), "after")):
            if (found := _day_name(near)) is not None:
                return f"{word} {found}"
    return None


def _day_name(day: date) -> str | None:
    for calendar in HOLIDAYS:
        for found, name in holidays_of(calendar, day.year):
            if found == day:
                return name
    return _FIXED.get((day.month, day.day))


def _outages(feed: Feed, rows: Sequence[SeriesRow], grids: dict[int, Grid]) -> tuple[MarketCalendar, dict[str, object]]:
    """Return the times at which every dense series of an exchange was silent at once."""
    silent: list[Interval] | None = None
    spans: list[Interval] = []
    used: list[str] = []
    for row in rows:
        slots, grid = _stored(feed, row), grids[row.id]
        whole = Interval(int(slots[0]), grid.next(int(slots[-1])))
        if len(slots) < DENSE * grid.count(whole):
            continue
        runs = subtract([run for run in slot_runs(not_in(expected_slots(grid, MarketCalendar(), whole), slots), grid)
                         if run.end - run.start >= OUTAGE_US], _failed(feed, row))
        beside = subtract(spans, [whole])  # where only earlier series say something, their word stands
        silent = runs if silent is None else merge([*intersect(silent, [*runs, *beside]), *subtract(runs, spans)])
        spans = merge([*spans, whole])
        used.append(str(row.series))
    if not used:
        raise InputError("calendar", "no series that trades nearly all the time", f"one with {DENSE:.0%} of its candles",
                         "outages cannot be told from silence in quiet series")
    closures = tuple(Closure(part, "outage") for part in silent or [])
    return MarketCalendar(closures=closures), {"series": used, "outages": len(closures)}


def _finest(rows: Sequence[SeriesRow]) -> list[SeriesRow]:
    """Return one series of each symbol: its shortest timeframe."""
    best: dict[str, SeriesRow] = {}
    for row in rows:
        held = best.get(row.series.symbol)
        if held is None or row.series.timeframe < held.series.timeframe:
            best[row.series.symbol] = row
    return [best[name] for name in sorted(best)]


def _longest(rows: Sequence[SeriesRow]) -> SeriesRow | None:
    """Return the finest series among those that hold enough weeks, or else the one that holds most."""
    ordered = sorted(rows, key=lambda row: row.series.timeframe)
    long = [row for row in ordered if _length(row) >= (LEAST_WEEKS + 2) * WEEK_MINUTES * MINUTE_US]
    return next(iter(long), max(ordered, key=_length, default=None))


def _length(row: SeriesRow) -> int:
    return (row.last_us or 0) - (row.first_us or 0)


def _stored(feed: Feed, row: SeriesRow) -> Slots:
    return np.asarray(feed.lake.stored_slots(row.id, Interval(row.first_us or 0, (row.last_us or 0) + 1)), dtype=np.int64)


def _unread(feed: Feed, row: SeriesRow, slots: Slots, grid: Grid) -> list[Interval]:
    """Return what is no silence of the market: ranges that failed, and of a series that is asked for what nobody has asked yet."""
    with feed.lake.metadata.read() as tx:
        booked = [gap.interval for gap in booked_in(tx, row.id, Interval(row.first_us or 0, row.last_us or 0))]
    failed = _failed(feed, row)
    if not booked:  # imported: there never was anybody to ask
        return failed
    span = grid_slots(grid, Interval(int(slots[0]), int(slots[-1]) + 1))
    return merge([*failed, *slot_runs(without(not_in(span, slots), booked), grid)])


def _failed(feed: Feed, row: SeriesRow) -> list[Interval]:
    with feed.lake.metadata.read() as tx:
        gaps = booked_in(tx, row.id, Interval(row.first_us or 0, row.last_us or 0))
    return merge(gap.interval for gap in gaps if gap.cause in {"fetch_failed", "unknown", "out_of_reach"})

"""Finds the rules of a broker's wall clock, with their history, in its own hourly candles.

The FX week ends on Friday 17:00 New York time everywhere, so each week's last candle tells the clock's offset of that week.
A holiday ends a week early and makes the offset look smaller; nothing makes a week end late. Where a reference series on UTC
is at hand, the lag at which the two move together tells it without any market hours. The rules are those that explain the
readings with the fewest changes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from core.calendar import FX_CLOSE_HOUR, NEW_YORK
from core.clock import DAY_US, HOUR_US, MINUTE_US, to_datetime, to_us
from core.server_clock import ClockRule, DstRule, ServerClock

Times = npt.NDArray[np.int64]
Prices = npt.NDArray[np.float64]

_WEEK_US: Final = 7 * DAY_US
_QUARTER_US: Final = 15 * MINUTE_US
_FRIDAY_US: Final = DAY_US + 22 * HOUR_US  # 1970-01-02 22:00 UTC, New York's winter
_OFFSET_LIMIT_US: Final = 14 * HOUR_US
WEEK_COST: Final = 1.0  # a week that ended at another hour: holidays end it early, stray quotes late
LAG_COST: Final = 3.0  # a week that moved with the reference at another lag
DST_COST: Final = 1.5  # another rule for summer time, the same standard offset
OFFSET_COST: Final = 6.0  # another standard offset
LEAST_READINGS: Final = 4
LAGS: Final = tuple(range(-12, 15))  # hours
_LEAST_R, _CLEAR_R, _LEAST_HOURS = 0.3, 0.15, 60


@dataclass(frozen=True, slots=True)
class Reading:
    """The offset that one week shows. `is_hard`: it cannot be too small either (by correlation, or by an order's stamp)."""

    at_us: int  # UTC, the week's end
    offset_us: int
    is_hard: bool = False
    is_stamp: bool = False

    @property
    def by(self) -> str:
        """What shows it."""
        return "order stamp" if self.is_stamp else "correlation" if self.is_hard else "week end"


@dataclass(frozen=True, slots=True)
class Fit:
    """The clock that explains the readings, how many they were, and which of them it does not explain."""

    clock: ServerClock
    readings: int
    unexplained: tuple[Reading, ...]


def week_readings(hours_local_us: Times) -> list[Reading]:
    """Return what each weekend among hourly open times (wall clock, ascending) says about the offset."""
    local = np.unique(np.asarray(hours_local_us, dtype=np.int64))
    if len(local) < 2:
        return []
    pauses = np.diff(local) - HOUR_US
    out = []
    for place in np.flatnonzero((pauses >= 30 * HOUR_US) & (pauses <= 80 * HOUR_US)):
        close = int(local[place]) + HOUR_US
        friday = _friday_close(close)
        offset = round((close - friday) / _QUARTER_US) * _QUARTER_US
        if abs(offset) <= _OFFSET_LIMIT_US:
            out.append(Reading(friday, offset))
    return out


def lag_readings(local_us: Times, local_close: Prices, utc_us: Times, utc_close: Prices, weeks: int = 1) -> list[Reading]:
    """Return the offset of each stretch of `weeks`, as the lag at which hourly returns move with a reference on UTC.

    Both series ascending, one price an hour. A stretch in which no lag stands out says nothing.
    """
    if len(local_us) < 2 or len(utc_us) < 2:
        return []
    ours, theirs = _returns(local_us, local_close), _returns(utc_us, utc_close)
    first = max(int(local_us[0]), int(utc_us[0]))
    start = _friday_close(first) + 2 * DAY_US - _WEEK_US  # a Sunday
    last = min(int(local_us[-1]), int(utc_us[-1]))
    out = []
    while start < last:
        end = start + weeks * _WEEK_US
        best = _best_lag(ours, theirs, start, end)
        if best is not None:
            out.append(Reading(_friday_close(end - 3 * DAY_US), best * HOUR_US, is_hard=True))
        start = end
    return out


def fit(readings: Sequence[Reading]) -> Fit | None:
    """Return the rules that explain the readings at the least cost; None where they are too few."""
    ordered = sorted(readings, key=lambda item: item.at_us)
    if len(ordered) < LEAST_READINGS:
        return None
    rules = _candidates(ordered)
    costs = np.array([[_cost(reading, rule) for rule in rules] for reading in ordered])
    weeks, firsts = np.unique([item.at_us for item in ordered], return_index=True)  # one week has one rule, whatever it shows
    path = _cheapest(np.add.reduceat(costs, firsts, axis=0), np.array([[_change_cost(old, new) for old in rules] for new in rules]))
    found: list[ClockRule] = []
    for number, place in enumerate(path):
        rule = rules[place]
        if not found:
            found.append(rule)
        elif place != path[number - 1]:
            # Rules change while the market is closed: a day after the last week's end.
            found.append(ClockRule(int(weeks[number - 1]) + DAY_US, rule.offset_minutes, rule.dst))
    clock = ServerClock(tuple(found))
    return Fit(clock, len(ordered), tuple(item for item in ordered if clock.offset_us(item.at_us) != item.offset_us))


def contradictions(clock: ServerClock, readings: Sequence[Reading]) -> list[Reading]:
    """Return the readings that a clock is wrong about: where the rules that explain them best differ from it."""
    best = fit(readings)
    if best is None:
        return []
    return [item for item in sorted(readings, key=lambda item: item.at_us)
            if item.offset_us == best.clock.offset_us(item.at_us) != clock.offset_us(item.at_us)]


def _friday_close(near_us: int) -> int:
    """Return the week's end (Friday 17:00 New York, UTC microseconds) nearest to an instant."""
    guess = _FRIDAY_US + round((near_us - _FRIDAY_US) / _WEEK_US) * _WEEK_US
    day = to_datetime(guess).date()
    return to_us(datetime(day.year, day.month, day.day, FX_CLOSE_HOUR, tzinfo=NEW_YORK).astimezone(UTC))


def _returns(times: Times, close: Prices) -> tuple[Times, Prices]:
    follows = np.flatnonzero(np.diff(times) == HOUR_US) + 1
    return times[follows], np.log(close[follows] / close[follows - 1])


def _best_lag(ours: tuple[Times, Prices], theirs: tuple[Times, Prices], start: int, end: int) -> int | None:
    inside = slice(*np.searchsorted(theirs[0], [start, end]))
    times, moves = theirs[0][inside], theirs[1][inside]
    found = []
    for lag in LAGS:
        shifted = times + lag * HOUR_US
        places = np.minimum(np.searchsorted(ours[0], shifted), len(ours[0]) - 1)
        both = ours[0][places] == shifted
        if int(both.sum()) < _LEAST_HOURS:
            continue
        left, right = moves[both], ours[1][places[both]]
        spread = float(left.std() * right.std())
        found.append((abs(float(((left - left.mean()) * (right - right.mean())).mean())) / spread if spread > 0 else 0.0, lag))
    found.sort(reverse=True)
    if len(found) < 2 or found[0][0] < _LEAST_R or found[0][0] - found[1][0] < _CLEAR_R:
        return None
    return found[0][1]


def _candidates(readings: Sequence[Reading]) -> list[ClockRule]:
    offsets = sorted({item.offset_us // MINUTE_US - summer for item in readings for summer in (0, 60)})
    dsts: tuple[DstRule, ...] = ("eu", "us", "none")
    return [ClockRule(0, minutes, dst) for minutes, dst in itertools.product(offsets, dsts) if abs(minutes) <= 840]


def _cost(reading: Reading, rule: ClockRule) -> float:
    if rule.offset_us(reading.at_us) == reading.offset_us:
        return 0.0
    return LAG_COST if reading.is_hard else WEEK_COST


def _change_cost(old: ClockRule, new: ClockRule) -> float:
    if old == new:
        return 0.0
    return DST_COST if old.offset_minutes == new.offset_minutes else OFFSET_COST


def _cheapest(costs: npt.NDArray[np.float64], changes: npt.NDArray[np.float64]) -> list[int]:
    """Return for each reading the rule of the cheapest path through them (Viterbi); on a tie the rule stays."""
    total = costs[0].copy()
    back = np.zeros(costs.shape, dtype=np.int64)
    own = np.arange(costs.shape[1])
    for number in range(1, len(costs)):
        reached = changes + total[None, :]
        best = np.argmin(reached, axis=1)
        back[number] = np.where(reached[own, own] <= reached[own, best], own, best)
        total = reached[own, back[number]] + costs[number]
    path = [int(np.argmin(total))]
    for number in range(len(costs) - 1, 0, -1):
        path.append(int(back[number][path[-1]]))
    return path[::-1]


def reading_as_evidence(reading: Reading) -> dict[str, object]:
    """Return a reading as JSON-ready values."""
    return {"week_end": to_datetime(reading.at_us).isoformat(), "offset_minutes": reading.offset_us // MINUTE_US,
            "by": reading.by}


def stamp_readings(stamps: Sequence[tuple[int, int]]) -> list[Reading]:
    """Return what orders whose time is told in UTC and by the server's clock say of their week, once for each offset.

    A week reaches from the weekend before its Friday to that Friday's end: clocks change in between two of them.
    An offset that is no quarter of an hour is a slip of the stamp and says nothing.
    """
    found = {(_friday_close(utc + 3 * DAY_US), round((wall - utc) / _QUARTER_US) * _QUARTER_US) for utc, wall in stamps
             if abs((wall - utc + _QUARTER_US // 2) % _QUARTER_US - _QUARTER_US // 2) <= MINUTE_US}
    return [Reading(week, offset, is_hard=True, is_stamp=True) for week, offset in sorted(found) if abs(offset) <= _OFFSET_LIMIT_US]


def strength(readings: Sequence[Reading]) -> dict[str, object]:
    """Return by what readings a clock is judged and how strong that is, JSON-ready."""
    counted = {word: sum(item.by == word for item in readings) for word in ("correlation", "order stamp", "week end")}
    hard = counted["correlation"] + counted["order stamp"]
    word = "strong" if hard >= LEAST_READINGS else "weak" if len(readings) >= LEAST_READINGS else "none"
    return {"weeks_by": counted, "strength": word, "proved_by": [name for name, count in counted.items() if count]}

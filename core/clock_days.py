"""Finds the days on which a server's clock showed another hour than its rules say, though its weeks agree with them.

Rules are judged by weeks; a server that changes its clock in mid-week, or an export patched together, is wrong for days.
Each half day is asked at which offset it fits: the one of the rules, an hour less, or an hour more. Two things answer: its
hourly returns, where a reference on UTC is at hand that they move with, and its ticks an hour, which have a rhythm of their
own (`core.clock_rhythm`). The cheapest path through the half days tells the stretches at another hour. What lies at their edges
without speaking clearly for the rules counts as doubtful too. Nothing here says what the time was: only that the rules are
no ground to store those hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from core.clock import DAY_US, HOUR_US, MINUTE_US, isoformat, to_datetime
from core.clock_rhythm import HOURS, LEAST_HOURS, SHIFTS, rhythm_scores
from core.interval import Interval
from core.server_clock import ServerClock, dst_bounds_us

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
Hourly = tuple[Times, Values]  # open times ascending, closes; one an hour
Scores = dict[int, Values]  # by half day: the nats for each shift

BLOCK_US: Final = HOURS * HOUR_US
_LIMIT: Final = 2.5  # of a block's spread: one print of news decides no day by itself
_SWITCH: Final = 6.0  # nats that a change of the hour has to be worth
_LEAST_GAIN: Final = 20.0  # nats by which a stretch has to fit better at another hour
_LEAST_GAIN_RHYTHM: Final = 22.0  # the same where the rhythm alone speaks: holidays disturb it
_LEAST_GAIN_DST: Final = 9.0  # the same of returns between Europe's change and America's, where another rule is no surprise
_LEAST_RATE: Final = 0.6  # nats a block
_MOST: Final = 6.0  # nats that one block of one witness can tell
_CLEAR: Final = {"reference": 3.0, "rhythm": 6.0}  # nats by which a block beside a stretch has to speak for the rules
_DST_MARGIN_US: Final = 2 * DAY_US


class Hours(NamedTuple):
    """A series' hours: open times ascending, one an hour, their closes, and their ticks where they are counted."""

    times: Times
    close: Values
    volume: Values | None = None


@dataclass(frozen=True, slots=True)
class Doubt:
    """A stretch in which hours by the rules are not to be trusted. `interval`: UTC by the rules, both edges widened."""

    interval: Interval
    shown_us: int  # the offset that its hours show
    ruled_us: int  # the offset by the rules
    gain: Mapping[str, float]  # nats for the shown one, by what told them

    def as_evidence(self) -> dict[str, object]:
        """Return the stretch as JSON-ready values."""
        return {"from_us": self.interval.start, "to_us": self.interval.end, "from": isoformat(self.interval.start),
                "to": isoformat(self.interval.end), "shown_minutes": self.shown_us // MINUTE_US,
                "ruled_minutes": self.ruled_us // MINUTE_US, "nats": round(sum(self.gain.values()), 1),
                "nats_by": {name: round(nats, 1) for name, nats in self.gain.items()}}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found, and how many half days were held against what."""

    doubts: Sequence[Doubt] = ()
    half_days: Mapping[str, int] | None = None

    def as_evidence(self) -> dict[str, object]:
        """Return it as JSON-ready values."""
        held = {"half_days": dict(self.half_days)} if self.half_days else {}
        return held | ({"withheld": [doubt.as_evidence() for doubt in self.doubts]} if self.doubts else {})


def judge_days(clock: ServerClock, witnesses: Sequence[Hours], reference: Hourly | None = None) -> Judgement:
    """Hold each half day of the witnesses (series of one server, UTC by `clock`) against the reference and their own rhythm.

    More witnesses make it surer: one pair is weak evidence, three are not.
    """
    parts: dict[str, Scores] = {"rhythm": _sum([rhythm_scores(one.times, one.volume) for one in witnesses if one.volume is not None])}
    if reference is not None:
        theirs = _returns(reference)
        parts["reference"] = _sum([_scores(_returns(one[:2]), theirs) for one in witnesses])
    blocks = np.array(sorted(set().union(*parts.values())), dtype=np.int64)
    half_days = {name: len(scores) for name, scores in parts.items() if scores}
    if len(blocks) < 2:
        return Judgement((), half_days)
    nothing = np.zeros(len(SHIFTS))
    tables = {name: np.stack([scores.get(int(block), nothing) for block in blocks]) for name, scores in parts.items() if scores}
    return Judgement(tuple(_stretches(clock, blocks, tables)), half_days)


def _sum(scores: Sequence[Scores]) -> Scores:
    out: Scores = {}
    for one in scores:
        for block, nats in one.items():
            out[block] = out.get(block, np.zeros(len(SHIFTS))) + nats
    return out


def _stretches(clock: ServerClock, blocks: Times, tables: Mapping[str, Values]) -> list[Doubt]:
    """Return the stretches of the cheapest path at another hour that bring enough nats."""
    table = np.sum(list(tables.values()), axis=0)
    path = _cheapest(table)
    out = []
    for run in np.split(np.arange(len(path)), np.flatnonzero(np.diff(path)) + 1):
        shift = int(path[run[0]])
        gain = {name: float((part[run, shift] - part[run, 0]).sum()) for name, part in tables.items()}
        if shift and _is_enough(gain, int(blocks[run[0]]), int(blocks[run[-1]]) + 1, len(run)):
            first, last = _widened(table, run, shift, max(_CLEAR[name] for name in tables))
            interval = Interval(int(blocks[first]) * BLOCK_US - HOUR_US, (int(blocks[last]) + 1) * BLOCK_US + HOUR_US)
            ruled = clock.offset_us((interval.start + interval.end) // 2)
            out.append(Doubt(interval, ruled + SHIFTS[shift] * HOUR_US, ruled, gain))
    return out


def _is_enough(gain: Mapping[str, float], first: int, end: int, count: int) -> bool:
    """Whether a stretch of `count` blocks brings enough: of returns fewer nats where rules of summer time differ from each other.

    The rhythm itself is in disorder between two changes of summer time, so there it gets no such credit.
    """
    total, rate = sum(gain.values()), _LEAST_RATE * count
    returns = gain.get("reference", 0.0)
    least = _LEAST_GAIN if "reference" in gain else _LEAST_GAIN_RHYTHM
    return total >= max(least, rate) or (
        min(total, returns) >= max(_LEAST_GAIN_DST, rate) and _is_between_changes(first * BLOCK_US, end * BLOCK_US))


def _is_between_changes(start_us: int, end_us: int) -> bool:
    """Whether a stretch lies between Europe's change of summer time and America's."""
    year = to_datetime(start_us).year
    return any(min(eu, us) - _DST_MARGIN_US <= start_us and end_us <= max(eu, us) + _DST_MARGIN_US
               for eu, us in zip(dst_bounds_us("eu", year), dst_bounds_us("us", year), strict=True))


def _widened(table: Values, run: npt.NDArray[np.int64], shift: int, least: float) -> tuple[int, int]:
    """Return the run with all beside it that does not speak for the rules, and a block more: the clock may have changed in it."""
    first, last = int(run[0]), int(run[-1])
    clear = table[:, 0] - table[:, shift] >= least
    while first > 0 and not clear[first - 1]:
        first -= 1
    while last + 1 < len(table) and not clear[last + 1]:
        last += 1
    return max(0, first - 1), min(len(table) - 1, last + 1)


def _returns(series: Hourly) -> Hourly:
    times, close = series
    follows = np.flatnonzero(np.diff(times) == HOUR_US) + 1
    return times[follows], np.log(close[follows] / close[follows - 1])


def _scores(ours: Hourly, theirs: Hourly) -> Scores:
    """Return for each block the nats for each shift: what the correlation there tells, whatever its sign."""
    if len(ours[0]) == 0 or len(theirs[0]) == 0:
        return {}
    blocks, block_of = np.unique(ours[0] // BLOCK_US, return_inverse=True)
    table = np.zeros((len(blocks), len(SHIFTS)))
    whole = np.full(len(blocks), fill_value=True)
    for column, shift in enumerate(SHIFTS):
        # An hour too much in the offset shows our hours an hour early: at `-shift` they lie where the reference has them.
        wanted = ours[0] - shift * HOUR_US
        places = np.minimum(np.searchsorted(theirs[0], wanted), len(theirs[0]) - 1)
        both = theirs[0][places] == wanted
        where = block_of[both]
        count = np.bincount(where, minlength=len(blocks))
        left, right = (_limited(values, where, count) for values in (ours[1][both], theirs[1][places[both]]))
        sums = [np.bincount(where, weights=product, minlength=len(blocks)) for product in (left * right, left * left, right * right)]
        spread = sums[1] * sums[2]
        squared = np.divide(sums[0] ** 2, spread, out=np.zeros(len(blocks)), where=spread > 0)
        table[:, column] = -count / 2 * np.log1p(-np.minimum(squared, 0.98))
        whole &= count >= LEAST_HOURS
    table = table[:, :1] + np.clip(table - table[:, :1], -_MOST, _MOST)
    return {int(block): table[row] for row, block in enumerate(blocks) if whole[row]}


def _limited(values: Values, where: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> Values:
    """Return the values cut off at a few times their block's spread."""
    spread = np.sqrt(np.bincount(where, weights=values * values, minlength=len(count)) / np.maximum(count, 1))[where]
    return np.clip(values, -_LIMIT * spread, _LIMIT * spread)


def _cheapest(table: Values) -> npt.NDArray[np.int64]:
    """Return the shift of each block on the best path (Viterbi); on a tie it stays."""
    total, own = table[0].copy(), np.arange(table.shape[1])
    back = np.zeros(table.shape, dtype=np.int64)
    for row in range(1, len(table)):
        best = int(np.argmax(total))
        back[row] = np.where(total >= total[best] - _SWITCH, own, best)
        total = np.maximum(total, total[best] - _SWITCH) + table[row]
    path = np.zeros(len(table), dtype=np.int64)
    path[-1] = int(np.argmax(total))
    for row in range(len(table) - 1, 0, -1):
        path[row - 1] = back[row][path[row]]
    return path

"""A server's own rhythm as a witness of its clock: the hours of a day are busy or quiet alike from week to week.

Tokyo, London and New York wake and rest by their own clocks, and a MetaTrader candle counts its ticks. Weeks around a week show
how busy each of its hours ought to be; where a half day fits better an hour earlier or later, its clock stood elsewhere. This
needs no reference, but tells only that a stretch differs from its neighbours: a clock wrong for months has its own rhythm.
Mornings (UTC) are compared with weeks in which Europe has the same summer time, afternoons by America's.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from core.clock import DAY_US, HOUR_US
from core.server_clock import ClockRule

Times = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]

HOURS: Final = 12  # of a half day
SHIFTS: Final = (0, -1, 1)  # hours that its clock stood further on than its rules say
LEAST_HOURS: Final = 6  # fewer hours in a half day say nothing
_WEEK_US: Final = 7 * DAY_US
_MONDAY_US: Final = 4 * DAY_US  # 1970-01-05
_WEEK_HOURS: Final = 168
_NEIGHBOURS: Final = 8  # weeks that show how busy an hour ought to be
_LEAST_NEIGHBOURS: Final = 4
_FURTHEST: Final = 30  # weeks: further away a pair is traded otherwise
_LIMIT: Final = 1.5  # of the logarithm: one wild hour decides no half day
_FLOOR: Final = 0.005  # of the mean square: counts that never differ say nothing
_MOST: Final = 6.0  # nats that one half day can tell
_DAY_HOURS: Final = 24
_LEAST_ALIKE: Final = 0.45  # a market's hours are as busy as the hour and the day before: recorded ones agree at 0.57 and more


def rhythm_scores(times: Times, volume: Values) -> dict[int, Values]:
    """Return for each half day (its number since 1970) the nats for each of `SHIFTS`, compared with the first.

    `times`: hourly open times in UTC by the clock's rules, ascending, each once; `volume`: their ticks. Ticks without the
    rhythm of a market's days, such as made ones that repeat after some other number of hours, tell nothing.
    """
    if len(times) == 0:
        return {}
    weeks = (times - _MONDAY_US) // _WEEK_US
    first = int(weeks[0])
    busy = np.full((int(weeks[-1]) - first + 1, _WEEK_HOURS), np.nan)
    busy[weeks - first, (times - _MONDAY_US) % _WEEK_US // HOUR_US] = np.log(np.maximum(volume, 1.0))
    if min(_alike(busy, 1), _alike(busy, _DAY_HOURS)) < _LEAST_ALIKE:
        return {}
    usual = _usual(busy, first)
    misfits, counts = (np.stack(part, axis=-1) for part in zip(*(_misfit(busy, _later(usual, shift)) for shift in SHIFTS), strict=True))
    common, misfits = counts.min(axis=-1), misfits + _FLOOR
    tells = common >= LEAST_HOURS
    if not tells.any():
        return {}
    # A holiday fits at no hour: what it tells counts the less, the worse it fits where it fits best.
    worth = np.minimum(1.0, np.median(misfits[tells][:, 0]) / misfits.min(axis=-1))
    nats = -(worth * common / 2)[..., None] * np.log(misfits / misfits[..., :1])
    start = (first * _WEEK_US + _MONDAY_US) // (HOURS * HOUR_US)
    table, said = np.clip(nats, -_MOST, _MOST).reshape(-1, len(SHIFTS)), tells.ravel()
    return {start + int(row): table[row] for row in np.flatnonzero(said)}


def _alike(busy: Values, hours: int) -> float:
    """Return how well each hour agrees with the one `hours` before it: their correlation; 0.0 where nothing differs."""
    later, earlier = busy.ravel()[hours:], busy.ravel()[:-hours]
    known = np.isfinite(later) & np.isfinite(earlier)
    later, earlier = later[known], earlier[known]
    return float(np.corrcoef(later, earlier)[0, 1]) if len(later) and later.std() and earlier.std() else 0.0


def _usual(busy: Values, first: int) -> Values:
    """Return how busy each hour of each week ought to be, by the nearest weeks alike in summer time; NaN where unknown."""
    level = busy - (np.nansum(busy, axis=1) / np.maximum(np.isfinite(busy).sum(axis=1), 1))[:, None]
    middles = [(first + row) * _WEEK_US + _MONDAY_US + 2 * DAY_US for row in range(len(busy))]
    hour = np.arange(_WEEK_HOURS) % 24
    out = np.full_like(busy, np.nan)
    for rule, hours in ((ClockRule(0, 0, "eu"), hour < HOURS), (ClockRule(0, 0, "us"), hour >= HOURS)):
        summer = np.array([rule.offset_us(us) for us in middles])
        for row in range(len(busy)):
            alike = np.flatnonzero(summer == summer[row])
            apart = np.abs(alike - row)
            near = alike[(apart > 0) & (apart <= _FURTHEST)]
            near = near[np.argsort(np.abs(near - row), kind="stable")[:_NEIGHBOURS]]
            if len(near) >= _LEAST_NEIGHBOURS:
                told = hours & np.isfinite(level[near]).any(axis=0)
                out[row, told] = np.nanmedian(level[near][:, told], axis=0)
    return out


def _later(usual: Values, hours: int) -> Values:
    """Return for each hour what is usual `hours` before it."""
    out = np.full_like(usual, np.nan)
    if hours > 0:
        out[:, hours:] = usual[:, :-hours]
    elif hours < 0:
        out[:, :hours] = usual[:, -hours:]
    else:
        out[:] = usual
    return out


def _misfit(busy: Values, usual: Values) -> tuple[Values, Values]:
    """Return the mean square by which each half day's hours differ from what is usual, beside its level, and how many hours both have."""
    apart = (busy - usual).reshape(len(busy), -1, HOURS)
    known = np.isfinite(apart)
    counts = known.sum(axis=2)
    some = np.maximum(counts, 1)
    apart = np.where(known, apart, 0.0)
    apart = np.where(known, apart - (apart.sum(axis=2) / some)[..., None], 0.0)
    return (np.minimum(np.abs(apart), _LIMIT) ** 2).sum(axis=2) / some, counts.astype(np.float64)

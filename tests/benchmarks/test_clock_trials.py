"""benchmarks.clock_trials: an error is planted where it is said, and what was found is counted rightly."""

import numpy as np

from benchmarks.clock_trials import ODD, PAIRS, RULES, hours_of, places, planted, told
from core.clock import DAY_US, HOUR_US
from core.clock_days import Doubt
from core.interval import Interval


def doubt(part: Interval) -> Doubt:
    return Doubt(part, HOUR_US, 0, {"rhythm": 30.0})


def test_an_error_is_planted_and_counted_where_it_lies() -> None:
    """Hours inside move by an hour with their values, others stay; found, whole and wrongly doubted are told apart."""
    name, folder = next(iter(PAIRS.items()))
    series = hours_of(folder / f"mt5_{name}_H1_brokertime.parquet", RULES)
    part, by_us = next(places(series, 2, 1, np.random.default_rng(1)))
    altered = planted(series, part, by_us)
    closes = dict(zip(series.times.tolist(), series.close.tolist(), strict=True))
    inside = [us for us in closes if us in part]
    assert len(inside) >= 40
    moved = dict(zip(altered.times.tolist(), altered.close.tolist(), strict=True))
    assert sum(moved[us + by_us] == closes[us] for us in inside) >= len(inside) - 1  # at an edge two hours may meet
    far = [us for us in moved if us < part.start - 2 * HOUR_US or us > part.end + 2 * HOUR_US]
    assert all(moved[us] == closes[us] for us in far)
    elsewhere = Interval(part.start - 90 * DAY_US, part.start - 89 * DAY_US)
    assert told([], part, by_us) == (False, False, 0)
    assert told([doubt(part)], part, by_us) == (True, False, 0)
    assert told([doubt(Interval(part.start - DAY_US, part.end + DAY_US)), doubt(elsewhere), doubt(ODD)], part, by_us) == (True, True, 1)

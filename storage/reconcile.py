"""Reconciliation: one instrument as several connections tell it. What differs is shown; nothing is averaged or replaced.

Each connection is compared with each of the others, and is an outlier where more than half of them say so. Between two markets lies a basis (another currency, another price
feed) that moves slowly: it is taken out as a running median, and what is left is measured in the pair's own usual
deviation. Where only two connections tell a candle, the outlier is the one that left its own path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.clock import to_datetime

PRICES: Final = ("open", "high", "low", "close")
LAGS: Final = 5  # candles to either side
LEAST_DEVIATION: Final = 1e-3  # relative: below a tenth of a percent nothing is an outlier
SIGMAS: Final = 12.0  # of the usual deviation (a median's) around a candle, beyond which a price is an outlier
BASIS_CANDLES: Final = 25  # window of the running median that is the basis
USUAL_CANDLES: Final = 501  # window in which the usual deviation is taken: wild months are measured by themselves
RETURN_BOUND: Final = 8.0  # median returns, beyond which a return counts as so much
LEAST_COMMON: Final = 3  # candles that two tell; fewer say nothing of their basis
LEAST_RETURNS: Final = 20  # fewer say nothing of lead and lag

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outlier:
    """A price that leaves what the other connections say; `deviation` is relative to `expected`."""

    connection: str
    ts_us: int
    field: str
    value: float
    expected: float
    deviation: float


@dataclass(frozen=True, slots=True)
class PairRow:
    """Two connections compared, over the candles that both tell.

    Attributes:
        basis: median of left / right - 1 at the close.
        deviation: the usual (median absolute) distance from that basis, relative.
        lag: by how many candles `right` follows `left` (negative: leads), where returns agree best.
        correlation: of the returns at that lag; None with too few candles.
    """

    left: str
    right: str
    candles: int
    basis: float
    deviation: float
    lag: int | None
    correlation: float | None


@dataclass(frozen=True, slots=True)
class DayScore:
    """A connection's day: candles that others tell, those it has of them, outliers, and 0 to 100 for both together."""

    connection: str
    day: str
    told: int
    stored: int
    outliers: int
    score: float


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """All of it: pairs, outliers by time, scores by connection and day."""

    pairs: list[PairRow]
    outliers: list[Outlier]
    days: list[DayScore]


def reconcile(told: Mapping[str, pl.DataFrame], sigmas: float = SIGMAS) -> Reconciliation:
    """Compare what connections tell of one instrument.

    Args:
        told: by name, candles of one timeframe (ts, open, high, low, close), ascending; two or more.
        sigmas: how many usual deviations make an outlier.
    """
    names = sorted(told)
    times = np.unique(np.concatenate([told[name]["ts"].dt.epoch("us").to_numpy() for name in names]))
    logs = {name: _aligned(told[name], times) for name in names}
    pairs = [_pair(left, right, logs) for number, left in enumerate(names) for right in names[number + 1:]]
    outliers = sorted({found for name in names for found in _outliers(name, names, logs, times, sigmas)},
                      key=lambda item: (item.ts_us, item.connection, item.field))
    return Reconciliation(pairs, outliers, _days(names, logs, times, outliers))


def _aligned(frame: pl.DataFrame, times: NDArray[np.int64]) -> Floats:
    """Return logarithms of the four prices on the common times, NaN where nothing is told: (4, times)."""
    out = np.full((len(PRICES), len(times)), np.nan)
    place = np.searchsorted(times, frame["ts"].dt.epoch("us").to_numpy())
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, field in enumerate(PRICES):
            out[number, place] = np.log(frame[field].to_numpy())
    return out


def _pair(left: str, right: str, logs: Mapping[str, Floats]) -> PairRow:
    close = PRICES.index("close")
    apart = logs[left][close] - logs[right][close]
    both = ~np.isnan(apart)
    if not both.any():
        return PairRow(left, right, 0, 0.0, 0.0, None, None)
    basis = float(np.median(apart[both]))
    usual = float(np.median(np.abs(apart[both] - _running_median(apart[both]))))
    lag, correlation = _lag(logs[left][close], logs[right][close])
    return PairRow(left, right, int(both.sum()), float(np.expm1(basis)), usual, lag, correlation)


def _lag(left: Floats, right: Floats) -> tuple[int | None, float | None]:
    one, two = _tamed(np.diff(left)), _tamed(np.diff(right))
    best: tuple[int | None, float | None] = (None, None)
    for lag in sorted(range(-LAGS, LAGS + 1), key=abs):
        a, b = (one[:len(one) - lag], two[lag:]) if lag >= 0 else (one[-lag:], two[:len(two) + lag])
        good = ~(np.isnan(a) | np.isnan(b))
        if good.sum() < LEAST_RETURNS or not a[good].std() or not b[good].std():
            continue
        value = float(np.corrcoef(a[good], b[good])[0, 1])
        if best[1] is None or value > best[1]:
            best = (lag, value)
    return best


def _tamed(returns: Floats) -> Floats:
    """Return the returns with extreme ones cut to a bound: a single bad print must not decide where two series agree."""
    known = returns[~np.isnan(returns)]
    bound = RETURN_BOUND * float(np.median(np.abs(known))) if len(known) else 0.0
    return returns if bound == 0.0 else np.clip(returns, -bound, bound)


def _outliers(
    name: str, names: Sequence[str], logs: Mapping[str, Floats], times: NDArray[np.int64], sigmas: float,
) -> list[Outlier]:
    """Return the prices of one connection that more than half of the others find far off."""
    others = [logs[other] for other in names if other != name]
    found = []
    for number, field in enumerate(PRICES):
        own = logs[name][number]
        left = np.stack([_distance(own, other[number]) for other in others])
        far = np.stack([_is_far(row, sigmas) for row in left])
        told = (~np.isnan(left)).sum(axis=0)
        for at in np.flatnonzero((far.sum(axis=0) * 2 > told) & (told > 0)):
            if told[at] == 1 and not _left_its_path(own, np.stack([other[number] for other in others]), int(at)):
                continue  # the other one is the outlier
            away = float(np.median(left[far[:, at], at]))
            found.append(Outlier(name, int(times[at]), field, _price(own[at]), _price(own[at] - away), float(np.expm1(away))))
    return found


def _distance(own: Floats, other: Floats) -> Floats:
    """Return how far one is from the other, their basis taken out; NaN where not both tell."""
    apart = own - other
    both = ~np.isnan(apart)
    apart[both] -= _running_median(apart[both])
    return apart


def _is_far(left: Floats, sigmas: float) -> NDArray[np.bool_]:
    far = np.zeros(len(left), dtype=bool)
    both = ~np.isnan(left)
    if both.sum() >= LEAST_COMMON:
        away = np.abs(left[both])
        far[both] = away > np.maximum(sigmas * _running_median(away, USUAL_CANDLES), LEAST_DEVIATION)
    return far


def _price(logarithm: float) -> float:
    return float(f"{np.exp(logarithm):.10g}")  # what the way through the logarithm adds is no price


def _left_its_path(own: Floats, others: Floats, at: int) -> bool:
    """Whether a connection's price is farther from its own neighbours than the only other one's is from its own."""
    other = others[np.flatnonzero(~np.isnan(others[:, at]))[0]]
    return _step(own, at) > _step(other, at)


def _step(values: Floats, at: int) -> float:
    near = np.concatenate([values[max(0, at - 3):at], values[at + 1:at + 4]])
    near = near[~np.isnan(near)]
    return 0.0 if len(near) == 0 else float(abs(values[at] - np.median(near)))


def _running_median(values: Floats, window: int = BASIS_CANDLES) -> Floats:
    return pl.Series(values).rolling_median(window, min_samples=1, center=True).to_numpy()


def _days(
    names: Sequence[str], logs: Mapping[str, Floats], times: NDArray[np.int64], outliers: Sequence[Outlier],
) -> list[DayScore]:
    close = PRICES.index("close")
    told = {name: ~np.isnan(logs[name][close]) for name in names}
    wrong = Counter((who, day) for who, day, _ in {
        (item.connection, to_datetime(item.ts_us).date().isoformat(), item.ts_us) for item in outliers})
    days = pl.Series(times).cast(pl.Datetime("us")).dt.date().cast(pl.String)
    out = []
    for name in names:
        by_others = np.any([told[other] for other in names if other != name], axis=0)
        counted = pl.DataFrame({"day": days, "told": by_others, "stored": by_others & told[name]}).group_by("day").agg(
            pl.col("told").sum(), pl.col("stored").sum())
        for day, others, stored in counted.iter_rows():
            bad = wrong[name, day]
            score = 100.0 if others == 0 else 100.0 * max(0, stored - bad) / others
            out.append(DayScore(name, day, others, stored, bad, round(score, 2)))
    return sorted(out, key=lambda item: (item.day, item.connection))

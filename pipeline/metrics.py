"""Numbers about runs and signals: times of stages, and what prices did after signals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.stages import KINDS, Kind

Z95: Final = 1.959963984540054  # two-sided 95 % of a normal distribution
BASIS_POINTS: Final = 10_000.0


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """Time of one stage's runs, in milliseconds, and how many ended in an error."""

    stage: str
    count: int
    mean_ms: float
    p95_ms: float
    errors: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"stage": self.stage, "count": self.count, "mean_ms": round(self.mean_ms, 3), "p95_ms": round(self.p95_ms, 3),
                "errors": self.errors}


def stage_statistics(runs: Iterable[tuple[str, str, float]]) -> list[StageStatistics]:
    """Return the statistics of (stage, status, milliseconds), in running order."""
    by_stage: dict[str, list[tuple[str, float]]] = {}
    for stage, status, ms in runs:
        by_stage.setdefault(stage, []).append((status, ms))
    out = []
    for stage in KINDS:
        found = by_stage.get(stage, [])
        if found:
            times = np.array([ms for _, ms in found])
            out.append(StageStatistics(
                stage, len(found), float(times.mean()), float(np.percentile(times, 95)), sum(s == "error" for s, _ in found)))
    return out


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the price did in the `horizon` candles after signals, in the signal's direction; basis points, costs left out.

    `low` and `high` bound the mean's 95 % confidence interval. None where there are too few signals.
    """

    horizon: int
    signals: int
    mean: float | None
    low: float | None
    high: float | None
    won: float | None  # share of signals that the price followed
    won_low: float | None
    won_high: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {name: (round(value, 4) if isinstance(value, float) else value) for name, value in (
            ("horizon", self.horizon), ("signals", self.signals), ("mean_bp", self.mean), ("low_bp", self.low),
            ("high_bp", self.high), ("won", self.won), ("won_low", self.won_low), ("won_high", self.won_high))}


def returns_after(signals: pl.DataFrame, candles: pl.DataFrame, horizon: int) -> NDArray[np.float64]:
    """Return each signal's gain over `horizon` candles in basis points; NaN where the candles end before that.

    Entry is the open of the next candle, exit the close `horizon` candles after the signal's: what a trader could have had.
    """
    at = candles["ts"].search_sorted(signals["ts"]).to_numpy().astype(np.int64)
    entry_at, exit_at = at + 1, at + horizon
    known = exit_at < len(candles)
    opens, closes = candles["open"].to_numpy(), candles["close"].to_numpy()
    out = np.full(len(signals), np.nan)
    out[known] = (closes[exit_at[known]] / opens[entry_at[known]] - 1.0) * BASIS_POINTS * signals["side"].to_numpy()[known]
    return out


def outcomes(gains: NDArray[np.float64], horizon: int) -> Outcomes:
    """Return the mean gain and the share of winners with 95 % intervals.

    Signals closer together than the horizon share candles and are no independent witnesses: the mean's interval is that of
    means over blocks of neighbouring signals.
    """
    known = gains[~np.isnan(gains)]
    count = len(known)
    if count < 2:
        return Outcomes(horizon, count, *(None,) * 6)
    mean = float(known.mean())
    margin = interval_margin(known)
    won = float((known > 0).mean())
    low, high = wilson(won, count)
    return Outcomes(horizon, count, mean, mean - margin, mean + margin, won, low, high)


def interval_margin(values: NDArray[np.float64]) -> float:
    """Return half the width of the 95 % interval of the mean, by means of blocks (about the cube root of the count long)."""
    length = max(1, round(len(values) ** (1 / 3)))
    blocks = len(values) // length
    if blocks < 2:
        return float("inf")
    means = values[: blocks * length].reshape(blocks, length).mean(axis=1)
    return float(Z95 * means.std(ddof=1) / math.sqrt(blocks))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share."""
    scale = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / scale
    margin = Z95 / scale * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return middle - margin, middle + margin


def signal_statistics(signals: pl.DataFrame, threshold: float, candles: int) -> dict[str, Any]:
    """Return how many signals there are, of which side, how sure, and how often."""
    count = len(signals)
    confidence = signals["confidence"].to_numpy()
    return {
        "signals": count, "buys": int((signals["side"] > 0).sum()), "sells": int((signals["side"] < 0).sum()),
        "actionable": int((confidence >= threshold).sum()),
        "mean_confidence": round(float(confidence.mean()), 3) if count else None,
        "per_1000_candles": round(1000 * count / candles, 3) if candles else None,
    }


__all__ = ["Kind", "Outcomes", "StageStatistics", "interval_margin", "outcomes", "returns_after", "signal_statistics",
           "stage_statistics", "wilson"]

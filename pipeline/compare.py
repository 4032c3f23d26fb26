"""Compares two pipelines that judged the same candles: how often they agree, what came of each, and whether that can tell.

Signals of the two are paired by candle. Gains are those of `metrics.returns_after`, costs left out. Whether one is better
is judged by the difference of their mean gains with a 95 % interval, and by how many signals it would take to see a
difference as large as the one found (power 80 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from pipeline.metrics import Outcomes, interval_margin, outcomes, returns_after
from pipeline.replay import SeriesReplay
from pipeline.stages import Context

POWER80: Final = 0.8416212335729143  # one-sided 80 % of a normal distribution
Z95: Final = 1.959963984540054
LEAST_SIGNALS: Final = 30  # below it an interval says more about luck than about a pipeline


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    pipeline: str
    version: int
    signals: int
    outcomes: Outcomes

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"pipeline": self.pipeline, "version": self.version, "signals": self.signals, **self.outcomes.as_dict()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two pipelines on one series. Differences are challenger minus champion, in basis points."""

    series: str
    candles: int
    champion: Side
    challenger: Side
    both: int  # candles on which both gave a signal
    agree: int  # of these, those with the same side
    difference: float | None
    low: float | None
    high: float | None
    signals_needed: int | None

    @property
    def agreement(self) -> float | None:
        """Share of candles with the same signal among those on which either gave one."""
        either = self.champion.signals + self.challenger.signals - self.both
        return self.agree / either if either else None

    @property
    def can_tell(self) -> bool:
        """Whether there are enough candles: the interval of the difference leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """One line for a person."""
        fewest = min(self.champion.outcomes.signals, self.challenger.outcomes.signals)
        if fewest < LEAST_SIGNALS or self.difference is None:
            return f"too few signals to tell: {fewest} of at least {LEAST_SIGNALS}; take a longer range"
        if self.can_tell:
            better = self.challenger if self.difference > 0 else self.champion
            return f"{better.pipeline} did better by {abs(self.difference):.2f} bp a signal (95 %: {self.low:.2f} to {self.high:.2f})"
        if self.difference == 0:
            return "no difference at all: both did the same"
        return (
            f"not enough candles to tell: a difference of {self.difference:.2f} bp (95 %: {self.low:.2f} to {self.high:.2f}) "
            f"would take about {self.signals_needed} signals of each")

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "series": self.series, "candles": self.candles, "champion": self.champion.as_dict(),
            "challenger": self.challenger.as_dict(), "both": self.both, "agree": self.agree,
            "agreement": _round(self.agreement), "difference_bp": _round(self.difference), "low_bp": _round(self.low),
            "high_bp": _round(self.high), "signals_needed": self.signals_needed, "can_tell": self.can_tell, "verdict": self.verdict,
        }


def compare(champion: SeriesReplay, challenger: SeriesReplay, candles: pl.DataFrame, horizon: int) -> Comparison:
    """Compare two replays of one series.

    Args:
        champion: the replay of the one in use.
        challenger: the replay of the other, over the same candles.
        candles: those candles; outcomes are looked up in them.
        horizon: how many candles after a signal its outcome is taken.
    """
    return shadow_comparison(
        (champion.context, challenger.context), (champion.signals, challenger.signals), candles, champion.candles, horizon)


def shadow_comparison(
    contexts: tuple[Context, Context], signals: tuple[pl.DataFrame, pl.DataFrame], candles: pl.DataFrame, judged: int, horizon: int,
) -> Comparison:
    """Compare the signals of two pipelines on `judged` candles that both saw alike."""
    gains = [returns_after(found, candles, horizon) for found in signals]
    sides = [
        Side(context.pipeline, context.version, len(found), outcomes(gain, horizon))
        for context, found, gain in zip(contexts, signals, gains, strict=True)]
    paired = signals[0].select("ts", "side").join(signals[1].select("ts", other="side"), on="ts")
    difference, low, high, needed = _difference(*(gain[~np.isnan(gain)] for gain in gains))
    return Comparison(
        str(contexts[0].series), judged, sides[0], sides[1], len(paired), int((paired["side"] == paired["other"]).sum()),
        difference, low, high, needed)


def _difference(
    champion: NDArray[np.float64], challenger: NDArray[np.float64],
) -> tuple[float | None, float | None, float | None, int | None]:
    if len(champion) < 2 or len(challenger) < 2:
        return None, None, None, None
    found = float(challenger.mean() - champion.mean())
    margin = math.hypot(interval_margin(champion), interval_margin(challenger))
    if not math.isfinite(margin):
        return found, None, None, None
    variance = float(champion.var(ddof=1) + challenger.var(ddof=1))
    needed = None if found == 0 else math.ceil((Z95 + POWER80) ** 2 * variance / found**2)
    return found, found - margin, found + margin, needed


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)

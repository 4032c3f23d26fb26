"""Delays of every tick, not of a sample: each run of ticks that came together counts as often as it has ticks."""

from __future__ import annotations

from collections.abc import Iterable


class Delays:
    """Seconds with how many ticks each; quantiles of all ticks. No dependency: a peer's environment has none."""

    def __init__(self) -> None:
        self._runs: list[tuple[float, int]] = []

    def add(self, seconds: float, ticks: int = 1) -> None:
        """Note that so many ticks took so long."""
        self._runs.append((seconds, ticks))

    def add_all(self, seconds: Iterable[float]) -> None:
        """Note one tick each."""
        self._runs += [(each, 1) for each in seconds]

    @property
    def count(self) -> int:
        """How many ticks were noted."""
        return sum(ticks for _, ticks in self._runs)

    def ms(self, share: float) -> float:
        """Return the delay below which so large a share of the ticks stayed, milliseconds."""
        left = share * self.count
        for seconds, ticks in sorted(self._runs):
            left -= ticks
            if left <= 0:
                return round(seconds * 1000, 1)
        return 0.0

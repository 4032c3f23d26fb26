"""Delays of every tick, not of a sample: each run of ticks that came together counts as often as it has ticks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Delays:
    """Seconds with how many ticks each; quantiles of all ticks. No dependency: a peer's environment has none.

    Bare numbers in arrays: objects would burden the memory that is measured, and the garbage collector.
    """

    def __init__(self) -> None:
        self._seconds, self._ticks = array("d"), array("l")

    def add(self, seconds: float, ticks: int = 1) -> None:
        """Note that so many ticks took so long."""
        self._seconds.append(seconds)
        self._ticks.append(ticks)

    def add_all(self, seconds: Iterable[float]) -> None:
        """Note one tick each."""
        before = len(self._seconds)
        self._seconds.extend(seconds)
        self._ticks.extend([1] * (len(self._seconds) - before))

    @property
    def count(self) -> int:
        """How many ticks were noted."""
        return sum(self._ticks)

    def ms(self, share: float) -> float:
        """Return the delay below which so large a share of the ticks stayed, milliseconds."""
        left = share * self.count
        for seconds, ticks in sorted(zip(self._seconds, self._ticks, strict=True)):
            left -= ticks
            if left <= 0:
                return round(seconds * 1000, 1)
        return 0.0

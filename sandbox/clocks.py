"""A clock that runs faster than the machine's: a day of a replay in a minute."""

from __future__ import annotations

import time

from core.clock import SECOND_US


class FastClock:
    """Begins at `start_us` and runs `speed` times as fast as the machine's steady clock."""

    def __init__(self, start_us: int, speed: float) -> None:
        self._start_us, self._speed, self._begun = start_us, speed, time.monotonic()

    def now_us(self) -> int:
        """Return the present, in microseconds since 1970 UTC."""
        return self._start_us + round((time.monotonic() - self._begun) * self._speed * SECOND_US)

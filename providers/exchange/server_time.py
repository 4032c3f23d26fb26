"""The exchange's clock: measured against ours, and measured again when ours was moved."""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from core.clock import SECOND_US, to_us
from core.errors import InputError
from providers.exchange.wire import Call

LIFETIME_US: Final = 600 * SECOND_US
DRIFT_US: Final = 2 * SECOND_US  # between our wall clock and the steady one, beyond which somebody moved ours


@dataclass(frozen=True, slots=True)
class ServerTime:
    """How far the exchange's clock was ahead of ours (`offset_us`), at `wall_us` by ours and `steady_us` by the steady clock.

    It was counted from after the answer, so it is behind by up to a round trip and never ahead: no open candle is taken for
    a closed one.
    """

    offset_us: int
    wall_us: int
    steady_us: int

    def now_us(self, wall_us: int) -> int:
        """Return the exchange's time when ours is `wall_us`."""
        return wall_us + self.offset_us

    def holds(self, wall_us: int, steady_us: int) -> bool:
        """Whether the measure is young, and our clock went on as the steady one did."""
        gone = steady_us - self.steady_us
        return gone < LIFETIME_US and abs(wall_us - self.wall_us - gone) < DRIFT_US


def steady_us() -> int:
    """Return a clock that nobody moves, for spans of time alone."""
    return time.monotonic_ns() // 1_000


def date_us(call: Call) -> int | None:
    """Return the Date of the last answer, None when it has none that can be read."""
    headers = call.answers[-1].headers if call.answers else {}
    text = next((value for name, value in headers.items() if name.lower() == "date"), "")
    try:
        return to_us(parsedate_to_datetime(text))
    except (ValueError, InputError, OverflowError):
        return None

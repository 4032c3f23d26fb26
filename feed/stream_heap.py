"""What a process holds when a stream's session begins, kept out of the garbage collector's way."""

from __future__ import annotations

import gc
import time
from typing import Final

SETTLE_SECONDS: Final = 60.0  # between two rounds of `Heap.settle`


class Heap:
    """What the process holds when a session's subscriptions stand, above all the library and the markets of an exchange.

    Each full round of the garbage collector looks at all of it and stops the stream for hundreds of milliseconds, every
    few seconds when ticks come by the ten thousand. What is there before the first tick is set aside until the next session.
    """

    def __init__(self) -> None:
        self._settled: float | None = None

    def settle(self) -> None:
        """Free what is garbage and set aside the rest; at most once a minute: sessions may end as fast as they begin."""
        now = time.monotonic()
        if self._settled is None or now - self._settled > SETTLE_SECONDS:
            self._settled = now
            gc.unfreeze()
            gc.collect()
            gc.freeze()


HEAP: Final = Heap()

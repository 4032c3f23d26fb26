"""Candles to work on: a random walk that every process makes for itself, the same from the same seed.

Needs NumPy alone, because it also runs in the peers' own environments.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MINUTE_US = 60_000_000
START_US = 1_451_606_400_000_000  # 2016-01-01
NAMES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Columns:
    """Candles as arrays: `ts` int64 microseconds since 1970 UTC, ascending; `values` float64 by NAMES."""

    ts: NDArray[np.int64]
    values: dict[str, NDArray[np.float64]]

    def digest(self) -> str:
        """Return a digest of every bit: two answers are equal only if all their values are."""
        parts = [np.ascontiguousarray(self.ts, np.int64), *(np.ascontiguousarray(self.values[name], np.float64) for name in NAMES)]
        seen = hashlib.sha256(str(len(self.ts)).encode())
        for part in parts:
            seen.update(part.tobytes())
        return seen.hexdigest()[:16]


def candles(seed: int, first: int, rows: int, raised: float = 0.0) -> Columns:
    """Return minutes `first` to `first + rows` of the market `seed`; `raised` is added to the volume (a correction)."""
    whole = _walk(seed, _size(first + rows))
    values = {name: column[first:first + rows].copy() for name, column in whole.items()}
    values["volume"] += raised
    return Columns(START_US + MINUTE_US * np.arange(first, first + rows, dtype=np.int64), values)


def _size(rows: int) -> int:
    return max(16_384, 1 << (rows - 1).bit_length())


@lru_cache(maxsize=4)
def _walk(seed: int, rows: int) -> dict[str, NDArray[np.float64]]:
    # One generator a column: a longer walk then begins with the shorter one.
    step, up, down, volume = (np.random.default_rng([seed, column]) for column in range(4))
    close = np.round(30_000 + np.cumsum(step.standard_normal(rows) * 5) % 20_000, 2)
    open_ = np.concatenate([[30_000.0], close[:-1]])
    high = np.round(np.maximum(open_, close) + up.exponential(3, rows), 2)
    low = np.round(np.minimum(open_, close) - down.exponential(3, rows), 2)
    return {"open": open_, "high": high, "low": low, "close": close, "volume": np.round(volume.exponential(20, rows), 5)}

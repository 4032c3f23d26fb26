# ruff: noqa: T201  its parent reads what it prints
"""Writes and flushes one series, as one of several machines, or until it is killed; prints what the store acknowledged."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from core.clock import MINUTE_US
from core.errors import StoreBusyError
from storage import Batch, open_lake
from tests.storage.conftest import START_US, candles

STEP = 50


def main(home: str, turn: int, steps: int, first: int | None) -> None:
    """Write `steps` parts; every second one, from `turn` on, unless `first` says where to begin."""
    lake = open_lake(Path(home))
    for step in range(steps):
        slot = STEP * (2 * step + turn) if first is None else first + STEP * step
        lake.write([Batch(1, candles(START_US + slot * MINUTE_US, STEP), "rest")], run_id="r")
        with suppress(StoreBusyError):  # overtaken again and again: what was stored waits in the head for the next flush
            lake.flush()
        print("stored", slot + STEP, flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)

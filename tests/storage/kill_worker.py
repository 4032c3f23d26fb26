# ruff: noqa: T201  its parent reads what it prints
"""Writes, revises, flushes and retains without end, until it is killed; prints what the store acknowledged."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from core.clock import MINUTE_US
from storage import Batch, open_lake
from tests.storage.conftest import START_US, candles


def main(home: str, seed: int, first: int) -> None:
    """Work on `home` from slot `first` on; each acknowledged step is one line: kind, slot, count or price."""
    dice = random.Random(seed)
    lake = open_lake(Path(home))
    print("ready", flush=True)
    slot = first
    while True:
        count = dice.randint(1, 400)
        lake.write([Batch(series, candles(START_US + slot * MINUTE_US, count, price=float(slot)), "rest")
                    for series in (1, 2)], run_id="r")
        print("stored", slot, count, flush=True)
        slot += count
        step = dice.random()
        if step < 0.6:
            lake.flush()
        elif step < 0.75:
            plan = lake.plan_retention(START_US + (slot - 3000) * MINUTE_US)
            print("retaining", slot - 3000, 0, flush=True)
            lake.apply_retention(plan)
        elif step < 0.9:
            lake.import_candles(1, candles(START_US + slot * MINUTE_US, 50, price=float(slot)), run_id="i")
            lake.import_candles(2, candles(START_US + slot * MINUTE_US, 50, price=float(slot)), run_id="i")
            print("stored", slot, 50, flush=True)
            slot += 50
        else:
            lake.sweep()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

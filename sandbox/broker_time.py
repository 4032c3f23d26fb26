"""The clocks of recorded files whose times are a broker's wall clock: `brokertime.json` beside them tells each one's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from core.errors import InputError
from core.server_clock import ServerClock
from sandbox.market import WallClock

CLOCKS: Final = "brokertime.json"
_SHAPE: Final = '{"mt5_EURUSD_H1_brokertime": [{"offset_minutes": 120, "dst": "eu"}, {"since": "2015-01-01", ...}]}'


def read_clocks(folder: Path) -> dict[str, ServerClock]:
    """Return the clock of each file that the folder's `brokertime.json` names, by the file's name without its ending.

    Raises:
        InputError: the file is not an object of clocks in the shape of a connection's `server_clock`.
    """
    path = folder / CLOCKS
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"file {path.name}", type(error).__name__, _SHAPE, "correct it, or remove it") from error
    if not isinstance(told, Mapping):
        raise InputError(f"file {path.name}", type(told).__name__, _SHAPE, "correct it, or remove it")
    found = {name: ServerClock.from_config({"server_clock": rules}) for name, rules in told.items()}
    return {name: clock for name, clock in found.items() if clock is not None}


def to_utc(frame: pl.DataFrame, clock: ServerClock | WallClock) -> pl.DataFrame:
    """Return `frame` with its `us`, wall-clock readings, turned to UTC."""
    first, last = int(frame.select(pl.col("us").min()).item()), int(frame.select(pl.col("us").max()).item())
    if isinstance(clock, WallClock):
        return frame.with_columns(us=clock.to_utc("us", first, last))
    out = pl.lit(None, dtype=pl.Int64)
    for number, rule in enumerate(clock.rules):
        wall = WallClock(rule.offset_minutes, rule.dst)
        begun = pl.col("us") >= wall.wall(rule.since_us) if number else pl.lit(value=True)
        out = pl.when(begun).then(wall.to_utc("us", first, last)).otherwise(out)
    return frame.with_columns(us=out)

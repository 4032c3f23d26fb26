"""Candles of a longer timeframe made of a stored series' when somebody looks at them; nothing of it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

from console.readings import CANDLES_MAX, NEAR
from core.clock import EARLIEST_US, isoformat, parse_instant
from core.derive import DERIVED_SCHEMA, derived_timeframe
from core.errors import InputError
from core.series import Series
from core.timeframe import Timeframe
from feed.context import Feed
from storage.series import find_series

PARTS_MAX: Final = 2_000_000  # slots of the stored series that one answer is made of
OFFERED: Final = ("5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1w")
ANCHORS: Final = {"utc": "UTC", "server": "the broker's midnight", "new_york": "New York 17:00"}


def base_of(timeframes: Sequence[str], wanted: str) -> str | None:
    """Return the shortest stored timeframe that `wanted` can be made of, None when there is none."""
    length = derived_timeframe(wanted).length_us
    fitting = [found for found in map(Timeframe.parse, timeframes) if not found.is_month and found.length_us < length and not length % found.length_us]
    return min(fitting, key=lambda found: found.length_us).name if fitting else None


def offered(timeframes: Sequence[str]) -> list[str]:
    """Return the timeframes that are not stored and can be made of one that is."""
    return [name for name in OFFERED if name not in timeframes and base_of(timeframes, name)]


def derived_candles(feed: Feed, base: Series, timeframe: str, anchor: str, asked: dict[str, Any]) -> pl.DataFrame:
    """Return the newest derived candles of a range, ascending: `core.derive.DERIVED_SCHEMA`.

    Args:
        feed: the open home.
        base: the stored series that they are made of.
        timeframe: of the candles to make.
        anchor: what cuts them: utc, server or new_york.
        asked: start, end, limit and as_of as `readings.candles` takes them; without a start there may be fewer candles
            than `limit`, those of the newest `PARTS_MAX` slots.

    Raises:
        InputError: a timeframe or an anchor that cannot be made of it, or a range of more than `PARTS_MAX` slots.
    """
    limit = asked["limit"]
    if not 1 <= limit <= CANDLES_MAX:
        raise InputError("limit", limit, f"1 to {CANDLES_MAX}", "ask for the next ones with end=<the first ts you have>")
    length, most = derived_timeframe(timeframe).length_us, PARTS_MAX * base.timeframe.length_us
    with feed.lake.metadata.read() as tx:
        last_us = find_series(tx, base).last_us
    if last_us is None:
        return pl.DataFrame(schema=DERIVED_SCHEMA)
    end_us = last_us + 1 if asked["end"] is None else parse_instant(asked["end"], "end")
    if asked["start"] is None:
        start_us = max(EARLIEST_US, end_us - min(NEAR * limit * length, most))
    else:
        start_us = parse_instant(asked["start"], "start")
        if min(end_us, last_us) - start_us > most:
            raise InputError("range", f"more than {PARTS_MAX} slots of {base.timeframe}", "a shorter one", "ask for the rest with another request")
    found = feed.lake.candles(base.connection, base.symbol, timeframe, start=isoformat(start_us), end=isoformat(max(end_us, start_us + 1)),
                              as_of=asked["as_of"], derive_from=base.timeframe.name, anchor=anchor)
    return found.tail(limit)

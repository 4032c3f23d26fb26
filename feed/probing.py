"""Where candles begin again, as a longer timeframe tells it: years before a listing then cost a few requests."""

from __future__ import annotations

from dataclasses import dataclass

from core.candles import check
from core.errors import TransientError
from core.interval import Interval
from core.timeframe import Grid
from feed.asking import Asker
from feed.planning import page_from
from feed.witness import longer_timeframe

PROBES = ("1d", "4h", "1h")  # first choice first


@dataclass(frozen=True, slots=True)
class NextCandle:
    """What the longer timeframe shows of a range.

    Attributes:
        timeframe: its name.
        first_us: when its first candle opens, microseconds; None where it shows none.
        until_us: up to when it tells. The candle that is still being made need not be shown: from its open on, none says nothing.
    """

    timeframe: str
    first_us: int | None
    until_us: int


async def next_candle(asker: Asker, grid: Grid, symbol: str, now_us: int, interval: Interval) -> NextCandle | None:
    """Ask twice where candles of a longer timeframe begin in `interval`.

    Returns:
        None when the provider has no longer timeframe, does not keep all history, or is away: the series' own pages tell as much.

    Raises:
        PermanentError: the provider will never answer.
    """
    timeframe = longer_timeframe(asker.provider.capabilities, grid.timeframe, PROBES)
    if timeframe is None:
        return None
    try:
        told = [await _first(asker, Grid(timeframe, grid.server), symbol, now_us, interval) for _ in range(2)]
    except TransientError:
        return None
    firsts = [first for first, _ in told if first is not None]
    return NextCandle(timeframe.name, min(firsts) if firsts else None, min(until for _, until in told))


async def _first(asker: Asker, grid: Grid, symbol: str, now_us: int, interval: Interval) -> tuple[int | None, int]:
    limit = asker.provider.capabilities.page_limit(grid.timeframe)
    cursor, until_us = grid.floor(interval.start), grid.floor(now_us)
    while cursor < interval.end:
        page = page_from(cursor, grid, limit, grid.ceil(interval.end))
        answer = await asker.page(symbol, grid.timeframe, page)
        found = check(answer.candles, grid, page, page.end).candles  # one that is still open tells as well where candles begin
        until_us = min(until_us, grid.floor(answer.server_us))
        if len(found):
            return int(found["ts"].dt.epoch("us")[0]), until_us
        cursor = page.end
    return None, until_us

"""Candles built from stored ticks against the provider's own: every difference, and whether lost ticks explain it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from core.clock import DAY_US, LATEST_US, isoformat, to_datetime, to_us
from core.errors import NotFoundError
from core.interval import Interval
from core.series import Series
from core.ticks import ticks_of
from core.timeframe import Grid
from feed.tick_candles import TickCandles, candle_frame
from storage.series import find_series, grid_of
from storage.ticks.files import live_files
from storage.ticks.losses import find_tick_series, list_losses

if TYPE_CHECKING:
    from storage import Lake

PRICES: Final = ("open", "high", "low", "close")
VOLUME_TOLERANCE: Final = 1e-6  # relative: venues round the sums that they send
ABSENT: Final = "candle"  # the field of a difference where one side has no candle at all


@dataclass(frozen=True, slots=True)
class TickDifference:
    """One value of one candle that the ticks tell otherwise.

    Attributes:
        ts_us: the candle's open time.
        field: which value; `candle` where one side has none.
        of_ticks, stored: the two values; None on the side that has no candle.
        cause: `lost_ticks` where a range booked as lost touches the candle, else `unexplained`.
    """

    ts_us: int
    field: str
    of_ticks: float | None
    stored: float | None
    cause: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"ts": isoformat(self.ts_us), "field": self.field, "of_ticks": self.of_ticks, "stored": self.stored, "cause": self.cause}


@dataclass(frozen=True, slots=True)
class TickAgreement:
    """What a comparison found. `of_stream`: candles left out, since REST has not confirmed what the stream made of the same ticks."""

    series: Series
    interval: Interval
    ticks: int
    compared: int
    equal: int
    of_stream: int
    differences: tuple[TickDifference, ...]

    @property
    def unexplained(self) -> int:
        """How many differences no lost tick explains."""
        return sum(item.cause == "unexplained" for item in self.differences)


def compare_ticks(lake: Lake, series: Series, start_us: int | None = None, end_us: int | None = None) -> TickAgreement:
    """Compare candles built from the stored ticks of a symbol with the stored ones that the provider told.

    Args:
        lake: where both lie.
        series: whose candles.
        start_us: from this open time on; without it, from the first candle that the ticks hold whole.
        end_us: up to this open time, exclusive; without it, up to the last one that they hold whole.

    Raises:
        NotFoundError: no such series, or none of its ticks are stored.
    """
    with lake.metadata.read() as tx:
        grid = grid_of(tx, find_series(tx, series))
        lost = [gap.interval for gap in list_losses(tx, series.connection, series.symbol)]
    span = _span(lake, series, grid, start_us, end_us)
    count, made = _build(lake, series, grid, span)
    stored = lake.candles(series.connection, series.symbol, series.timeframe, span.start, span.end)
    is_streamed = stored["source"] == "stream"
    kept = {to_us(each["ts"]): each for each in stored.filter(~is_streamed).iter_rows(named=True)}
    left_out = {to_us(at) for at in stored.filter(is_streamed)["ts"]}
    told = {at: each for each in made.iter_rows(named=True) if (at := to_us(each["ts"])) not in left_out}
    differences: list[TickDifference] = []
    for at in sorted(kept.keys() | told.keys()):
        is_lost = any(part.start < grid.next(at) and at < part.end for part in lost)
        differences += _differences(at, told.get(at), kept.get(at), "lost_ticks" if is_lost else "unexplained")
    compared = len(kept.keys() | told.keys())
    return TickAgreement(series, span, count, compared, compared - len({item.ts_us for item in differences}), len(left_out), tuple(differences))


def _differences(at: int, told: dict[str, Any] | None, kept: dict[str, Any] | None, cause: str) -> Iterator[TickDifference]:
    if told is None or kept is None:
        yield TickDifference(at, ABSENT, None if told is None else told["close"], None if kept is None else kept["close"], cause)
        return
    for field in PRICES:
        if told[field] != kept[field]:
            yield TickDifference(at, field, told[field], kept[field], cause)
    # The volume of quotes is their number, which each broker counts in its own way.
    if told["spread"] is None and abs(told["volume"] - kept["volume"]) > VOLUME_TOLERANCE * max(told["volume"], kept["volume"]):
        yield TickDifference(at, "volume", told["volume"], kept["volume"], cause)


def _build(lake: Lake, series: Series, grid: Grid, span: Interval) -> tuple[int, pl.DataFrame]:
    """Return how many ticks lie in `span` and their candles, built a day of ticks at a time."""
    builder, rows, count = TickCandles(grid, lateness_us=0, since_us=0), [], 0
    for start in range(span.start, span.end, DAY_US):
        end = min(start + DAY_US, span.end)
        frame = lake.ticks(series.connection, series.symbol, to_datetime(start), to_datetime(end))
        builder.add_all(ticks_of(frame, series.symbol, 0))
        rows += [item.row() for item in builder.close(end)]
        count += frame.height
    return count, candle_frame([*rows, *(item.row() for item in builder.flush())])


def _span(lake: Lake, series: Series, grid: Grid, start_us: int | None, end_us: int | None) -> Interval:
    """Return from and up to which open time is compared; what a person gives is taken as held whole."""
    newest = lake.ticks(series.connection, series.symbol, limit=1)
    if newest.is_empty():
        raise NotFoundError(f"no ticks of {series.connection} {series.symbol}; stream them with: candlelake stream {series.connection}")
    if start_us is None:
        with lake.metadata.read() as tx:
            key = find_tick_series(tx, series.connection, series.symbol)
            held = [] if key is None else live_files(tx, key, 0, LATEST_US)
        start_us = held[0].first_us if held else to_us(lake.ticks(series.connection, series.symbol)["ts"][0])  # else in the journal yet
    start = grid.ceil(start_us)
    end = grid.floor(to_us(newest["ts"][0]) if end_us is None else end_us)
    return Interval(start, max(start, end))

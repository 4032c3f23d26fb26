"""The sandbox's market: real candles as frames that can be asked for any range, any length, at any present.

Inside, a frame is keyed by `us` (open time, UTC microseconds) with open, high, low, close, volume and spread (price
units, null where the file has none). In `history` mode candles stand where they were recorded. In `replay` mode the
last unbroken stretch of each file is laid over all time, end to end, in whole weeks of the venue's own clock (New York
for FX, UTC for crypto); the mapping depends on the file alone, so that what was served once is served again. Years of FX
are laid on the same days of other years, and a week in which London is an hour nearer to New York, as between their
changes of summer time, on such a week: mornings are Europe's. Where a file has none, nights and mornings of another week
come an hour later there: the first hour of the night stands twice, the last one of the morning is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import groupby
from typing import Final, Literal
from zoneinfo import ZoneInfo

import polars as pl

from core.clock import DAY_US, HOUR_US, MINUTE_US, to_datetime
from core.server_clock import dst_bounds_us

Mode = Literal["history", "replay"]
ROW: Final = ("us", "open", "high", "low", "close", "volume", "spread")
SCHEMA: Final = pl.Schema({"us": pl.Int64(), **{name: pl.Float64() for name in ROW[1:]}})
WEEK_US: Final = 7 * DAY_US
MONDAY_US: Final = 4 * DAY_US
REPLAY_SINCE_US: Final = 1_420_070_400_000_000  # 2015-01-01: in replay everything is listed since then
MAX_ROWS: Final = 400_000
_NEW_YORK: Final = "America/New_York"
_NIGHT: Final = 18 * HOUR_US  # in New York, when the first hour of a trading day is over
_NOON: Final = 7 * HOUR_US  # and when London's morning is
_YEAR_WEEKS: Final = 365.2425 / 7


@dataclass(frozen=True, slots=True)
class WallClock:
    """A clock with one summer-time rule: UTC plus `offset_minutes`, an hour more in summer by `dst` (none, eu, us)."""

    offset_minutes: int = 0
    dst: str = "none"

    def to_wall(self, column: str, first: int, last: int) -> pl.Expr:
        """Return UTC microseconds in `column` (all within first..last) as wall-clock readings."""
        summer = pl.any_horizontal(
            pl.lit(value=False),
            *((pl.col(column) >= start) & (pl.col(column) < end) for start, end in self._summers(first, last)))
        return pl.col(column) + self.offset_minutes * MINUTE_US + pl.when(summer).then(HOUR_US).otherwise(0)

    def to_utc(self, column: str, first: int, last: int) -> pl.Expr:
        """Return wall-clock readings as UTC; the doubled hour is its second pass, the skipped one standard time."""
        base = self.offset_minutes * MINUTE_US
        summer = pl.any_horizontal(
            pl.lit(value=False),
            *((pl.col(column) >= start + base + HOUR_US) & (pl.col(column) < end + base)
              for start, end in self._summers(first, last)))
        return pl.col(column) - base - pl.when(summer).then(HOUR_US).otherwise(0)

    def wall(self, utc_us: int) -> int:
        """Return the reading of the clock at a UTC instant."""
        return int(_scalar(utc_us).select(self.to_wall("us", utc_us, utc_us)).item())

    def utc(self, wall_us: int) -> int:
        """Return the UTC instant of a reading."""
        return int(_scalar(wall_us).select(self.to_utc("us", wall_us, wall_us)).item())

    def _summers(self, first: int, last: int) -> list[tuple[int, int]]:
        if self.dst == "none":
            return []
        years = range(max(1970, _year(first) - 1), min(2100, _year(last) + 1) + 1)
        return [dst_bounds_us(self.dst, year) for year in years]


UTC_CLOCK: Final = WallClock()


def _scalar(us: int) -> pl.DataFrame:
    return pl.DataFrame({"us": [us]}, schema={"us": pl.Int64()})


def _year(us: int) -> int:
    return 1970 + int(us // (365.2425 * DAY_US))


def bucket(length_us: int, clock: WallClock, first: int, last: int) -> pl.Expr:
    """Return the open time (UTC) of the candle that holds each `us`; days, weeks and months are cut by `clock`."""
    if length_us <= HOUR_US:  # cut alike all year: summer time moves a clock by a whole hour
        return pl.col("us") - (pl.col("us") + clock.offset_minutes * MINUTE_US) % length_us
    wall = clock.to_wall("us", first, last)
    if length_us == 30 * DAY_US:
        floor = wall.cast(pl.Datetime("us")).dt.truncate("1mo").cast(pl.Int64)
    else:
        anchor = MONDAY_US if length_us % WEEK_US == 0 else 0
        floor = wall - (wall - anchor) % length_us
    return floor


@dataclass(frozen=True, slots=True)
class Source:
    """The candles of one symbol at one length. `is_fx` decides the clock in which a replay repeats its weeks."""

    venue: str
    symbol: str
    length_us: int
    frame: pl.DataFrame
    is_fx: bool
    digits: int

    @property
    def first_us(self) -> int:
        """Open time of the first candle."""
        return int(self.frame["us"][0])

    @property
    def end_us(self) -> int:
        """Close time of the last candle."""
        return int(self.frame["us"][-1]) + self.length_us


@dataclass(frozen=True, slots=True)
class Tile:
    """What a replay repeats: rows keyed by wall clock in [start, start + period).

    `apart`: of FX, how far London is ahead of New York in each of its weeks; empty where no weeks are told apart.
    """

    rows: pl.DataFrame
    start_us: int
    period_us: int
    apart: tuple[timedelta, ...] = ()

    def moves(self, number: int) -> tuple[int, int]:
        """Return by how much rows are moved to stand in the `number`-th week, or period; and those of Europe's hours besides."""
        if not self.apart:
            return number * self.period_us, 0
        count = len(self.apart)
        place = number % count
        wanted = _apart(self.start_us + number * WEEK_US)
        alike = [other for other in range(count) if self.apart[other] == wanted]
        place = min(alike, key=lambda other: abs(other - place), default=place)
        return (number - place) * WEEK_US, (self.apart[place] - wanted) // timedelta(microseconds=1)


def cut_tile(source: Source) -> Tile:
    """Return the last unbroken stretch of a source in whole weeks; in whole days or candles where it is shorter."""
    zone = _NEW_YORK if source.is_fx else "UTC"
    stamps = pl.col("us").cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone).dt.replace_time_zone(None)
    rows = source.frame.with_columns(us=stamps.cast(pl.Int64)).unique("us", keep="first").sort("us")
    longest = 4 * DAY_US if source.is_fx else 6 * HOUR_US  # a file that lacks the rest of a day is no outage
    breaks = rows.with_row_index().filter(pl.col("us").diff() > longest)
    if not breaks.is_empty():
        rows = rows.slice(int(breaks["index"][-1]))
    first, end = int(rows["us"][0]), int(rows["us"][-1]) + source.length_us
    unit = next((unit for unit in (WEEK_US, DAY_US) if end - first >= unit), source.length_us)
    period = (end - first) // unit * unit
    if not source.is_fx or unit < WEEK_US or source.length_us > HOUR_US:  # a longer candle holds more than a morning's first hour
        return Tile(rows.filter(pl.col("us") >= end - period), end - period, period)
    period = _whole_years(period // WEEK_US) * WEEK_US
    start = end - period
    return Tile(rows.filter(pl.col("us") >= start), start, period, tuple(_apart(week) for week in range(start, end, WEEK_US)))


def _whole_years(weeks: int) -> int:
    """Return the weeks, at most so many, that come nearest to whole years; all when they are less than a year."""
    fitting = [(abs(years * _YEAR_WEEKS - round(years * _YEAR_WEEKS)), -years) for years in range(1, int(weeks / _YEAR_WEEKS) + 1)]
    return round(-min(fitting)[1] * _YEAR_WEEKS) if fitting else weeks


@lru_cache(maxsize=4096)
def _apart(week_us: int) -> timedelta:
    """Return how far London's clock is ahead of New York's in the middle of a week."""
    middle = to_datetime(week_us + WEEK_US // 2)
    return middle.astimezone(ZoneInfo("Europe/London")).replace(tzinfo=None) - middle.astimezone(ZoneInfo(_NEW_YORK)).replace(tzinfo=None)


class Book:
    """All candles of one symbol at one venue, in every length that its files allow."""

    def __init__(self, sources: list[Source], mode: Mode) -> None:
        self.sources = sorted(sources, key=lambda source: source.length_us)
        self.mode = mode
        self._tile = cut_tile(self.base) if mode == "replay" else None

    @property
    def base(self) -> Source:
        """The finest source; a replay is built from it alone, so that all lengths agree."""
        return self.sources[0]

    @property
    def digits(self) -> int:
        """Decimal places of the prices."""
        return max(source.digits for source in self.sources)

    @property
    def symbol(self) -> str:
        """The symbol."""
        return self.base.symbol

    def since_us(self) -> int:
        """Return from when on there is history."""
        return REPLAY_SINCE_US if self._tile else min(source.first_us for source in self.sources)

    def until_us(self, now_us: int, length_us: int) -> int:
        """Return the present as candles of one length know it: `now_us`, or where their file ends if that is earlier."""
        source = self._source(length_us)
        return now_us if self._tile or source is None else min(now_us, source.end_us)

    def freshest(self) -> Source:
        """Return the source that reaches furthest towards the present."""
        return self.base if self._tile else max(self.sources, key=lambda source: source.end_us)

    def candles(self, length_us: int, start_us: int, end_us: int, now_us: int,
                clock: WallClock = UTC_CLOCK) -> pl.DataFrame:
        """Return the candles that open in [start_us, end_us) and have begun at `now_us`; the last may be open.

        Returns:
            Frame of SCHEMA, ascending; empty when no file has candles short enough.
        """
        source = self._source(length_us, clock)
        end_us = min(end_us, now_us + 1)
        start_us = max(start_us, self.since_us() - 31 * DAY_US)
        if source is None or start_us >= end_us:
            return pl.DataFrame(schema=SCHEMA)
        if length_us == source.length_us:
            return _as_of(self._rows(source, start_us, end_us), source, now_us).tail(MAX_ROWS)
        margin = length_us + 2 * HOUR_US + (2 * DAY_US if length_us == 30 * DAY_US else 0)
        rows = self._rows(source, start_us - margin, min(end_us + margin, now_us + 1))
        if rows.is_empty():
            return rows
        built = _aggregate(_as_of(rows, source, now_us), length_us, clock)
        return built.filter((pl.col("us") >= start_us) & (pl.col("us") < end_us)).tail(MAX_ROWS)

    def newest(self, count: int, length_us: int, end_us: int, now_us: int, clock: WallClock = UTC_CLOCK) -> pl.DataFrame:
        """Return the last `count` candles that open before `end_us`."""
        end_us = min(end_us, self.until_us(now_us, length_us) + 1)
        return _widen(count, length_us, lambda span: (
            self.candles(length_us, end_us - span, end_us, now_us, clock), end_us - span < self.since_us())).tail(count)

    def oldest(self, count: int, length_us: int, start_us: int, end_us: int, now_us: int) -> pl.DataFrame:
        """Return the first `count` candles that open in [start_us, end_us)."""
        start_us = max(start_us, self.since_us())
        last = min(end_us, now_us + 1)
        return _widen(count, length_us, lambda span: (
            self.candles(length_us, start_us, min(start_us + span, last), now_us), start_us + span >= last)).head(count)

    def _source(self, length_us: int, clock: WallClock = UTC_CLOCK) -> Source | None:
        """Return the longest source that `length_us` by `clock` can be built from; in replay only the finest one."""
        allowed = self.sources[:1] if self._tile else self.sources
        ahead_us = clock.offset_minutes * MINUTE_US
        fitting = [source for source in allowed if length_us % source.length_us == 0 and ahead_us % source.length_us == 0]
        return fitting[-1] if fitting else None

    def _rows(self, source: Source, start_us: int, end_us: int) -> pl.DataFrame:
        if self._tile is None:
            return source.frame.filter((pl.col("us") >= start_us) & (pl.col("us") < end_us))
        return _lay(self._tile, source.is_fx, max(start_us, REPLAY_SINCE_US), end_us)


def _widen(count: int, length_us: int, ask: Callable[[int], tuple[pl.DataFrame, bool]]) -> pl.DataFrame:
    """Ask for ever wider spans until `count` candles are found or the span holds all there is."""
    span = (count + 1) * length_us
    while True:
        rows, is_all = ask(span)
        if rows.height >= count or is_all:
            return rows
        span *= 2


def _lay(tile: Tile, is_fx: bool, start_us: int, end_us: int) -> pl.DataFrame:
    """Return the tile's rows repeated over [start_us, end_us), keyed by UTC."""
    first_us, last_us = start_us - DAY_US, end_us + DAY_US  # a day on either side: wall clock and UTC differ by less
    length_us = WEEK_US if tile.apart else tile.period_us
    pieces = []
    numbers = range((first_us - tile.start_us) // length_us, (last_us - tile.start_us) // length_us + 1)
    for (shift, later), run in groupby(numbers, tile.moves):
        together = list(run)
        low, high = tile.start_us + together[0] * length_us, tile.start_us + (together[-1] + 1) * length_us
        place = pl.col("us") + shift
        piece = tile.rows.filter((place >= max(low, first_us)) & (place < min(high, last_us))).with_columns(us=place)
        pieces.append(_with_later_mornings(piece, later) if later > 0 else piece)
    rows = pl.concat(pieces)
    if is_fx:
        stamps = pl.col("us").cast(pl.Datetime("us")).dt.replace_time_zone(
            _NEW_YORK, ambiguous="earliest", non_existent="null")
        rows = rows.with_columns(us=stamps.dt.convert_time_zone("UTC").cast(pl.Int64)).drop_nulls("us")
    return rows.filter((pl.col("us") >= start_us) & (pl.col("us") < end_us))


def _with_later_mornings(rows: pl.DataFrame, later_us: int) -> pl.DataFrame:
    """Return a week's rows, by New York's clock, with its nights and European mornings so much later; the rest stands."""
    night, day = (_NOON - _NIGHT) % DAY_US, _NIGHT - _NOON
    moved = rows.filter((pl.col("us") - _NIGHT) % DAY_US < night).with_columns(us=pl.col("us") + later_us)
    return pl.concat([rows.filter((pl.col("us") - _NOON - later_us) % DAY_US < day), moved]).sort("us")


def _as_of(rows: pl.DataFrame, source: Source, now_us: int) -> pl.DataFrame:
    """Replace the row that is forming at `now_us` by what of it has happened."""
    if rows.is_empty() or int(rows["us"][-1]) + source.length_us <= now_us:
        return rows
    rows = rows.filter(pl.col("us") <= now_us)
    if rows.is_empty() or int(rows["us"][-1]) + source.length_us <= now_us:
        return rows
    row = rows.row(-1, named=True)
    part = partial(row, (now_us - row["us"]) / source.length_us, source.digits)
    return pl.concat([rows.head(rows.height - 1), pl.DataFrame([part], schema=SCHEMA)])


def partial(row: dict[str, float], elapsed: float, digits: int) -> dict[str, float]:
    """Return a candle when `elapsed` (0 to 1) of it has passed: its price walks open, one end, other end, close."""
    ends = (row["low"], row["high"]) if row["close"] >= row["open"] else (row["high"], row["low"])
    path = (row["open"], *ends, row["close"])
    leg = min(int(elapsed * 3), 2)
    price = round(path[leg] + (path[leg + 1] - path[leg]) * (elapsed * 3 - leg), digits)
    price = min(max(price, row["low"]), row["high"])
    seen = (*path[: leg + 1], price)
    volume = round(row["volume"] * elapsed, 8)
    return {**row, "high": max(seen), "low": min(seen), "close": price, "volume": volume}


def _aggregate(rows: pl.DataFrame, length_us: int, clock: WallClock) -> pl.DataFrame:
    first, last = int(rows["us"][0]), int(rows["us"][-1])
    keyed = rows.with_columns(key=bucket(length_us, clock, first, last))
    built = keyed.group_by("key", maintain_order=True).agg(
        pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
        pl.col("volume").sum().round(8), pl.col("spread").max()).rename({"key": "us"})
    if length_us > HOUR_US:
        built = built.with_columns(us=clock.to_utc("us", first - 40 * DAY_US, last + DAY_US))
    return built.select(ROW).cast(SCHEMA)


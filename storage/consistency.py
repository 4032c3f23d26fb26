"""Self-consistency: the provider's 5m, 1h, 1d against the aggregation of its 1m, and which of them was altered.

Only candles are compared whose every part is stored or proved absent. Two timeframes that disagree cannot say by
themselves which is wrong; the others of the same symbol are the witnesses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import polars as pl

from core.clock import to_datetime, to_us
from core.derive import Derivation, derive
from core.errors import InputError
from core.interval import Interval
from core.series import Series
from core.timeframe import Grid, Timeframe
from storage.derived import EXPLAINING
from storage.ledger import booked_in
from storage.metadata.store import MetadataStore
from storage.series import SeriesRow, find_series, grids_of, list_series

FIELDS: Final = ("open", "high", "low", "close", "volume")
VOLUME_TOLERANCE: Final = 1e-6  # relative: a sum of floats is not exact, and providers round
UNDECIDED: Final = "undecided"


class Candles(Protocol):
    """What the check needs of a lake."""

    @property
    def metadata(self) -> MetadataStore:
        """The metadata store."""

    def candles(self, connection: str, symbol: str, timeframe: str, start: int, end: int) -> pl.DataFrame:
        """Return stored candles."""


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A candle that is not what its parts make.

    Attributes:
        timeframe: of the longer candle, which opens at `ts_us`.
        field: which value differs: `stored` in the longer candle, `derived` from the parts.
        altered: the timeframe whose candle was altered, by the witnesses; `undecided` without enough of them.
        within: where the altered candle lies.
        altered_us: its open time, where it can be told exactly.
    """

    timeframe: str
    ts_us: int
    field: str
    stored: float
    derived: float
    altered: str
    within: Interval
    altered_us: int | None


@dataclass(frozen=True, slots=True)
class ConsistencyReport:
    """What was compared, by timeframe in candles, and where the timeframes disagree."""

    connection: str
    symbol: str
    base: str
    compared: Mapping[str, int]
    disagreements: list[Disagreement]


@dataclass(frozen=True, slots=True)
class _Compared:
    """One longer timeframe: the candles compared, and those values that differ, by open time and field."""

    timeframe: Timeframe
    grid: Grid
    frame: pl.DataFrame  # ts, the stored values, the derived ones as *_derived; only complete candles
    differs: dict[tuple[int, str], tuple[float, float]]

    def span(self, us: int) -> Interval:
        """Return the candle that opens at `us`, to its close."""
        return Interval(us, self.grid.next(us))


def check_consistency(lake: Candles, connection: str, symbol: str, interval: Interval, base: str = "1m") -> ConsistencyReport:
    """Compare all longer stored timeframes of a symbol with what its base timeframe makes.

    Raises:
        NotFoundError: the base is not stored. InputError: there is nothing longer to compare it with.
    """
    key = Series.parse(connection, symbol, base)
    with lake.metadata.read() as tx:
        row = find_series(tx, key)
        rows = [item for item in list_series(tx, connection, symbol) if _is_longer(item, key.timeframe)]
        grids = grids_of(tx, rows)
        explained = [gap.interval for gap in booked_in(tx, row.id, interval) if gap.cause in EXPLAINING]
    if not rows:
        raise InputError("consistency", f"{connection} {symbol}", f"a symbol with {base} and a longer timeframe stored",
                         "backfill 1h of it, for instance")
    parts = lake.candles(connection, symbol, base, interval.start, interval.end)
    compared = [_compare(lake, item, grids[item.id], parts=parts, base=key.timeframe, explained=explained) for item in rows]
    found = [_judge(one, us, field, compared, parts=parts, base=key.timeframe) for one in compared for us, field in sorted(one.differs)]
    return ConsistencyReport(connection, symbol, base, {one.timeframe.name: one.frame.height for one in compared}, found)


def _is_longer(row: SeriesRow, base: Timeframe) -> bool:
    length = row.series.timeframe.length_us
    return row.first_us is not None and length > base.length_us and length % base.length_us == 0


def _compare(
    lake: Candles, row: SeriesRow, grid: Grid, *, parts: pl.DataFrame, base: Timeframe, explained: Sequence[Interval],
) -> _Compared:
    made = derive(parts, Derivation(base, row.series.timeframe, "server", grid.server), explained).filter("is_complete")
    if made.is_empty():
        return _Compared(row.series.timeframe, grid, made, {})
    stored = lake.candles(row.series.connection, row.series.symbol, row.series.timeframe.name,
                          to_us(made["ts"][0]), to_us(made["ts"][-1]) + 1)
    both = stored.select("ts", *FIELDS).join(made.select("ts", *FIELDS), on="ts", suffix="_derived").sort("ts")
    differs: dict[tuple[int, str], tuple[float, float]] = {}
    for field in FIELDS:
        left, right = pl.col(field), pl.col(f"{field}_derived")
        slack = pl.max_horizontal(left.abs(), right.abs()) * VOLUME_TOLERANCE if field == "volume" else pl.lit(0.0)
        for ts, have, want in both.filter((left - right).abs() > slack).select("ts", left, right).iter_rows():
            differs[to_us(ts), field] = (have, want)
    return _Compared(row.series.timeframe, grid, both, differs)


def _judge(
    one: _Compared, us: int, field: str, compared: Sequence[_Compared], *, parts: pl.DataFrame, base: Timeframe,
) -> Disagreement:
    """Ask the other timeframes who is right, and look for the altered candle."""
    stored, derived = one.differs[us, field]
    span = one.span(us)
    against, smallest = 0, one
    for other in compared:
        if other is one:
            continue
        vote = _vote(span, field, stored, other)
        against += vote
        if vote > 0 and other.timeframe < smallest.timeframe:
            smallest = other
    if against > 0:
        altered, within, where = base.name, span, None
        if smallest is not one:
            within = next(item for item in (smallest.span(ts) for ts, name in smallest.differs if name == field)
                          if item.intersect(span) is not None)
            stored_there, derived_there = smallest.differs[within.start, field]
        else:
            stored_there, derived_there = stored, derived
        where = _locate(parts, within, field, stored_there, derived_there)
    elif against < 0:
        altered, within, where = one.timeframe.name, span, us
    else:
        altered, within, where = UNDECIDED, span, None
    return Disagreement(one.timeframe.name, us, field, stored, derived, altered, within, where)


def _vote(span: Interval, field: str, stored: float, other: _Compared) -> int:
    """Return +1 when another timeframe contradicts the parts too, -1 when it stands by them against `one`, 0 else."""
    if any(name == field and other.span(ts).intersect(span) is not None for ts, name in other.differs):
        return 1
    reach = other.frame.filter(pl.col("ts").is_between(to_datetime(span.start - other.timeframe.length_us * 2),
                                                       to_datetime(span.end), closed="left"))
    for row in reach.iter_rows(named=True):
        around = other.span(to_us(row["ts"]))
        if around.start <= span.start and around.end >= span.end:
            return -1 if _contradicts(row[field], stored, field, span, around) else 0
    inside = [around for row in reach.iter_rows(named=True) if (around := other.span(to_us(row["ts"]))).start >= span.start
              and around.end <= span.end]
    if sum(item.end - item.start for item in inside) == span.end - span.start:
        return -1  # shorter ones make up the whole candle and agree with the parts
    return 0


def _contradicts(whole: float, part: float, field: str, span: Interval, around: Interval) -> bool:
    """Whether a longer candle, right by the parts, cannot hold a part of this value."""
    if field == "high":
        return part > whole
    if field == "low":
        return part < whole
    if field == "open":
        return span.start == around.start
    if field == "close":
        return span.end == around.end
    return True  # its volume is the sum


def _locate(parts: pl.DataFrame, within: Interval, field: str, stored: float, derived: float) -> int | None:
    """Return the open time of the altered part, where the values tell it."""
    inside = parts.filter(pl.col("ts").is_between(within.start_at, within.end_at, closed="left"))
    if inside.height <= 1:
        chosen = inside
    elif field in {"open", "close"}:
        chosen = inside.head(1) if field == "open" else inside.tail(1)
    elif (field == "high" and derived > stored) or (field == "low" and derived < stored):
        chosen = inside.filter(pl.col(field) == derived)
    elif field == "volume" and derived > stored:
        chosen = inside.filter(pl.col("volume") >= (derived - stored) * (1 - VOLUME_TOLERANCE))
    else:
        return None  # a value was taken away: any of them may have held it
    return to_us(chosen["ts"][0]) if chosen.height == 1 else None


def as_rows(report: ConsistencyReport) -> list[dict[str, object]]:
    """Return the disagreements as JSON-ready rows."""
    return [{"timeframe": item.timeframe, "ts": to_datetime(item.ts_us), "field": item.field, "stored": item.stored,
             "derived": item.derived, "altered": item.altered,
             "altered_ts": None if item.altered_us is None else to_datetime(item.altered_us),
             "within": str(item.within)} for item in report.disagreements]

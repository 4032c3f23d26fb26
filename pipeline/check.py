"""Looks for look-ahead: a pipeline's past must not change with its future.

For sampled candles the pipeline is judged with the future cut off, with the true future, and with poisoned ones (prices
multiplied, mirrored, replaced by noise). Rows of every stage up to the candle must be the same bits each time; the first
stage and column that differ are named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from core.clock import isoformat
from core.errors import LookAheadError
from core.interval import Interval
from pipeline.engine import Engine, records
from pipeline.frozen import Window, chapter_of, cut
from pipeline.stages import Context, Kind

FRONTIERS: Final = 12
_STAGES: Final[tuple[Kind, ...]] = ("cleaner", "filter", "indicator")


@dataclass(slots=True)
class CheckReport:
    """What a check found; `findings` is empty when nothing looks ahead."""

    pipeline: str
    version: int
    series: str
    frontiers: int = 0
    futures: list[str] = field(default_factory=list)
    signals: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether no signal of the past changed."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "pipeline": self.pipeline, "version": self.version, "series": self.series, "status": "ok" if self.is_clean else "look_ahead",
            "frontiers": self.frontiers, "futures": self.futures, "signals": self.signals, "findings": self.findings,
        }

    def raise_if_found(self) -> None:
        """Raise LookAheadError with the first finding."""
        if self.findings:
            raise LookAheadError(f"pipeline {self.pipeline}: {self.findings[0]}")


def check(engine: Engine, context: Context, candles: pl.DataFrame, *, frontiers: int = FRONTIERS) -> CheckReport:
    """Check a pipeline on stored candles.

    Args:
        engine: the pipeline.
        context: of the series.
        candles: stored candles of the series, ascending; the more, the more signals are checked.
        frontiers: how many candles, evenly spread, are taken as the present.
    """
    report = CheckReport(context.pipeline, context.version, str(context.series), futures=["true", *_POISONS])
    times = candles["ts"].dt.epoch("us").to_numpy()
    for row in np.unique(np.linspace(min(30, len(times) - 1), len(times) - 2, frontiers).astype(np.int64)):
        if 0 <= row < len(times) - 1:
            _check_at(engine, context, candles, int(times[row]), report)
            report.frontiers += 1
    return report


def _check_at(engine: Engine, context: Context, candles: pl.DataFrame, ts_us: int, report: CheckReport) -> None:
    chapter = chapter_of(context.grid, ts_us, engine.definition.chapter)
    truncated = cut(candles.filter(pl.col("ts").dt.epoch("us") <= ts_us), chapter, engine.definition.lookback)
    past = Interval(max(chapter.start_us, int(truncated["ts"].dt.epoch("us")[0])), ts_us + 1)
    baseline = engine.scan(truncated, past, context)
    report.signals += len(baseline.signals)
    lines = _lines(engine, context, baseline.signals)
    if not _is_same_alone(engine, context, truncated, ts_us, lines):
        report.findings.append(f"at {isoformat(ts_us)} the candle judged alone says something else than among the candles before it")
    for name, poison in (("true", _true), *_POISONS.items()):
        whole = cut(_with_future(candles, ts_us, poison), Window(chapter.start_us, chapter.end_us), engine.definition.lookback)
        if len(whole) == len(truncated):
            continue
        found = _first_difference(engine, context, truncated, whole)
        if found is None:
            among = engine.scan(whole, Interval(past.start, chapter.end_us), context).signals
            kept = among.filter(pl.col("ts").dt.epoch("us") <= ts_us)
            if _lines(engine, context, kept) != lines:
                found = "the signals or their confidence"
        if found is not None:
            report.findings.append(f"at {isoformat(ts_us)} a {name} future changes {found} of the past")


def _is_same_alone(engine: Engine, context: Context, truncated: pl.DataFrame, ts_us: int, lines: list[bytes]) -> bool:
    """Whether the newest candle, judged as a live run does it, says what the scan says of it."""
    alone = _lines(engine, context, engine.scan(truncated, Interval(ts_us, ts_us + 1), context, singly=True).signals)
    mark = b'"ts":"' + isoformat(ts_us).encode() + b'"'
    return alone == [line for line in lines if mark in line]


def _lines(engine: Engine, context: Context, signals: pl.DataFrame) -> list[bytes]:
    return [record.as_line() for record in records(signals, engine.definition, context)]


def _first_difference(engine: Engine, context: Context, truncated: pl.DataFrame, whole: pl.DataFrame) -> str | None:
    """Return which stage's rows of the past differ, e.g. `the column fast after the indicator stage`."""
    for stage in _STAGES:
        if not engine.stages[stage]:
            continue
        before, passed_before = engine.columns(truncated, context, stage)
        after, passed_after = engine.columns(whole, context, stage)
        newest = truncated["ts"][-1]
        kept = after.filter(pl.col("ts") <= newest)
        if len(kept) != len(before) or not kept["ts"].equals(before["ts"]):
            return f"the rows after the {stage} stage ({_names(engine, stage)})"
        for name in before.columns:
            if not _same_bits(before[name], kept[name]):
                return f"the column {name} after the {stage} stage"
        if passed_before is not None and passed_after is not None and not passed_before.equals(passed_after.head(len(before))):
            return f"what passes the {stage} stage ({_names(engine, stage)})"
    return None


def _same_bits(left: pl.Series, right: pl.Series) -> bool:
    return left.equals(right, null_equal=True)


def _names(engine: Engine, stage: Kind) -> str:
    return ", ".join(item.use.label for item in engine.stages[stage])


Poison = Callable[[pl.DataFrame], pl.DataFrame]
_PRICES: Final = ("open", "high", "low", "close")


def _true(future: pl.DataFrame) -> pl.DataFrame:
    return future


def _soaring(future: pl.DataFrame) -> pl.DataFrame:
    return future.with_columns(pl.col(*_PRICES, "volume") * 100.0)


def _collapsing(future: pl.DataFrame) -> pl.DataFrame:
    return future.with_columns(pl.col(*_PRICES) / 100.0, volume=pl.lit(0.0))


def _random(future: pl.DataFrame) -> pl.DataFrame:
    dice = np.random.default_rng(7)  # the same noise for every run of a check
    closes = np.abs(dice.normal(1.0, 0.5, len(future))) * float(future["close"][0]) + 1e-6
    opens = np.roll(closes, 1)
    return future.with_columns(
        open=pl.Series(opens), close=pl.Series(closes), high=pl.Series(np.maximum(opens, closes) * 1.1),
        low=pl.Series(np.minimum(opens, closes) * 0.9))


_POISONS: Final[dict[str, Poison]] = {"soaring": _soaring, "collapsing": _collapsing, "random": _random}


def _with_future(candles: pl.DataFrame, ts_us: int, poison: Poison) -> pl.DataFrame:
    times = candles["ts"].dt.epoch("us")
    past, future = candles.filter(times <= ts_us), candles.filter(times > ts_us)
    return pl.concat([past, poison(future)]) if len(future) else past

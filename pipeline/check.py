"""Looks for look-ahead: a pipeline's past must not change with its future.

For sampled candles the pipeline is judged with the future cut off, with the true future, and with poisoned ones (prices
multiplied, mirrored, replaced by noise). Rows of every stage up to the candle must be the same bits each time; the first
stage and column that differ are named. Candles with signals are judged alone, and must say what they say among all others. Each
time the plug-ins are made anew, so that nothing is carried from one future to another. At last the candles are judged in a process
of its own without this home (`apart.py`): whoever read the future in the store, or kept it, cannot say the same there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from core.clock import isoformat, to_datetime
from core.errors import LookAheadError
from core.interval import Interval
from pipeline.apart import judge_apart, tell
from pipeline.engine import Engine, records
from pipeline.frozen import Window, chapter_of, cut, times_us
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
    apart: int = 0  # candles judged again in a process of its own
    findings: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether no signal of the past changed."""
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "pipeline": self.pipeline, "version": self.version, "series": self.series, "status": "ok" if self.is_clean else "look_ahead",
            "frontiers": self.frontiers, "futures": self.futures, "signals": self.signals, "apart": self.apart, "findings": self.findings,
        }

    def raise_if_found(self) -> None:
        """Raise LookAheadError with the first finding."""
        if self.findings:
            raise LookAheadError(f"pipeline {self.pipeline}: {self.findings[0]}")


def check(engine: Engine, context: Context, candles: pl.DataFrame, home: Path, *, frontiers: int = FRONTIERS) -> CheckReport:
    """Check a pipeline on stored candles.

    Args:
        engine: the pipeline.
        context: of the series.
        candles: stored candles of the series, ascending; the more, the more signals are checked.
        home: the folder that a pipeline must not need to judge.
        frontiers: how many candles, evenly spread, are taken as the present; as many again where there are signals.

    Raises:
        PluginError: a plug-in raised.
    """
    report = CheckReport(context.pipeline, context.version, str(context.series), futures=["true", *_POISONS] if engine.is_causal else [])
    times = times_us(candles)
    rows = np.unique(np.linspace(min(30, len(times) - 2), len(times) - 2, frontiers).astype(np.int64))
    presents = [int(ts) for ts in times[rows]]
    report.frontiers = len(presents)
    if engine.is_causal:  # any other is handed nothing later, whatever is there
        for ts_us in presents:
            _check_at(engine, context, candles, ts_us, report)
        presents += _check_signals(engine, context, candles, frontiers, report)
    _check_apart(engine, context, [_until(engine, context, candles, ts_us) for ts_us in sorted(set(presents))], home, report)
    return report


def _until(engine: Engine, context: Context, candles: pl.DataFrame, ts_us: int) -> pl.DataFrame:
    """Return the window of a candle as its live run sees it."""
    chapter = chapter_of(context.grid, ts_us, engine.definition.chapter)
    return cut(candles.filter(pl.col("ts").dt.epoch("us") <= ts_us), chapter, engine.definition.lookback)


def _check_at(engine: Engine, context: Context, candles: pl.DataFrame, ts_us: int, report: CheckReport) -> None:
    chapter = chapter_of(context.grid, ts_us, engine.definition.chapter)
    truncated = _until(engine, context, candles, ts_us)
    past = Interval(max(chapter.start_us, int(times_us(truncated)[0])), ts_us + 1)
    lines = _lines(engine, context, engine.again().scan(truncated, past, context).signals)
    before = engine.again().columns(truncated, context, "indicator")
    for name, poison in (("true", _true), *_POISONS.items()):
        whole = cut(_with_future(candles, ts_us, poison), Window(chapter.start_us, chapter.end_us), engine.definition.lookback)
        if len(whole) == len(truncated):
            continue
        found = None
        if not _are_rows_of_past(ts_us, before, engine.again().columns(whole, context, "indicator")):
            found = _first_difference(engine, context, truncated, whole)
        if found is None:
            among = engine.again().scan(whole, Interval(past.start, chapter.end_us), context).signals
            kept = among.filter(pl.col("ts").dt.epoch("us") <= ts_us)
            if _lines(engine, context, kept) != lines:
                found = "the signals or their confidence"
        if found is not None:
            report.findings.append(f"at {isoformat(ts_us)} a {name} future changes {found} of the past")


def _check_signals(engine: Engine, context: Context, candles: pl.DataFrame, count: int, report: CheckReport) -> list[int]:
    """Judge candles with signals alone; return up to `count` of them, evenly spread."""
    length = context.grid.timeframe.length_us * engine.definition.chapter
    times = times_us(candles)
    signals: list[tuple[int, list[bytes]]] = []
    for start in np.unique(times - times % length).tolist():
        chapter = chapter_of(context.grid, start, engine.definition.chapter)
        found = engine.again().scan(cut(candles, chapter, engine.definition.lookback), Interval(chapter.start_us, chapter.end_us), context).signals
        signals += [(record.ts_us, [record.as_line()]) for record in records(found, engine.definition, context)]
    report.signals = len(signals)
    chosen = [signals[place] for place in np.unique(np.linspace(0, len(signals) - 1, count).astype(np.int64))] if signals else []
    for ts_us, lines in chosen:
        window = _until(engine, context, candles, ts_us)
        alone = engine.again().scan(window, Interval(ts_us, ts_us + 1), context, singly=True).signals
        if _lines(engine, context, alone) != lines:
            report.findings.append(f"at {isoformat(ts_us)} the candle judged alone gives another signal or confidence than among later candles")
    return [ts_us for ts_us, _ in chosen]


def _check_apart(engine: Engine, context: Context, windows: list[pl.DataFrame], home: Path, report: CheckReport) -> None:
    here = engine.again()
    apart = judge_apart(engine, context, windows, home)
    report.apart = len(windows)
    for window, told in zip(windows, apart.told, strict=True):
        found = tell(here, context, window).difference(told)
        if found is not None:
            report.findings.append(
                f"at {isoformat(int(times_us(window)[-1]))} a process of its own without this home gives {found}; a plug-in reads what"
                " is not in its candles, or keeps something between calls")
            break
    report.findings += [f"a plug-in reaches for more than its candles: {what}" for what in apart.reached]


def _lines(engine: Engine, context: Context, signals: pl.DataFrame) -> list[bytes]:
    return [record.as_line() for record in records(signals, engine.definition, context)]


_Columns = tuple[pl.DataFrame, pl.Series | None]


def _are_rows_of_past(newest_us: int, past: _Columns, whole: _Columns) -> bool:
    """Whether what the stages made of the past is the same bits when later rows are there."""
    (before, passed_before), (after, passed_after) = past, whole
    kept = after.filter(pl.col("ts") <= to_datetime(newest_us))
    if passed_before is not None and passed_after is not None and not passed_before.equals(passed_after.head(len(before))):
        return False
    return kept.equals(before, null_equal=True)


def _first_difference(engine: Engine, context: Context, truncated: pl.DataFrame, whole: pl.DataFrame) -> str | None:
    """Return which stage's rows of the past differ, e.g. `the column fast after the indicator stage`."""
    for stage in _STAGES:
        if not engine.stages[stage]:
            continue
        before, passed_before = engine.again().columns(truncated, context, stage)
        after, passed_after = engine.again().columns(whole, context, stage)
        newest = truncated["ts"][-1]
        kept = after.filter(pl.col("ts") <= newest)
        if len(kept) != len(before) or not kept["ts"].equals(before["ts"]):
            return f"the rows after the {stage} stage ({_names(engine, stage)})"
        for name in before.columns:
            if not before[name].equals(kept[name], null_equal=True):
                return f"the column {name} after the {stage} stage"
        if passed_before is not None and passed_after is not None and not passed_before.equals(passed_after.head(len(before))):
            return f"what passes the {stage} stage ({_names(engine, stage)})"
    return None


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

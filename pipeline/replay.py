"""Replays: what a pipeline would have said, over any range, in the same bits as its live run.

A stretch is a run of candles that are judged over one reading of the data: a whole chapter when nothing changed in it. The
stretches are handed in by feed/, which knows what was stored when; here they are judged, sampled against the
candle-by-candle path, and summed up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from core.clock import isoformat, to_us
from core.errors import LookAheadError
from core.interval import Interval
from pipeline.engine import Engine, records
from pipeline.frozen import Window, cut, times_us
from pipeline.metrics import StageStatistics, stage_statistics
from pipeline.outcome import StageRun
from pipeline.stages import Context, SignalRecord

Progress = Callable[[int, int, str], None]
SAMPLES: Final = 16  # candles of a replay that are judged again one by one
SECONDS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Stretch:
    """Candles to judge over one reading: those that open in `asked`, all of `chapter`; `candles` reaches back before it."""

    candles: pl.DataFrame
    chapter: Window
    asked: Interval


@dataclass(slots=True)
class SeriesReplay:
    """What a replay said of one series. `signals` has a row for each signal: SIGNAL_SCHEMA and `values`."""

    context: Context
    engine: Engine
    signals: pl.DataFrame
    candles: int = 0
    sampled: int = 0
    seconds: float = 0.0
    stages: list[StageRun] = field(default_factory=list)

    @property
    def records(self) -> list[SignalRecord]:
        """The signals as records, oldest first."""
        return records(self.signals, self.engine.definition, self.context)

    @property
    def lines(self) -> bytes:
        """The signals as lines of JSON: the same bytes as the live run's."""
        return b"".join(record.as_line() for record in self.records)

    @property
    def statistics(self) -> list[StageStatistics]:
        """Time and errors of each stage."""
        return stage_statistics((run.kind, run.status, run.ms) for run in self.stages)


def replay(
    engine: Engine, context: Context, stretches: Iterable[Stretch], *, total: int = 0, progress: Progress | None = None,
    samples: int = SAMPLES,
) -> SeriesReplay:
    """Judge every candle of the stretches.

    Args:
        engine: the pipeline.
        context: of the series.
        stretches: ascending, not overlapping.
        total: how many candles there are, for progress.
        progress: told how many are done.
        samples: how many candles, spread over the range and at signals, are judged again one by one.

    Raises:
        PluginError: a plug-in raised. LookAheadError: a sampled candle says something else when it is judged alone.
    """
    began = time.perf_counter()
    parts: list[pl.DataFrame] = []
    out = SeriesReplay(context, engine, pl.DataFrame())
    fresh = engine.again()  # what a plug-in kept of later candles is not there
    for stretch in stretches:
        window = cut(stretch.candles, stretch.chapter, engine.definition.lookback)
        scan = engine.scan(window, stretch.asked, context)
        parts.append(scan.signals)
        out.candles += scan.candles
        out.stages += scan.stages
        if engine.is_causal:
            due = samples if not total else math.ceil(samples * min(1.0, out.candles / total))
            chosen = _chosen(window, stretch.asked, scan.signals, due - out.sampled)
            for ts_us in chosen:
                compare_one(fresh, context, window, scan.signals, ts_us)
            out.sampled += len(chosen)
        if progress is not None:
            progress(out.candles, max(total, out.candles), str(context.series))
    filled = [part for part in parts if len(part)]
    out.signals = pl.concat(filled, rechunk=False) if filled else (parts[0] if parts else _nothing(engine, context))
    out.seconds = time.perf_counter() - began
    return out


def _nothing(engine: Engine, context: Context) -> pl.DataFrame:
    from core.candles import empty_candles  # noqa: PLC0415  only for a range without candles

    return engine.scan(empty_candles(), Interval(0, 0), context).signals


def _chosen(window: pl.DataFrame, asked: Interval, signals: pl.DataFrame, count: int) -> list[int]:
    """Return up to `count` candles of a stretch to judge alone, half of them with signals, each half evenly spread."""
    times = times_us(window)
    first, end = np.searchsorted(times, [asked.start, asked.end])
    if end <= first or count <= 0:
        return []
    with_signals = min(len(signals), (count + 1) // 2)
    picked = {to_us(ts) for ts in signals["ts"].gather(_spread(0, len(signals), with_signals)).to_list()}
    picked |= {int(times[place]) for place in _spread(int(first), int(end), count - with_signals)}
    return sorted(picked)


def _spread(first: int, end: int, count: int) -> list[int]:
    """Return `count` whole numbers from `first` up to `end`, in the middle of equal parts."""
    return [first + (2 * part + 1) * (end - first) // (2 * count) for part in range(count)]


def compare_one(engine: Engine, context: Context, window: pl.DataFrame, signals: pl.DataFrame, ts_us: int) -> None:
    """Judge one candle without anything later, and compare with what the scan said of it.

    Raises:
        LookAheadError: they differ; says where.
    """
    end = int(np.searchsorted(times_us(window), ts_us, side="right"))
    alone = engine.scan(window.head(end), Interval(ts_us, ts_us + 1), context, singly=True).signals
    there = signals.filter(pl.col("ts").dt.epoch("us") == ts_us)
    mine, theirs = (records(frame, engine.definition, context) for frame in (alone, there))
    if [record.as_line() for record in mine] != [record.as_line() for record in theirs]:
        raise LookAheadError(
            f"pipeline {context.pipeline}, {context.series}, candle {isoformat(ts_us)}: alone it gives {_said(mine)}, among later "
            f"candles {_said(theirs)}; a plug-in that says is_causal = True looks ahead: run `candlelake pipelines check`")


def _said(found: list[SignalRecord]) -> str:
    return ", ".join(f"{record.side} with confidence {record.confidence:.6g}, values {dict(record.values)}" for record in found) or "no signal"


def summary(result: SeriesReplay) -> dict[str, Any]:
    """Return a replay as JSON-ready values, without its signals."""
    return {
        "pipeline": result.context.pipeline, "version": result.context.version, "connection": result.context.series.connection,
        "symbol": result.context.series.symbol, "timeframe": result.context.series.timeframe.name, "candles": result.candles,
        "signals": len(result.signals), "sampled": result.sampled, "seconds": round(result.seconds, 3),
        "stages": [item.as_dict() for item in result.statistics],
    }

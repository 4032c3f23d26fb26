"""Replays, checks and comparisons over stored candles: what was stored when is known here, the judging is the pipeline's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.errors import InputError, NotFoundError
from core.interval import Interval
from core.series import Series
from feed.context import Feed
from feed.pipelines import context_of, engine_of, load
from feed.result import Progress, no_progress
from feed.windows import read_windows
from pipeline.check import FRONTIERS, CheckReport, check
from pipeline.compare import Comparison, compare, shadow_comparison
from pipeline.definition import PipelineDefinition
from pipeline.frozen import chapter_of, times_us
from pipeline.registry import Registry
from pipeline.replay import SeriesReplay, Stretch, replay
from pipeline.stages import Context
from storage.lake.revisions import as_known, changed_after
from storage.pipelines import SignalRow, decisions_of, earlier_values_of, list_signals
from storage.series import SeriesRow, find_series

_ALL_TIME_US = 4_102_444_800_000_000
CHECK_CANDLES = 5_000  # a check without a range looks at so many newest candles


@dataclass(frozen=True, slots=True)
class Replayed:
    """A replay of one series with the candles it was made on: those it judged, and those before them that they look back on."""

    result: SeriesReplay
    candles: pl.DataFrame
    interval: Interval

    @property
    def judged(self) -> pl.DataFrame:
        """The candles that were asked for."""
        return self.candles.filter(pl.col("ts").is_between(self.interval.start_at, self.interval.end_at, closed="left"))


def replay_pipeline(
    feed: Feed, name: str, interval: Interval, *, series: Series | None = None, version: int | None = None,
    as_first_seen: bool = False, progress: Progress = no_progress, registry: Registry | None = None,
) -> list[Replayed]:
    """Judge every stored candle in `interval` of the pipeline's series again; stores nothing, executes nothing.

    Args:
        feed: the open home.
        name: the pipeline.
        interval: open times of the candles.
        series: only this one; it need not be one of the definition's.
        version: by default the one in force.
        as_first_seen: judge each candle on the values that its live run saw (or, where there was none, on the first values
            ever stored), not on what providers corrected later.
        progress: told how many candles are done.
        registry: where plug-ins come from.

    Raises:
        NotFoundError, InputError: no such pipeline, version or series; a plug-in is missing.
        PluginError: a plug-in raised. LookAheadError: a sampled candle says something else when judged alone.
    """
    row, definition = load(feed, name, version)
    engine = engine_of(definition, registry)
    out = []
    for found in _series(feed, definition, series):
        context = context_of(feed, definition, found)
        candles = _candles(feed, found, context, [definition], interval)
        total = _count(candles, interval)
        if as_first_seen:
            stretches = _as_seen(_Past.read(feed, (row.id, definition.version, found.id), candles, interval), context, definition, interval)
        else:
            stretches = _as_stored(context, definition, candles, interval)
        result = replay(engine, context, stretches, total=total, progress=progress)
        out.append(Replayed(result, candles, interval))
    return out


def _count(candles: pl.DataFrame, interval: Interval) -> int:
    first, end = np.searchsorted(times_us(candles), [interval.start, interval.end])
    return int(end - first)


def check_pipeline(
    feed: Feed, name: str, interval: Interval | None = None, *, series: Series | None = None, frontiers: int = FRONTIERS,
    registry: Registry | None = None,
) -> list[CheckReport]:
    """Check the pipeline for look-ahead on stored candles of each of its series; without a range on the newest 5,000."""
    _, definition = load(feed, name)
    engine = engine_of(definition, registry)
    out = []
    for found in _series(feed, definition, series):
        context = context_of(feed, definition, found)
        candles = (
            feed.lake.latest(found.series.connection, found.series.symbol, found.series.timeframe, CHECK_CANDLES)
            if interval is None else _candles(feed, found, context, [definition], interval))
        if len(candles) < 2:
            raise InputError("candles", f"{len(candles)} of {found.series}", "2 or more", "backfill the series first")
        out.append(check(engine, context, candles, feed.settings.home, frontiers=frontiers))
    return out


def compare_pipelines(
    feed: Feed, champion: str, challenger: str, interval: Interval, *, series: Series | None = None, horizon: int = 10,
    progress: Progress = no_progress, registry: Registry | None = None,
) -> list[Comparison]:
    """Replay two pipelines on the same candles, read once, and compare what they say."""
    (_, first), (_, second) = load(feed, champion), load(feed, challenger)
    engines = engine_of(first, registry), engine_of(second, registry)
    out = []
    for found in _series(feed, first, series):
        candles = _candles(feed, found, context_of(feed, first, found), [first, second], interval)
        results = []
        for engine in engines:
            context = context_of(feed, engine.definition, found)
            stretches = _as_stored(context, engine.definition, candles, interval)
            results.append(replay(engine, context, stretches, total=_count(candles, interval), progress=progress))
        out.append(compare(results[0], results[1], candles, horizon))
    return out


def compare_shadow(feed: Feed, champion: str, challenger: str, interval: Interval, *, horizon: int = 10) -> list[Comparison]:
    """Compare what a champion and its challenger said live, candle by candle, on the same input.

    Raises:
        InputError: the challenger is none of this champion.
    """
    (champion_row, first), (challenger_row, second) = load(feed, champion), load(feed, challenger)
    if challenger_row.shadow_of != champion:
        raise InputError("challenger", challenger, f"one whose champion is {champion}", "`candlelake pipelines shadow` makes it one")
    out = []
    for found in _series(feed, first, None):
        with feed.lake.metadata.read() as tx:
            told = [list_signals(tx, name, series=found.series, interval=interval) for name in (champion, challenger)]
            judged = [
                decisions_of(tx, row.id, row.version, found.id, interval) for row in (champion_row, challenger_row)]
        both = judged[0].keys() & judged[1].keys()
        same = {ts for ts in both if judged[0][ts] == judged[1][ts]}
        candles = feed.lake.candles(
            found.series.connection, found.series.symbol, found.series.timeframe, start=interval.start)
        contexts = [context_of(feed, definition, found) for definition in (first, second)]
        frames = [_frame([item for item in rows if item.ts_us in same]) for rows in told]
        out.append(shadow_comparison((contexts[0], contexts[1]), (frames[0], frames[1]), candles, len(same), horizon))
    return out


def _frame(rows: Sequence[SignalRow]) -> pl.DataFrame:
    return pl.DataFrame({
        "ts": pl.Series([row.ts_us for row in rows], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
        "side": pl.Series([1 if row.side == "buy" else -1 for row in rows], dtype=pl.Int8),
        "price": pl.Series([row.price for row in rows], dtype=pl.Float64),
        "confidence": pl.Series([row.confidence for row in rows], dtype=pl.Float64),
    })


def _series(feed: Feed, definition: PipelineDefinition, only: Series | None) -> list[SeriesRow]:
    keys = definition.keys if only is None else [only]
    if not keys:
        raise NotFoundError(f"pipeline {definition.name} names no series; name one with --series")
    with feed.lake.metadata.read() as tx:
        return [find_series(tx, key) for key in keys]


def _candles(
    feed: Feed, row: SeriesRow, context: Context, definitions: Sequence[PipelineDefinition], interval: Interval,
) -> pl.DataFrame:
    """Return what the windows of all the definitions need to judge the candles of an interval."""
    start = min(chapter_of(context.grid, interval.start, definition.chapter).start_us for definition in definitions)
    return read_windows(feed.lake, row, start, interval.end, lookback=max(definition.lookback for definition in definitions))


def _as_stored(context: Context, definition: PipelineDefinition, candles: pl.DataFrame, interval: Interval) -> Iterator[Stretch]:
    for chapter in _chapters(context, definition, candles, interval):
        asked = Interval(max(chapter[0], interval.start), min(chapter[1], interval.end))
        yield Stretch(candles, chapter_of(context.grid, chapter[0], definition.chapter), asked)


def _chapters(
    context: Context, definition: PipelineDefinition, candles: pl.DataFrame, interval: Interval,
) -> Iterator[tuple[int, int]]:
    """Yield the chapters that hold candles of the interval."""
    times = candles["ts"].dt.epoch("us").to_numpy()
    asked = times[(times >= interval.start) & (times < interval.end)]
    for start in np.unique(asked - asked % (context.grid.timeframe.length_us * definition.chapter)).tolist():
        chapter = chapter_of(context.grid, start, definition.chapter)
        yield chapter.start_us, chapter.end_us


@dataclass(frozen=True, slots=True)
class _Past:
    """What was known when: the stored candles, when each was judged live, and every time anything was learned of them."""

    feed: Feed
    series_id: int
    candles: pl.DataFrame
    decided: dict[int, int]
    events: NDArray[np.int64]  # (known_at, ts), ascending by known_at
    whole: Interval

    @staticmethod
    def read(feed: Feed, key: tuple[int, int, int], candles: pl.DataFrame, interval: Interval) -> _Past:
        """Read it; `key` is pipeline id, version and series id."""
        pipeline_id, version, series_id = key
        with feed.lake.metadata.read() as tx:
            decided = decisions_of(tx, pipeline_id, version, series_id, interval)
            earlier = earlier_values_of(tx, series_id, interval.end)
        now = np.column_stack([candles["known_at"].dt.epoch("us").to_numpy(), candles["ts"].dt.epoch("us").to_numpy()])
        known = np.concatenate([now, np.array(earlier, dtype=np.int64).reshape(-1, 2)])
        return _Past(feed, series_id, candles, decided, known[np.argsort(known[:, 0], kind="stable")], Interval(0, interval.end))

    def as_of(self, as_of_us: int | None) -> pl.DataFrame:
        """Return the candles as they were known at an instant; None gives the first value of each."""
        with self.feed.lake.metadata.read() as tx:
            changed = changed_after(tx, self.series_id, self.whole, as_of_us or 0)
        return as_known(self.candles, changed, _ALL_TIME_US if as_of_us is None else as_of_us)


def _as_seen(past: _Past, context: Context, definition: PipelineDefinition, interval: Interval) -> Iterator[Stretch]:
    times = past.candles["ts"].dt.epoch("us").to_numpy()
    for start, end in _chapters(context, definition, past.candles, interval):
        chapter = chapter_of(context.grid, start, definition.chapter)
        asked = times[(times >= max(start, interval.start)) & (times < min(end, interval.end))]
        for as_of, group in _groups(asked, past.decided, past.events):
            yield Stretch(past.as_of(as_of), chapter, Interval(group[0], group[-1] + 1))


def _groups(
    asked: NDArray[np.int64], decided: dict[int, int], events: NDArray[np.int64],
) -> Iterator[tuple[int | None, list[int]]]:
    """Group neighbouring candles that one reading serves: their live runs saw the same values of all candles before them."""
    group: list[int] = []
    group_as_of: int | None = None
    for ts in asked.tolist():
        as_of = decided.get(ts)
        if group and not _serves(group_as_of, as_of, group[-1], events):
            yield group_as_of, group
            group = []
        group.append(ts)
        group_as_of = as_of
    if group:
        yield group_as_of, group


def _serves(before: int | None, now: int | None, newest_us: int, events: NDArray[np.int64]) -> bool:
    """Whether a reading as of `now` shows all candles up to `newest_us` as one as of `before` does."""
    if before is None or now is None or now < before:
        return before is None and now is None
    first, end = np.searchsorted(events[:, 0], [before, now], side="right")
    return not len(events[first:end]) or bool(events[first:end, 1].min() > newest_us)

"""The live run of pipelines: every stored candle that a pipeline has not judged yet, exactly once, in order.

What starts a run does not matter: an event, a schedule, a person. Each run looks for series whose last candle a pipeline
has not seen, so that a lost event loses nothing. All pipelines of a series get one read of it; a pipeline that raises is
stored as failed for that candle and the others go on; one whose process dies is run alone, and later each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import polars as pl

from connections.leases import Leases
from core.clock import DAY_US, to_us
from core.errors import CandlelakeError, InputError, PluginError, PluginOverdueError
from core.interval import Interval
from feed.context import Feed
from feed.executing import execute_pending
from feed.notices import tell_pipeline
from feed.pipelines import context_of, engine_of
from feed.result import Progress, no_progress
from feed.windows import read_windows
from pipeline.definition import PipelineDefinition, read_definition
from pipeline.engine import Engine
from pipeline.events import (
    DataCleaned,
    DataFiltered,
    PipelineEvent,
    PipelineStageCompleted,
    SignalGenerated,
    Subscriber,
    publish,
)
from pipeline.frozen import FrozenInput, chapter_of, cut
from pipeline.outcome import Outcome
from pipeline.registry import Registry
from pipeline.stages import Context, SignalRecord
from storage.pipelines import (
    PipelineRow,
    add_executions,
    add_signal,
    begin_run,
    end_overdue,
    end_run,
    get_pipeline,
    is_due,
    list_pipelines,
    move_watermark,
    prune_executions,
    watermarks_of,
)
from storage.series import SeriesRow, find_series

log = logging.getLogger(__name__)
LEASE: Final = "process-pipelines"
LEASE_SECONDS: Final = 60
ROUNDS: Final = 20  # candles that arrive while a run works are judged by it, too; then it is the next one's turn
KEEP_DAYS: Final = 400  # stage rows older than this are removed; replays as first seen then take the first values
AT_ONCE: Final = 2  # series judged side by side


@dataclass(slots=True)
class ProcessResult:
    """What a run judged. `errors` has one line for each pipeline and series that failed."""

    run_id: str
    candles: int = 0
    skipped: int = 0  # candles older than a pipeline catches up with
    signals: list[SignalRecord] = field(default_factory=list)
    executed: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def message(self) -> str:
        """One line for a person."""
        tail = f", {len(self.errors)} failed: {self.errors[0]}" if self.errors else ""
        return f"{self.candles} candles judged, {len(self.signals)} signals, {self.executed} executions{tail}"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {
            "status": "failed" if self.errors else "complete", "run_id": self.run_id, "message": self.message,
            "candles": self.candles, "skipped": self.skipped, "signals": [record.as_dict() for record in self.signals],
            "executed": self.executed, "errors": self.errors,
        }


@dataclass(frozen=True, slots=True)
class _Ready:
    row: PipelineRow
    definition: PipelineDefinition
    engine: Engine


@dataclass(slots=True)
class _Run:
    feed: Feed
    result: ProcessResult
    listeners: Sequence[Subscriber]
    registry: Registry
    overdue: set[int] = field(default_factory=set)  # ids of pipelines whose plug-in did not come back: left alone until the next run


async def process(
    feed: Feed, pipeline: str | None = None, *, run_id: str | None = None, progress: Progress = no_progress,
    listeners: Sequence[Subscriber] = (), registry: Registry | None = None,
) -> ProcessResult:
    """Judge every candle that an enabled pipeline has not seen, store what comes of it, and execute its signals.

    Args:
        feed: the open home.
        pipeline: only this one (also when it is switched off); its challengers are left to the next run.
        run_id: names the run in executions and signals.
        progress: told how many series are done.
        listeners: subscribers of the events besides those of installed packages.
        registry: where plug-ins come from.

    Raises:
        LeaseHeldError: another run does the same. NotFoundError: no such pipeline.
    """
    run = _Run(feed, ProcessResult(run_id or feed.new_run_id("process")), listeners, registry or Registry())
    leases: Leases = feed.leases
    async with leases.hold(LEASE, seconds=LEASE_SECONDS):
        rows = await asyncio.to_thread(_due, run, pipeline)
        await _judge_all(run, [row for row in rows if row.running_since_us is None], progress)
        for suspect in sorted((row for row in rows if row.running_since_us is not None), key=lambda row: (row.failures, row.name)):
            await _judge_all(run, [suspect], progress, suspect=True)
    with feed.lake.metadata.write() as tx:
        prune_executions(tx, feed.clock.now_us() - KEEP_DAYS * DAY_US)
    return run.result


def _due(run: _Run, pipeline: str | None) -> list[PipelineRow]:
    """Return the pipelines to run."""
    feed, now = run.feed, run.feed.clock.now_us()
    with feed.lake.metadata.read() as tx:
        if pipeline is not None:
            return [get_pipeline(tx, pipeline)]
        return [row for row in list_pipelines(tx, only_enabled=True) if is_due(row, now)]


def _ready(run: _Run, rows: Sequence[PipelineRow], *, suspect: bool) -> list[_Ready]:
    """Make the pipelines' plug-ins; one whose plug-ins cannot be made is noted and left out."""
    feed = run.feed
    out = []
    for row in rows:
        try:
            definition = read_definition(row.definition)
            out.append(_Ready(row, definition, engine_of(definition, run.registry, stage_seconds=feed.settings.stage_timeout)))
        except CandlelakeError as error:
            run.result.errors.append(f"{row.name}: {error}")
            with feed.lake.metadata.write() as tx:
                if isinstance(error, PluginOverdueError):
                    end_overdue(tx, row.id, str(error), feed.clock.now_us(), suspect=suspect)
                else:
                    end_run(tx, row.id, str(error))
    return out


async def _judge_all(run: _Run, rows: Sequence[PipelineRow], progress: Progress, *, suspect: bool = False) -> None:
    if not rows:
        return
    feed = run.feed
    with feed.lake.metadata.write() as tx:  # first of all: to make a plug-in can end the process, too
        begin_run(tx, [row.id for row in rows], feed.clock.now_us(), suspect=suspect)
    ready = await asyncio.to_thread(_ready, run, rows, suspect=suspect)
    errors: dict[int, str] = {}
    for _ in range(ROUNDS):
        work = await asyncio.to_thread(_pending, run, ready)
        if not work:
            break
        gate = asyncio.Semaphore(AT_ONCE)
        done = 0

        async def one(row: SeriesRow, items: list[tuple[_Ready, list[int]]], gate: asyncio.Semaphore, total: int) -> None:
            nonlocal done
            async with gate:
                await asyncio.to_thread(_judge_series, run, row, items, errors)
            done += 1
            progress(done, total, str(row.series))

        await asyncio.gather(*(one(row, items, gate, len(work)) for row, items in work))
    for item in ready:
        try:
            run.result.executed += await execute_pending(feed, item.row, item.engine, run.result.run_id, run.listeners)
        except CandlelakeError as error:
            errors[item.row.id] = str(error)
        with feed.lake.metadata.write() as tx:
            if item.row.id in run.overdue:
                end_overdue(tx, item.row.id, errors[item.row.id], feed.clock.now_us(), suspect=suspect)
            else:
                end_run(tx, item.row.id, errors.get(item.row.id))
    run.result.errors += [f"{item.row.name}: {errors[item.row.id]}" for item in ready if item.row.id in errors]


def _pending(run: _Run, ready: Sequence[_Ready]) -> list[tuple[SeriesRow, list[tuple[_Ready, list[int]]]]]:
    """Return the series with candles that some pipeline has not seen, and for each of those the candles' open times."""
    feed = run.feed
    rows: dict[Any, SeriesRow] = {}
    with feed.lake.metadata.read() as tx:
        marks = watermarks_of(tx, [item.row.id for item in ready])
        for key in {key for item in ready for key in item.definition.keys}:
            try:
                rows[key] = find_series(tx, key)
            except CandlelakeError:
                log.warning("%s is not in the store; pipelines on it wait", key)
    work: dict[Any, list[tuple[_Ready, list[int]]]] = {}
    for item in (item for item in ready if item.row.id not in run.overdue):
        for key in item.definition.keys:
            row = rows.get(key)
            if row is None or row.last_us is None:
                continue
            seen = marks.get((item.row.id, row.id))
            if seen is not None and row.last_us <= seen:
                continue
            slots = [row.last_us] if seen is None else feed.lake.stored_slots(row.id, Interval(seen + 1, row.last_us + 1)).tolist()
            newest = slots[-item.definition.catch_up:]
            run.result.skipped += len(slots) - len(newest)
            if newest:
                work.setdefault(key, []).append((item, newest))
    return [(rows[key], items) for key, items in sorted(work.items())]


def _judge_series(run: _Run, row: SeriesRow, items: list[tuple[_Ready, list[int]]], errors: dict[int, str]) -> None:
    """Read the series once and let every pipeline judge its candles."""
    feed = run.feed
    first, last = min(slots[0] for _, slots in items), max(slots[-1] for _, slots in items)
    definitions = [item.definition for item, _ in items]
    context = context_of(feed, definitions[0], row)
    start = min(chapter_of(context.grid, first, definition.chapter).start_us for definition in definitions)
    candles = read_windows(feed.lake, row, start, last + 1, lookback=max(definition.lookback for definition in definitions))
    newest = candles["known_at"].max()
    as_of = to_us(newest) if isinstance(newest, datetime) else feed.clock.now_us()
    for item, slots in items:
        mine = Context(item.definition.name, item.definition.version, row.series, context.grid, context.market_type)
        outcomes = _judge_slots(run, item, candles, slots, mine, as_of)
        failed = [outcome.error for outcome in outcomes if outcome.error is not None]
        if failed:
            errors[item.row.id] = f"{row.series}: {failed[-1]}"
        if outcomes:
            _store(run, item, row, outcomes, as_of)


def _judge_slots(  # noqa: PLR0917  what `_judge` takes
    run: _Run, item: _Ready, candles: pl.DataFrame, slots: Sequence[int], context: Context, as_of_us: int,
) -> list[Outcome]:
    """Judge candles in order; one on which a plug-in did not come back is the last of this run."""
    outcomes: list[Outcome] = []
    for ts in slots:
        if item.row.id in run.overdue:
            break
        outcomes.append(_judge(item, candles, ts, context, as_of_us))
        if isinstance(outcomes[-1].error, PluginOverdueError):
            run.overdue.add(item.row.id)
    return outcomes


def _judge(item: _Ready, candles: pl.DataFrame, ts_us: int, context: Context, as_of_us: int) -> Outcome:
    window = cut(candles, chapter_of(context.grid, ts_us, item.definition.chapter), item.definition.lookback)
    try:
        return item.engine.run(FrozenInput(window).until(ts_us), ts_us, context, as_of_us)
    except InputError as error:  # the candle was removed between two reads
        return Outcome(ts_us, error=PluginError(str(error)))


def _store(run: _Run, item: _Ready, row: SeriesRow, outcomes: Sequence[Outcome], as_of_us: int) -> None:
    """Store executions, signals and the watermark in one transaction; then tell of it."""
    feed, run_id, now = run.feed, run.result.run_id, run.feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        base = {
            "pipeline_id": item.row.id, "version": item.definition.version, "series_id": row.id, "as_of_us": as_of_us,
            "run_id": run_id, "created_at_us": now}
        add_executions(tx, [base | line for outcome in outcomes for line in _stage_rows(outcome)])
        found = [outcome.signal for outcome in outcomes if outcome.signal is not None]
        fresh = [signal for signal in found if add_signal(tx, _signal_values(item, row, signal, run_id, now))]
        move_watermark(tx, item.row.id, row.id, outcomes[-1].ts_us, now)
        last = outcomes[-1].error
        tell_pipeline(tx, row.connection_id, item.definition.name, None if last is None else f"{row.series}: {last}", now)
    run.result.candles += len(outcomes)
    run.result.signals += fresh
    publish(_events(item, row, outcomes, fresh, run_id), run.listeners)


def _stage_rows(outcome: Outcome) -> Iterable[dict[str, Any]]:
    for stage in outcome.stages:
        yield {
            "ts_us": outcome.ts_us, "stage": stage.kind, "status": stage.status, "input_digest": stage.input_digest,
            "output_digest": stage.output_digest, "rows_in": stage.rows_in, "rows_out": stage.rows_out,
            "parts": [part.as_dict() for part in stage.parts], "error": stage.error, "execution_time_ms": stage.ms,
        }


def _signal_values(item: _Ready, row: SeriesRow, record: SignalRecord, run_id: str, now_us: int) -> dict[str, Any]:
    is_shadow = item.row.shadow_of is not None
    execution, message = "none", None
    if item.definition.executors and not is_shadow:
        if record.is_actionable:
            execution = "pending"
        else:
            message = f"confidence {record.confidence:.1f} is below the threshold {record.threshold:g}"
    return {
        "pipeline_id": item.row.id, "version": record.version, "series_id": row.id, "ts_us": record.ts_us,
        "close_us": record.close_us, "side": record.side, "price": record.price, "confidence": record.confidence,
        "threshold": record.threshold, "reason": record.reason, "values": dict(record.values),
        "input_digest": record.input_digest, "is_shadow": is_shadow, "run_id": run_id, "as_of_us": record.as_of_us,
        "created_at_us": now_us, "execution": execution, "execution_message": message,
    }


def _events(
    item: _Ready, row: SeriesRow, outcomes: Sequence[Outcome], fresh: Sequence[SignalRecord], run_id: str,
) -> list[PipelineEvent]:
    out: list[PipelineEvent] = []
    told = {record.ts_us for record in fresh}
    for outcome in outcomes:
        base = (row.series, run_id, item.definition.name, item.definition.version, outcome.ts_us)
        for stage in outcome.stages:
            if stage.status != "error" and stage.kind == "cleaner":
                out.append(DataCleaned(*base, stage.rows_in, stage.rows_out or 0))
            elif stage.status != "error" and stage.kind == "filter":
                out.append(DataFiltered(*base, stage.status == "ok"))
            out.append(PipelineStageCompleted(*base, stage.kind, stage.status, round(stage.ms, 3), stage.error))
        if outcome.signal is not None and outcome.ts_us in told:
            signal = outcome.signal
            out.append(SignalGenerated(
                *base, signal.side, signal.price, signal.confidence, signal.is_actionable, item.row.shadow_of is not None))
    return out

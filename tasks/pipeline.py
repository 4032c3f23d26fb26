"""Tasks around live runs, replays and comparisons of pipelines: events and artifacts; the work itself is feed's."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from prefect import task
from prefect.artifacts import acreate_image_artifact, acreate_markdown_artifact

from core.candles import CANDLE_SCHEMA
from core.clock import isoformat, to_datetime
from core.interval import Interval
from core.secrets import redact
from core.series import Series
from feed import open_feed
from feed.pipelines import load
from feed.processing import ProcessResult, process
from feed.replaying import Replayed, compare_pipelines, compare_shadow, replay_pipeline
from feed.trading import held
from pipeline.charts import chart_png, curve_png, equity_png
from pipeline.compare import Comparison
from pipeline.metrics import returns_after, signal_statistics, stage_statistics
from pipeline.replay import summary
from pipeline.stages import SignalRecord
from storage.pipelines import execution_times, get_pipeline, list_pipelines
from tasks.artifacts import artifact_key, publish_table
from tasks.events import emit_one, in_run
from tasks.policies import POLICY
from tasks.progress import shown_progress

CHART_CANDLES: Final = 1_000
HORIZON: Final = 10  # candles after a signal at which its gain is taken


@task(name="process pipelines", **POLICY)
async def process_candles(pipeline: str | None, run_id: str) -> dict[str, Any]:
    """Judge every candle that pipelines have not seen; each stage is an event, a row, and part of the run's tables."""
    with open_feed() as feed:
        began = feed.clock.now_us()
        async with shown_progress("pipelines-progress", "Pipelines", "series") as meter:
            result = await process(feed, pipeline, run_id=run_id, progress=meter, listeners=[emit_one])
        with feed.lake.metadata.read() as tx:
            rows = [get_pipeline(tx, pipeline)] if pipeline else list_pipelines(tx, only_enabled=True)
            times = [item for row in rows for item in execution_times(tx, row.id, began)]
        curve = await asyncio.to_thread(lambda: held(feed, mode="paper").curve) if result.executed else []
    await _publish_process(result, times, curve)
    return result.as_dict()


@task(name="replay series", **POLICY)
async def replay_series(
    pipeline: str, start: str, end: str, series: Sequence[str], *, as_first_seen: bool = False,
) -> dict[str, Any]:
    """Replay a pipeline on one series; publishes signals, stage times, the chart and the equity curve."""
    with open_feed() as feed:
        key = Series.parse(*series)
        async with shown_progress(artifact_key("replay", pipeline, str(key)), f"Replay of {pipeline} on {key}", "candles") as meter:
            (replayed,) = await asyncio.to_thread(
                replay_pipeline, feed, pipeline, Interval.parse(start, end), series=key, as_first_seen=as_first_seen, progress=meter)
        await _publish_replay(replayed)
    result = replayed.result
    return {**summary(result), **signal_statistics(result.signals, result.engine.definition.threshold, result.candles)}


@task(name="plan replay", **POLICY)
async def plan_replay(pipeline: str, series: str | None) -> list[tuple[str, str, str]]:
    """Return the series to replay: the definition's, or the one named as `connection symbol timeframe`."""
    with open_feed() as feed:
        _, definition = await asyncio.to_thread(load, feed, pipeline)
    keys = definition.keys
    if series is not None:
        connection, _, rest = series.partition(" ")
        symbol, _, timeframe = rest.rpartition(" ")
        keys = [Series.parse(connection, symbol, timeframe)]
    return [(key.connection, key.symbol, key.timeframe.name) for key in keys]


@task(name="compare pipelines", **POLICY)
async def compare_on_candles(
    champion: str, challenger: str, start: str, end: str, *, horizon: int, live: bool,
) -> list[dict[str, Any]]:
    """Compare two pipelines by a replay, or by what both said live, and publish the report."""
    with open_feed() as feed:
        interval = Interval.parse(start, end)
        if live:
            found = await asyncio.to_thread(compare_shadow, feed, champion, challenger, interval, horizon=horizon)
        else:
            found = await asyncio.to_thread(compare_pipelines, feed, champion, challenger, interval, horizon=horizon)
    if in_run():
        await acreate_markdown_artifact(
            comparison_markdown(found), key=artifact_key("comparison", champion, challenger), description=f"{champion} against {challenger}")
    return [item.as_dict() for item in found]


def comparison_markdown(found: Sequence[Comparison]) -> str:
    """Return comparisons as Markdown, a section for each series."""
    lines = []
    for item in found:
        lines += [f"## {item.series}", "", f"**{item.verdict}**", "",
                  f"{item.candles} candles; both gave a signal on {item.both}, the same on {item.agree}", "",
                  "| pipeline | signals | mean gain, bp | 95 % interval | won |", "|---|---|---|---|---|"]
        for side in (item.champion, item.challenger):
            told = side.outcomes
            span = "" if told.low is None or told.high is None else f"{told.low:.2f} to {told.high:.2f}"
            mean = "" if told.mean is None else f"{told.mean:.2f}"
            won = "" if told.won is None else f"{told.won:.1%}"
            lines.append(f"| {side.pipeline} v{side.version} | {side.signals} | {mean} | {span} | {won} |")
        lines.append("")
    return "\n".join(lines)


def signal_rows(records: Sequence[SignalRecord]) -> list[dict[str, Any]]:
    """Return signals as table rows."""
    return [
        {"pipeline": item.pipeline, "version": item.version, "series": str(item.series), "candle": isoformat(item.ts_us), "side": item.side,
         "price": item.price, "confidence": round(item.confidence, 2), "actionable": item.is_actionable, "reason": redact(item.reason)}
        for item in records]


async def _publish_process(
    result: ProcessResult, times: Sequence[tuple[str, str, float]], curve: Sequence[tuple[int, float]],
) -> None:
    if result.signals:
        await publish_table(signal_rows(result.signals), "pipeline-signals", result.message)
    if times:
        rows = [item.as_dict() for item in stage_statistics(times)]
        await publish_table(rows, "pipeline-stage-times", "Time of each stage in milliseconds")
    if curve and in_run():
        at = pl.Series([at_us for at_us, _ in curve], dtype=pl.Int64).cast(CANDLE_SCHEMA["ts"])
        picture = curve_png(at, np.array([money for _, money in curve]), "Paper orders: money made until then", "quote currency")
        await acreate_image_artifact(_data_url(picture), key="pipeline-equity", description=f"{curve[-1][1]:.2f} after {len(curve)} fills and marks")


async def _publish_replay(replayed: Replayed) -> None:
    result = replayed.result
    name, series = result.context.pipeline, result.context.series
    records = result.records
    key = artifact_key("replay", name, str(series))
    digest = hashlib.sha256(result.lines).hexdigest()
    await publish_table(signal_rows(records), f"{key}-signals", f"{len(records)} signals of {name} on {series}, sha256 {digest}")
    await publish_table([item.as_dict() for item in result.statistics], f"{key}-stages", "Time of each stage in milliseconds")
    shown = replayed.judged.tail(CHART_CANDLES)
    if not in_run() or not len(shown):
        return
    from_us = int(shown["ts"].dt.epoch("us")[0])
    picture = chart_png(shown, [item for item in records if item.ts_us >= from_us], f"{name}: {series}, from {to_datetime(from_us):%Y-%m-%d %H:%M}")
    gains = returns_after(result.signals, replayed.candles, HORIZON)
    curve = equity_png(result.signals["ts"], gains, f"{name}: {series}, gain {HORIZON} candles after each signal, costs left out")
    for what, image in (("chart", picture), ("equity", curve)):
        await acreate_image_artifact(_data_url(image), key=artifact_key(key, what), description=f"{what} of {name} on {series}")


def _data_url(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()

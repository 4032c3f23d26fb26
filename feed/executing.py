"""Hands stored signals to their pipeline's executors, until each has answered for good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from core.errors import PluginError
from feed.context import Feed
from feed.trading import LiveServices
from pipeline.engine import Engine
from pipeline.events import PipelineStageCompleted, Subscriber, publish
from pipeline.stages import ExecutionReport, Side, SignalRecord
from storage.pipelines import PipelineRow, SignalRow, add_executions, list_signals, mark_execution


async def execute_pending(
    feed: Feed, pipeline: PipelineRow, engine: Engine, run_id: str, listeners: Sequence[Subscriber] = (),
) -> int:
    """Execute the pipeline's pending signals, oldest first; return how many an executor was asked about.

    A challenger's signals are never pending. An executor that raises leaves the signal pending: the next run asks it
    again, and it acts once for a signal's key however often it is asked.

    Raises:
        PluginError: an executor raised; the other signals were executed all the same.
    """
    executors = [item for item in engine.built if item.kind == "executor"]
    if not executors or pipeline.shadow_of is not None:
        return 0
    with feed.lake.metadata.read() as tx:
        waiting = list_signals(tx, pipeline.name, execution="pending")
    services = LiveServices(feed)
    last: PluginError | None = None
    for row in waiting:
        began = time.perf_counter()
        reports, failure = [], None
        for item in executors:
            try:
                # Ours wait for the broker as long as the provider's own time-outs say; what is cut off is asked about, never sent again.
                async with asyncio.timeout(None if item.is_ours else feed.settings.stage_timeout):
                    reports.append(await item.plugin.execute(record_of(row), services))
            except (asyncio.CancelledError, KeyboardInterrupt):
                raise
            except TimeoutError:
                failure = PluginError(f"executor {item.use.label} ({item.use.plugin}) did not answer within {feed.settings.stage_timeout:g} s")
            except BaseException as error:  # noqa: BLE001  an executor's failure ends this signal's try only
                text = " ".join(str(error).split())[:500]
                failure = PluginError(f"executor {item.use.label} ({item.use.plugin}) raised {type(error).__name__}: {text}")
        status, message = _joined(reports, failure)
        spent = (time.perf_counter() - began) * 1_000.0
        with feed.lake.metadata.write() as tx:
            mark_execution(tx, row.id, status, message)
            add_executions(tx, [_execution(row, message, failure) | {
                "run_id": run_id, "execution_time_ms": spent, "created_at_us": feed.clock.now_us()}])
        publish([PipelineStageCompleted(
            row.series, run_id, row.pipeline, row.version, row.ts_us, "executor", "error" if failure else "ok", round(spent, 3),
            str(failure) if failure else None)], listeners)
        last = failure or last
    if last is not None:
        raise last
    return len(waiting)


def record_of(row: SignalRow) -> SignalRecord:
    """Return a stored signal as executors get it."""
    side: Side = "buy" if row.side == "buy" else "sell"
    return SignalRecord(
        row.pipeline, row.version, row.series, row.ts_us, row.close_us, side, row.price, row.confidence, row.threshold,
        row.reason, dict(row.values), row.input_digest, row.as_of_us)


def _joined(reports: list[ExecutionReport], failure: PluginError | None) -> tuple[str, str]:
    if failure is not None:
        return "pending", str(failure)
    if any(report.status == "pending" for report in reports):
        status = "pending"
    else:
        status = "done" if any(report.status == "done" for report in reports) else "refused"
    return status, "; ".join(report.message for report in reports)


def _execution(row: SignalRow, message: str, failure: PluginError | None) -> dict[str, Any]:
    return {
        "pipeline_id": row.pipeline_id, "version": row.version, "series_id": row.series_id, "ts_us": row.ts_us,
        "as_of_us": row.as_of_us, "stage": "executor", "status": "error" if failure else "ok",
        "input_digest": row.input_digest, "output_digest": None, "rows_in": 1, "rows_out": 1, "parts": [{"message": message[:500]}],
        "error": str(failure) if failure else None,
    }

"""Task around the training of models: progress and artifacts; the work itself is feed's."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from prefect import task
from prefect.artifacts import acreate_image_artifact

from core.interval import Interval
from core.series import Series
from feed import open_feed
from feed.training import Plan, train_model
from pipeline.charts import reliability_png
from storage.models import ModelRow
from tasks.artifacts import artifact_key, publish_table
from tasks.events import in_run
from tasks.policies import POLICY
from tasks.progress import run_logger, shown_progress


@task(name="train model", **POLICY)
async def train_on_candles(
    name: str, series: tuple[str, str, str], start: str | None, end: str | None, plan: dict[str, Any],
) -> dict[str, Any]:
    """Train a model on stored candles; publishes its report and how far its probabilities came true.

    Args:
        name: the model's.
        series: connection, symbol, timeframe.
        start: first open time, ISO 8601; all stored candles when it or `end` is None.
        end: where to stop.
        plan: fields of `addons.ai_signals.training.Plan`; those left out have their defaults.
    """
    interval = None if start is None or end is None else Interval.parse(start, end)
    with open_feed() as feed:
        async with shown_progress(artifact_key("training", name), f"Training of {name}", "folds") as meter:
            row = await asyncio.to_thread(train_model, feed, name, Series.parse(*series), interval, Plan(**plan), progress=meter)
    run_logger().info("%s version %d: %s", row.name, row.version, row.report["verdict"])
    await _publish(row)
    return {"model": row.name, "version": row.version, "digest": row.digest, "verdict": row.report["verdict"]}


def report_rows(row: ModelRow) -> list[dict[str, Any]]:
    """Return a model's report as table rows: one for the unseen candles, one for the walk forward, and with costs two for falls."""
    report = row.report["report"]
    return [{"candles": what.replace("_", " "), **{name: value for name, value in report[what].items() if name != "reliability"}}
            for what in ("unseen", "walk_forward", "unseen_fall", "walk_forward_fall") if what in report]


async def _publish(row: ModelRow) -> None:
    key = artifact_key("model", row.name)
    await publish_table(report_rows(row), key, f"{row.name} version {row.version}: {row.report['verdict']}")
    if in_run():
        picture = reliability_png(row.report["report"]["unseen"]["reliability"], f"{row.name}: what was said and what came true, unseen candles")
        await acreate_image_artifact(
            "data:image/png;base64," + base64.b64encode(picture).decode(), key=artifact_key(key, "reliability"), description="reliability on unseen candles")

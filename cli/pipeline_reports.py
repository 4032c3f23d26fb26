"""What replays say on the command line: figures, and charts as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feed.replaying import Replayed


def report(item: Replayed, horizon: int) -> dict[str, Any]:
    """Return what a replay said as JSON-ready values."""
    from pipeline.metrics import outcomes, returns_after, signal_statistics
    from pipeline.replay import summary

    result = item.result
    gains = returns_after(result.signals, item.candles, horizon)
    return {
        **summary(result), **signal_statistics(result.signals, result.engine.definition.threshold, result.candles),
        "outcomes": outcomes(gains, horizon).as_dict()}


def draw(found: Sequence[Replayed], png: Path | None, html: Path | None) -> None:
    """Write the chart of the first series to the files that are named."""
    from pipeline.charts import chart_html, chart_png

    for item in found[:1]:
        drawn = (item.judged, item.result.records, f"{item.result.context.pipeline}: {item.result.context.series}")
        if png:
            png.write_bytes(chart_png(*drawn))
        if html:
            html.write_text(chart_html(*drawn), encoding="utf-8")

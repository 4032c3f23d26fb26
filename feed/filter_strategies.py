"""People's own filters: stored for each owner, tried out on stored candles."""

from __future__ import annotations

from typing import Any

from core.clock import isoformat
from core.errors import InputError
from core.series import Series
from feed.context import Feed
from pipeline.definition import read_definition
from pipeline.engine import Engine
from pipeline.stages import Context
from storage.pipelines import save_strategy
from storage.series import find_series, grid_of


def save(feed: Feed, owner: str, name: str, expression: str, description: str = "") -> None:
    """Check an expression and store it under a name.

    Raises:
        InputError: the name or the expression is wrong; says where and what is allowed.
    """
    _engine(expression, name)
    with feed.lake.metadata.write() as tx:
        save_strategy(tx, owner, name, expression=expression, description=description, now_us=feed.clock.now_us())


def try_out(feed: Feed, series: Series, expression: str, count: int = 1000) -> dict[str, Any]:
    """Run an expression on the newest candles of a series: how many pass, and the newest that do."""
    engine = _engine(expression, "trial")
    with feed.lake.metadata.read() as tx:
        row = find_series(tx, series)
        grid = grid_of(tx, row)
    candles = feed.lake.latest(series.connection, series.symbol, series.timeframe, count)
    if not len(candles):
        raise InputError("candles", f"none of {series}", "1 or more", "fetch or backfill the series first")
    context = Context("trial", 1, series, grid, feed.connections.get(series.connection).type)
    frame, passed = engine.columns(candles, context, "filter")
    kept = frame if passed is None else frame.filter(passed)
    return {
        "expression": expression, "series": str(series), "candles": len(candles), "passed": len(kept),
        "share": round(len(kept) / len(candles), 4), "newest": [isoformat(ts) for ts in kept["ts"].dt.epoch("us").tail(5).to_list()]}


def _engine(expression: str, name: str) -> Engine:
    """Return a pipeline that has nothing but this filter (and a signal generator that nobody asks)."""
    return Engine(read_definition({
        "name": name, "filters": [{"plugin": "filter_strategy", "parameters": {"expression": expression}}],
        "signals": [{"plugin": "breakout"}]}))

"""People's own filters: stored for each owner, tried out on stored candles."""

from __future__ import annotations

import re
from typing import Any

from addons.filter_strategy.compiler import CompiledFilter
from core.clock import isoformat
from core.errors import InputError
from core.series import Series
from feed.context import Feed
from pipeline.definition import NAME, NAME_MAX
from storage.audit import Witness, unwitnessed
from storage.pipelines import list_strategies, save_strategy
from storage.series import find_series


def save(feed: Feed, owner: str, name: str, expression: str, description: str = "", *, witness: Witness = unwitnessed) -> None:
    """Check an expression and store it under a name; `witness` as of connections.

    Raises:
        InputError: the name or the expression is wrong; says where and what is allowed.
    """
    if not re.fullmatch(NAME, name) or len(name) > NAME_MAX:
        raise InputError("filter name", name[:80], f"a-z first, then a-z, 0-9, single - or _, at most {NAME_MAX}", "choose another")
    CompiledFilter(expression)
    with feed.lake.metadata.write() as tx:
        save_strategy(tx, owner, name, expression=expression, description=description, now_us=feed.clock.now_us())
        witness(tx)


def try_out(feed: Feed, series: Series, wanted: str, count: int = 1000, *, owner: str = "") -> dict[str, Any]:
    """Run an expression, or the owner's filter of that name, on the newest candles of a series: how many pass, and the newest that do."""
    with feed.lake.metadata.read() as tx:
        find_series(tx, series)
        stored = [item["expression"] for item in list_strategies(tx, owner) if item["name"] == wanted]
    expression = stored[0] if stored else wanted
    compiled = CompiledFilter(expression)
    candles = feed.lake.latest(series.connection, series.symbol, series.timeframe, count)
    if not len(candles):
        raise InputError("candles", f"none of {series}", "1 or more", "fetch or backfill the series first")
    kept = candles.filter(compiled.run(candles))
    return {
        "expression": expression, "series": str(series), "candles": len(candles), "passed": len(kept),
        "share": round(len(kept) / len(candles), 4), "newest": [isoformat(ts) for ts in kept["ts"].dt.epoch("us").tail(5).to_list()]}

"""Pipelines as pages and API show them: a user's own, an admin's all; definition, executions, signals, times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from console.identity import Identity
from core.clock import isoformat
from core.errors import NotFoundError
from core.series import Series
from feed.context import Feed
from feed.order_kinds import orders_of
from pipeline.metrics import stage_statistics
from pipeline.registry import Registry
from storage import audit, pipelines
from storage.pipelines import PipelineRow, SignalRow

STAGES: Final = ("cleaners", "filters", "indicators", "signals", "confidence", "executors")
KINDS: Final = ("cleaner", "filter", "indicator", "signal", "confidence", "executor")  # of plug-ins, one for each stage
EXECUTIONS_SHOWN: Final = 200


def mine(feed: Feed, who: Identity) -> list[PipelineRow]:
    """Return the reader's pipelines."""
    with feed.lake.metadata.read() as tx:
        return [row for row in pipelines.list_pipelines(tx) if _may_see(who, row)]


def seen(feed: Feed, who: Identity, name: str) -> PipelineRow:
    """Return a pipeline of the reader; the same NotFoundError when it is absent or somebody else's."""
    for row in mine(feed, who):
        if row.name == name:
            return row
    raise NotFoundError(f"no pipeline {name[:80]!r} of yours; the list of pipelines shows those there are")


def as_dict(feed: Feed, row: PipelineRow) -> dict[str, Any]:
    """Return a pipeline as JSON-ready values, with whose money its orders move."""
    orders = orders_of(feed, row)
    return {
        "name": row.name, "owner": row.owner, "version": row.version, "is_enabled": row.is_enabled, "is_live": row.is_live,
        "orders": orders.kind, "orders_told": orders.line, "shadow_of": row.shadow_of, "failures": row.failures, "last_error": row.last_error,
        "created_at": isoformat(row.created_at_us), "updated_at": isoformat(row.updated_at_us), "definition": dict(row.definition),
    }


def stages(definition: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the stages as data flows through them: name and plug-ins, empty stages too."""
    return [{"name": name, "parts": [str(part.get("name") or part.get("plugin")) for part in definition.get(name) or ()]} for name in STAGES]


def signal_rows(feed: Feed, who: Identity, pipeline: str | None = None, series: Series | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """Return the newest signals of the reader's pipelines, oldest first."""
    ours = {row.name for row in mine(feed, who)}
    with feed.lake.metadata.read() as tx:
        found = pipelines.list_signals(tx, pipeline, series=series, limit=limit)
    return [_signal(row) for row in found if row.pipeline in ours]


def execution_rows(feed: Feed, row: PipelineRow, limit: int = EXECUTIONS_SHOWN) -> list[dict[str, Any]]:
    """Return the newest runs of single stages, newest first."""
    with feed.lake.metadata.read() as tx:
        found = pipelines.list_executions(tx, row.id, limit)
    return [{"at": isoformat(item["created_at_us"]), "candle": isoformat(item["ts_us"]), "version": item["version"], "stage": item["stage"],
             "status": item["status"], "rows_in": item["rows_in"], "rows_out": item["rows_out"],
             "ms": round(float(item["execution_time_ms"]), 3), "run_id": item["run_id"], "error": item["error"]} for item in found]


def times(feed: Feed, row: PipelineRow) -> list[dict[str, Any]]:
    """Return mean and 95th percentile of each stage, in milliseconds."""
    with feed.lake.metadata.read() as tx:
        return [item.as_dict() for item in stage_statistics(pipelines.execution_times(tx, row.id))]


def plugins() -> list[tuple[str, list[str]]]:
    """Return the plug-ins that a definition can name, by kind, in the order in which data flows."""
    found: dict[str, list[str]] = {}
    for item in Registry().describe():
        if item.problem is None and item.kind is not None:
            found.setdefault(item.kind, []).append(item.name)
    return [(kind, sorted(found[kind])) for kind in KINDS if kind in found]


def switch(feed: Feed, who: Identity, name: str, *, is_enabled: bool) -> PipelineRow:
    """Let scheduled runs use a pipeline, or keep it from them; audited."""
    row, now_us = seen(feed, who, name), feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        changed = pipelines.set_enabled(tx, row.name, enabled=is_enabled, now_us=now_us)
        audit.record(tx, who.user.name, who.via, "pipeline.enable" if is_enabled else "pipeline.disable", row.name, "done", now_us)
    return changed


def _may_see(who: Identity, row: PipelineRow) -> bool:
    return who.user.is_admin or row.owner == who.user.name


def _signal(row: SignalRow) -> dict[str, Any]:
    return {
        "pipeline": row.pipeline, "version": row.version, "connection": row.series.connection, "symbol": row.series.symbol,
        "timeframe": row.series.timeframe.name, "ts": isoformat(row.ts_us), "side": row.side, "price": row.price,
        "confidence": row.confidence, "threshold": row.threshold, "reason": row.reason, "is_shadow": row.is_shadow,
        "execution": row.execution, "execution_message": row.execution_message, "run_id": row.run_id,
    }

"""Whose money a pipeline's orders move: paper, a practice account, a real one; said wherever a pipeline is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection

from connections.accounts import account_of
from connections.rows import read_connection
from core.errors import NotFoundError
from feed.context import Feed
from storage.orders import is_halted
from storage.pipelines import PipelineRow

OrderKind = Literal["none", "paper", "demo", "unknown", "real"]
_WORST_LAST: Final[tuple[OrderKind, ...]] = ("none", "paper", "demo", "unknown", "real")


@dataclass(frozen=True, slots=True)
class OrdersTold:
    """The most serious kind of order that a pipeline's definition can lead to, and one line for a person."""

    kind: OrderKind
    line: str


def orders_of(feed: Feed, row: PipelineRow) -> OrdersTold:
    """Return whose money the pipeline's orders move, and which switches hold real ones back."""
    executors: list[Mapping[str, Any]] = list(row.definition.get("executors") or ())
    if not executors:
        return OrdersTold("none", "no orders: the definition has no executor")
    if row.shadow_of is not None:
        return OrdersTold("none", f"no orders: a challenger of {row.shadow_of} never trades")
    told: list[OrdersTold] = []
    with feed.lake.metadata.read() as tx:
        for item in executors:
            told += _of_executor(feed, tx, row, item)
    return OrdersTold(max((item.kind for item in told), key=_WORST_LAST.index), "; ".join(dict.fromkeys(item.line for item in told)))


def _of_executor(feed: Feed, tx: Connection, row: PipelineRow, executor: Mapping[str, Any]) -> list[OrdersTold]:
    if executor["plugin"] != "execution":
        return [OrdersTold("unknown", f"what the executor {executor['plugin']} orders is its own; take it for real money")]
    if executor.get("parameters", {}).get("mode", "paper") != "live":
        return [OrdersTold("paper", "paper orders: nothing is sent")]
    out = []
    for slug in dict.fromkeys(item["connection"] for item in row.definition["series"]):
        account, held = account_of(tx, slug), _held_back(feed, tx, row, slug)
        line = f"live orders on {slug}: {account.line(slug)}"
        out.append(OrdersTold(account.kind, line + (f"; none is sent while {' and '.join(held)}" if held else "")))
    return out or [OrdersTold("unknown", "live orders, of no series yet")]


def _held_back(feed: Feed, tx: Connection, row: PipelineRow, slug: str) -> list[str]:
    """Return the switches that are off, in the order in which a person meets them; the limits of the connection are not looked at."""
    held = []
    if not feed.settings.live_trading:
        held.append("CANDLELAKE_LIVE_TRADING is off")
    if not _allows(tx, slug):
        held.append(f"{slug} has no setting live_trading")
    if not row.is_live:
        held.append(f"`candlelake orders allow {row.name}` is not given")
    if is_halted(tx):
        held.append("all orders are halted")
    return held


def _allows(tx: Connection, slug: str) -> bool:
    try:
        return bool(read_connection(tx, slug).settings.get("live_trading"))
    except NotFoundError:
        return False

"""Orders: written down before they are sent, moved from state to state by compare-and-set, never deleted."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from core.errors import NotFoundError
from storage.metadata.tables_pipeline import orders, pipelines
from storage.metadata.tables_trading import trading_switch
from storage.statements import insert_into

OPEN: Final = ("new", "sending", "acknowledged")
CLIENT_ID_BYTES: Final = 12  # 26 letters: MetaTrader keeps 31 of a comment, Binance 36 of an id


def write_order(tx: Connection, values: Mapping[str, Any], now_us: int) -> Mapping[str, Any]:
    """Store an order with the status `new` unless its key has one; return what is stored under the key."""
    pipeline_id = tx.execute(select(pipelines.c.id).where(pipelines.c.name == values["pipeline"])).scalar()
    row = {
        **values, "client_id": "cl" + secrets.token_hex(CLIENT_ID_BYTES), "pipeline_id": pipeline_id, "status": "new",
        "detail": {}, "created_at_us": now_us, "updated_at_us": now_us}
    tx.execute(insert_into(tx, orders).values(**row).on_conflict_do_nothing(index_elements=["key"]))
    return get_order(tx, str(values["key"]))


def get_order(tx: Connection, key: str) -> Mapping[str, Any]:
    """Return an order by its key or its client id; NotFoundError when there is none."""
    found = find_order(tx, key)
    if found is None:
        raise NotFoundError(f"no order {key[:120]!r}; `candlelake orders list` shows those there are")
    return found


def find_order(tx: Connection, key: str) -> Mapping[str, Any] | None:
    """Return an order by its key or its client id, None when there is none."""
    found = tx.execute(select(orders).where((orders.c.key == key) | (orders.c.client_id == key))).mappings().first()
    return None if found is None else dict(found)


def move_order(tx: Connection, key: str, expected: Sequence[str], now_us: int, **values: Any) -> bool:
    """Change an order whose status is one of `expected`; returns whether it was."""
    done = tx.execute(orders.update().where(orders.c.key == key, orders.c.status.in_(expected)).values(updated_at_us=now_us, **values))
    return done.rowcount == 1


def list_orders(
    tx: Connection, *, pipeline: str | None = None, connection: str | None = None, mode: str | None = None,
    statuses: Sequence[str] | None = None, limit: int | None = None,
) -> list[Mapping[str, Any]]:
    """Return the orders that match all that is given, oldest first; with a limit the newest ones."""
    query = select(orders).order_by(orders.c.id.desc())
    for column, value in ((orders.c.pipeline, pipeline), (orders.c.connection, connection), (orders.c.mode, mode)):
        query = query if value is None else query.where(column == value)
    if statuses is not None:
        query = query.where(orders.c.status.in_(statuses))
    return [dict(row) for row in reversed(tx.execute(query if limit is None else query.limit(limit)).mappings().all())]


def lock_switch(tx: Connection) -> Mapping[str, Any]:
    """Return the kill switch and keep it locked until the transaction ends: orders are allowed one after the other."""
    first = {"id": 1, "is_halted": False, "reason": "", "changed_by": "", "changed_at_us": 0}
    tx.execute(insert_into(tx, trading_switch).values(**first).on_conflict_do_nothing(index_elements=["id"]))
    return dict(tx.execute(select(trading_switch).where(trading_switch.c.id == 1).with_for_update()).mappings().one())


def is_halted(tx: Connection) -> bool:
    """Whether all real orders are halted."""
    return bool(tx.execute(select(trading_switch.c.is_halted).where(trading_switch.c.id == 1)).scalar())


def set_switch(tx: Connection, *, halted: bool, reason: str, by: str, now_us: int) -> Mapping[str, Any]:
    """Halt or resume real orders."""
    lock_switch(tx)
    tx.execute(trading_switch.update().where(trading_switch.c.id == 1).values(
        is_halted=halted, reason=reason[:500], changed_by=by[:200], changed_at_us=now_us))
    return lock_switch(tx)

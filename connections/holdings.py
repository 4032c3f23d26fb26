"""What is stored of a connection's series: it stays until somebody says that it may be lost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import ColumnElement, Connection, Select, func, select

from connections.leases import Lease, Leases
from core.clock import LATEST_US
from core.errors import LeaseHeldError, PermanentError
from storage import Lake
from storage.lake.local import remove
from storage.metadata.tables import head_candles, lake_files, series
from storage.metadata.tables_ticks import tick_files, tick_series

PURGE_SECONDS: Final = 600.0  # one that takes longer ends with nothing deleted but candles; one that is killed frees the lease at once


def count_stored(tx: Connection, connection_id: int) -> int:
    """Return how many candles are stored, head and lake; one in both counts twice."""
    ids = _series_ids(connection_id)
    head = tx.execute(select(func.coalesce(func.sum(head_candles.c.rows), 0)).where(head_candles.c.series_id.in_(ids)))
    lake = tx.execute(select(func.coalesce(func.sum(lake_files.c.rows), 0)).where(
        lake_files.c.series_id.in_(ids), lake_files.c.superseded_at_us.is_(None), lake_files.c.dataset != "revisions"))
    return int(head.scalar_one()) + int(lake.scalar_one())


def count_ticks(lake: Lake, tx: Connection, slug: str, connection_id: int) -> int:
    """Return how many ticks are stored, in files and in journals."""
    return lake.tick_store.count_journalled(slug) + int(tx.execute(select(func.coalesce(func.sum(tick_files.c.rows), 0)).where(_live_ticks(connection_id))).scalar_one())


@contextmanager
def unstreamed(leases: Leases, slug: str) -> Iterator[Lease]:
    """Keep streams of a connection away while the body runs.

    Raises:
        PermanentError: it is streamed now; a person ends that.
    """
    try:
        lease = leases.acquire(f"stream:{slug}", PURGE_SECONDS)
    except LeaseHeldError:
        raise PermanentError(f"{slug} is streamed now, or being deleted by another process; deactivate it, which ends its stream within seconds, then delete it again") from None
    try:
        yield lease
    finally:
        leases.release(lease)


def remove_stored(lake: Lake, slug: str) -> None:
    """Remove all candles and ticks of a connection, which `unstreamed` holds; the files lie in .old/ for its grace."""
    lake.apply_retention(lake.plan_retention(LATEST_US, slug, is_forced=True))
    lake.tick_store.drop_journals(slug)
    lake.tick_store.apply_retention(lake.tick_store.plan_retention(LATEST_US, slug))


def retire_files(lake: Lake, tx: Connection, connection_id: int) -> None:
    """Move what still lies in the tree of a connection's files to .old/, before their rows leave the manifest.

    Revisions, and what an earlier purge had taken out of the manifest when it was killed: whose rows are gone is nobody's to
    sweep, and a rebuild would bring it back.
    """
    for files, owned in ((lake_files, lake_files.c.series_id.in_(_series_ids(connection_id))),
                         (tick_files, tick_files.c.tick_series_id.in_(_tick_series_ids(connection_id)))):
        for (path,) in tx.execute(select(files.c.path).where(owned)).all():
            remove(lake.place, path)


def check_empty(tx: Connection, slug: str, connection_id: int, series_ids: Sequence[int]) -> None:
    """Raise PermanentError when a candle or a tick has come in meanwhile: none is ever removed silently."""
    head = tx.execute(select(head_candles.c.series_id).where(head_candles.c.series_id.in_(series_ids)).limit(1)).first()
    live = tx.execute(select(lake_files.c.path).where(
        lake_files.c.series_id.in_(series_ids), lake_files.c.superseded_at_us.is_(None),
        lake_files.c.dataset != "revisions").limit(1)).first()
    ticks = tx.execute(select(tick_files.c.path).where(_live_ticks(connection_id)).limit(1)).first()
    if head is not None or live is not None or ticks is not None:
        raise PermanentError(f"{slug} still has stored data; deactivate it, wait for running fetches and delete it again")


def _live_ticks(connection_id: int) -> ColumnElement[bool]:
    return tick_files.c.tick_series_id.in_(_tick_series_ids(connection_id)) & tick_files.c.superseded_at_us.is_(None)


def _series_ids(connection_id: int) -> Select[tuple[int]]:
    return select(series.c.id).where(series.c.connection_id == connection_id)


def _tick_series_ids(connection_id: int) -> Select[tuple[int]]:
    return select(tick_series.c.id).where(tick_series.c.connection_id == connection_id)

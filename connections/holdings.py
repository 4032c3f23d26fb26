"""What is stored of a connection's series: it stays until somebody says that it may be lost."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from core.errors import PermanentError
from storage.metadata.tables import head_candles, lake_files, series


def count_stored(tx: Connection, connection_id: int) -> int:
    """Return how many rows of candles and ticks are stored, head and lake; a candle in both counts twice."""
    ids = select(series.c.id).where(series.c.connection_id == connection_id)
    head = tx.execute(select(func.coalesce(func.sum(head_candles.c.rows), 0)).where(head_candles.c.series_id.in_(ids)))
    lake = tx.execute(select(func.coalesce(func.sum(lake_files.c.rows), 0)).where(
        lake_files.c.series_id.in_(ids), lake_files.c.superseded_at_us.is_(None), lake_files.c.dataset != "revisions"))
    return int(head.scalar_one()) + int(lake.scalar_one())


def check_empty(tx: Connection, slug: str, series_ids: Sequence[int]) -> None:
    """Raise PermanentError when a candle has come in meanwhile: none is ever removed silently."""
    head = tx.execute(select(head_candles.c.series_id).where(head_candles.c.series_id.in_(series_ids)).limit(1)).first()
    live = tx.execute(select(lake_files.c.path).where(
        lake_files.c.series_id.in_(series_ids), lake_files.c.superseded_at_us.is_(None),
        lake_files.c.dataset != "revisions").limit(1)).first()
    if head is not None or live is not None:
        raise PermanentError(f"{slug} still has stored data; deactivate it, wait for running fetches and delete it again")

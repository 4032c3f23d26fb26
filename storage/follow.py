"""Follows a series: each candle that is stored, by whichever process, comes out within milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import polars as pl
from sqlalchemy import Connection

from core.candles import STORED_SCHEMA
from core.clock import LATEST_US, to_datetime, to_us
from core.interval import Interval
from core.series import Series
from storage.lake.blocks import blocks_in, candles_of
from storage.lake.place import Place
from storage.lake.reader import pin, read_pin
from storage.series import find_series
from storage.statements import fetch

LOOK_SECONDS: Final = 0.02


async def follow(place: Place, series: Series, after_us: int | None = None) -> AsyncIterator[pl.DataFrame]:
    """Yield the candles of `series` as they are stored or revised: frames of STORED_SCHEMA, never empty; runs for ever.

    Args:
        place: of the lake.
        series: to follow.
        after_us: begin with the stored candles that open after this instant; None begins with what comes from now on.

    Raises:
        NotFoundError: no such series.
    """
    with place.metadata.read() as tx:
        row = find_series(tx, series)
    last_us = (row.last_us or 0) if after_us is None else after_us
    known_us = place.clock.now_us() if after_us is None else 0
    delivered: set[tuple[int, int]] = set()
    with place.metadata.engine.connect() as watch:
        seen = None
        while True:
            version = _version(watch, is_sqlite=place.metadata.is_sqlite)
            if version is None or version != seen:
                seen = version
                frame = await asyncio.to_thread(_news, place, row.id, last_us, known_us)
                keys = list(zip(frame["ts"].dt.epoch("us").to_list(), frame["known_at"].dt.epoch("us").to_list(), strict=True))
                frame = frame.filter(pl.Series([key not in delivered for key in keys], dtype=pl.Boolean))
                if not frame.is_empty():
                    known_us = max(known_us, to_us(frame["known_at"].max()))  # type: ignore[arg-type]
                    delivered = {key for key in (*delivered, *keys) if key[1] >= known_us}
                    last_us = max(last_us, to_us(frame["ts"].max()))  # type: ignore[arg-type]
                    yield frame
                    continue
            await asyncio.sleep(LOOK_SECONDS)


def _version(watch: Connection, *, is_sqlite: bool) -> int | None:
    """Return SQLite's count of changes by others; None where there is no such count: then each look asks."""
    if not is_sqlite:
        return None
    found = int(watch.exec_driver_sql("PRAGMA data_version").scalar_one())
    watch.rollback()
    return found


def _news(place: Place, series_id: int, last_us: int, known_us: int) -> pl.DataFrame:
    with place.metadata.read() as tx:
        fresh = candles_of([block for block in blocks_in(tx, series_id) if block.known_at_us >= known_us or block.last_us > last_us])
        fresh = fresh.filter((pl.col("known_at") >= to_datetime(known_us)) | (pl.col("ts") > to_datetime(last_us)))
        reached = fetch(tx, "SELECT last_us FROM series WHERE id = ?", (series_id,))[0][0] or 0
        newest = to_us(fresh["ts"][-1]) if fresh.height else 0
        if reached <= max(last_us, newest) and not (fresh.height and _has_hole(tx, series_id, last_us)):
            return fresh
        interval = Interval(last_us + 1, LATEST_US)  # the head was flushed before we looked
        whole = read_pin(place, pin(tx, series_id, interval), interval)
    older = fresh.filter(pl.col("ts") <= to_datetime(last_us))
    return pl.concat([older, whole]).select(list(STORED_SCHEMA)).sort("ts")


def _has_hole(tx: Connection, series_id: int, last_us: int) -> bool:
    """Whether files hold candles past `last_us`: some were flushed between two looks."""
    return bool(fetch(tx, "SELECT 1 FROM lake_files WHERE series_id = ? AND dataset = 'candles' AND superseded_at_us IS NULL"
                          " AND last_us > ? LIMIT 1", (series_id, last_us)))

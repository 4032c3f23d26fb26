"""Follows a series: each candle that is stored, by whichever process, comes out within milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import polars as pl
from sqlalchemy import Connection

from core.clock import EARLIEST_US, SECOND_US, to_datetime, to_us
from core.series import Series
from storage.lake.blocks import blocks_in, candles_of
from storage.lake.place import Place
from storage.lake.reader import read_files
from storage.series import find_series
from storage.statements import fetch

LOOK_SECONDS: Final = 0.02
APART_US: Final = 2 * SECOND_US  # by so much the clocks of machines that write one series may differ


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
        seen_file = _newest_file(tx, row.id) if after_us is None else 0
    last_us, least_us = (row.last_us or 0, EARLIEST_US) if after_us is None else (after_us, after_us)
    begun_us = known_us = place.clock.now_us()
    delivered: set[tuple[int, int]] = set()
    with place.metadata.engine.connect() as watch:
        seen = None
        while True:
            version = _version(watch, is_sqlite=place.metadata.is_sqlite)
            if version is not None and version == seen:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            seen, is_news = version, False
            since_us = max(begun_us, known_us - APART_US)
            fresh = (pl.col("known_at") >= to_datetime(since_us)) | (pl.col("ts") > to_datetime(last_us))
            head, files, seen_file = await asyncio.to_thread(_look, place, row.id, Looked(seen_file, least_us, last_us, since_us))
            least_us = EARLIEST_US
            for path in (*files, None):  # the head last: it is newer
                frame = head if path is None else await asyncio.to_thread(read_files, place, [path])
                frame = frame.filter(fresh)
                keys = list(zip(frame["ts"].dt.epoch("us").to_list(), frame["known_at"].dt.epoch("us").to_list(), strict=True))
                frame = frame.filter(pl.Series([key not in delivered for key in keys], dtype=pl.Boolean))
                if not frame.is_empty():
                    is_news = True
                    known_us = max(known_us, to_us(frame["known_at"].max()))  # type: ignore[arg-type]
                    delivered.update(keys)
                    last_us = max(last_us, to_us(frame["ts"].max()))  # type: ignore[arg-type]
                    yield frame
            delivered = {key for key in delivered if key[1] >= known_us - APART_US}
            if not is_news:
                await asyncio.sleep(LOOK_SECONDS)


def _version(watch: Connection, *, is_sqlite: bool) -> int | None:
    """Return SQLite's count of changes by others; None where there is no such count: then each look asks."""
    if not is_sqlite:
        return None
    found = int(watch.exec_driver_sql("PRAGMA data_version").scalar_one())
    watch.rollback()
    return found


class Looked(NamedTuple):
    """What earlier looks have seen: the newest file, and candles up to `last_us` and known before `since_us`; nothing up to `least_us` is wanted."""

    file: int
    least_us: int
    last_us: int
    since_us: int


def _look(place: Place, series_id: int, before: Looked) -> tuple[pl.DataFrame, list[str], int]:
    """Return the head's candles that may be news, the files that came since, ascending, and the newest file's id.

    What a flush took out of the head between two looks lies in such a file.
    """
    with place.metadata.read() as tx:
        blocks = [block for block in blocks_in(tx, series_id) if block.known_at_us >= before.since_us or block.last_us > before.last_us]
        files = fetch(tx, "SELECT path FROM lake_files WHERE series_id = ? AND dataset = 'candles' AND superseded_at_us IS NULL"
                          " AND id > ? AND last_us > ? ORDER BY first_us", (series_id, before.file, before.least_us))
        return candles_of(blocks), [path for (path,) in files], _newest_file(tx, series_id)


def _newest_file(tx: Connection, series_id: int) -> int:
    return int(fetch(tx, "SELECT COALESCE(MAX(id), 0) FROM lake_files WHERE series_id = ? AND dataset = 'candles'", (series_id,))[0][0])

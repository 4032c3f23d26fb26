"""The head's blocks: the candles that one write brought for one series, packed into one row of `head_candles`.

A block has one `known_at_us`, one source and one run. `candles` holds, for each candle and ascending, its open time (int64,
microseconds) and its six values (float64, a missing spread as NaN), little-endian. A time lies in one block of its series
at most; a block may still lie between the candles of another. The reason is speed: SQLite takes longer to bind and insert a
thousand candles value by value than to sync them, and Python longer to turn rows into columns than to read them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import Connection

from core.candles import TS, VALUES
from core.clock import EARLIEST_US, LATEST_US
from core.interval import Interval
from storage.lake.schema import ALL_COLUMNS, empty_stored
from storage.statements import Row, execute_many, fetch, insert_many, marks

ALL: Final = Interval(EARLIEST_US, LATEST_US)
CANDLE_BYTES: Final = 8 * (1 + len(VALUES))
BLOCK_ROWS: Final = 4_096  # what a revision of one candle may cost to write again
_KEPT_ROWS, _KEPT_FRAMES = 1_000, 128  # about 20 MB at most in one process
_NUMBERS: Final = 1 + len(VALUES)
_COLUMNS: Final = "first_us, last_us, rows, known_at_us, source, run_id, candles"
BLOCK_COLUMNS: Final = tuple(_COLUMNS.split(", "))


class Block(NamedTuple):
    """One block: its first and last open time, how many candles, what they share, and the packed candles."""

    first_us: int
    last_us: int
    rows: int
    known_at_us: int
    source: str
    run_id: str
    candles: bytes

    @property
    def times(self) -> NDArray[np.int64]:
        """The open times, ascending."""
        return np.frombuffer(self.candles, "<i8")[::_NUMBERS]

    def between(self, interval: Interval) -> Iterator[tuple[int, bytes]]:
        """Yield the open time and the packed bytes of each candle in `interval`, ascending."""
        times = self.times
        low, high = np.searchsorted(times, (interval.start, interval.end)).tolist()
        for place, time in enumerate(times[low:high].tolist(), low):
            yield time, self.candles[place * CANDLE_BYTES:(place + 1) * CANDLE_BYTES]

    def without(self, times: Collection[int]) -> list[Block]:
        """Return the block without the candles that open at `times`; nothing when none is left."""
        kept = np.isin(self.times, list(times), invert=True)
        candles = np.frombuffer(self.candles, "<i8").reshape(-1, _NUMBERS)[kept]
        return cut_blocks(candles[:, 0].tolist(), candles.tobytes(), self.known_at_us, self.source, self.run_id)


def cut_blocks(times: Sequence[int], candles: bytes, known_at_us: int, source: str, run_id: str) -> list[Block]:
    """Return packed candles, ascending, as blocks of at most BLOCK_ROWS."""
    out = []
    for start in range(0, len(times), BLOCK_ROWS):
        part = times[start:start + BLOCK_ROWS]
        out.append(Block(part[0], part[-1], len(part), known_at_us, source, run_id,
                         candles[start * CANDLE_BYTES:(start + len(part)) * CANDLE_BYTES]))
    return out


def pack(frame: pl.DataFrame) -> NDArray[np.int64]:
    """Return a frame's candles, a row of int64 each, whose `tobytes()` are packed candles; the values' bits stand in them.

    Equal values have equal bits: zero has no sign, and a value that is missing is the one NaN. A time that is missing is 0.
    """
    out = np.empty((frame.height, _NUMBERS), "<i8")
    values = out.view("<f8")
    ts = frame.get_column("ts").to_physical()
    out[:, 0] = (ts.fill_null(0) if ts.null_count() else ts).to_numpy()
    for place, name in enumerate(VALUES, 1):
        values[:, place] = frame.get_column(name).to_numpy() + 0.0
    spread = values[:, -1]
    spread[np.isnan(spread)] = np.nan
    return out


def blocks_in(tx: Connection, series_id: int, interval: Interval = ALL) -> list[Block]:
    """Return the blocks of a series that may hold candles of `interval`, ascending by their last one."""
    return [Block(*row) for row in fetch(
        tx, f"SELECT {_COLUMNS} FROM head_candles WHERE series_id = ? AND last_us >= ? AND first_us < ?"  # noqa: S608  names
            " ORDER BY last_us", (series_id, interval.start, interval.end))]


def blocks_of(tx: Connection, series_ids: Sequence[int], interval: Interval) -> dict[int, list[Block]]:
    """Do `blocks_in` for some hundreds of series at once; those without blocks there are left out."""
    out: dict[int, list[Block]] = defaultdict(list)
    for series_id, *rest in fetch(
            tx, f"SELECT series_id, {_COLUMNS} FROM head_candles WHERE last_us >= ? AND first_us < ?"  # noqa: S608  names, marks
                f" AND series_id IN ({marks(series_ids)}) ORDER BY series_id, last_us", (interval.start, interval.end, *series_ids)):
        out[series_id].append(Block(*rest))
    return out


def newest_candles(tx: Connection, series_id: int, count: int, columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return the `count` newest candles of a series' head, or all: `columns` of STORED_SCHEMA, ts among them, ascending."""
    blocks = _newest_blocks(tx, series_id, count)
    if len(blocks) == 1 and blocks[0].rows > count:  # the end of a page of a backfill: to make columns of the rest costs more
        times = blocks[0].times[-count:].tolist()
        blocks = [blocks[0]._replace(first_us=times[0], rows=count, candles=blocks[0].candles[-count * CANDLE_BYTES:])]
    held = sum(block.rows for block in blocks)
    return (_kept(tuple(blocks), tuple(columns)) if held <= _KEPT_ROWS else candles_of(blocks, columns=columns)).tail(count)


@lru_cache(maxsize=_KEPT_FRAMES)
def _kept(blocks: tuple[Block, ...], columns: tuple[str, ...]) -> pl.DataFrame:
    """Do `candles_of` once: what is asked for again and again comes from the same blocks until the next candle."""
    return candles_of(blocks, columns=columns)


def _newest_blocks(tx: Connection, series_id: int, count: int) -> list[Block]:
    """Return the blocks that hold the `count` newest candles, ascending by their last one."""
    sizes = fetch(tx, "SELECT first_us, last_us, rows FROM head_candles WHERE series_id = ? ORDER BY last_us DESC LIMIT ?",
                  (series_id, count))  # so many blocks hold so many candles, and none that is newer lies in another
    if not sizes:
        return []
    lowest, held, oldest = LATEST_US, 0, sizes[-1][1]
    for (first_us, last_us, rows), (_, next_us, _) in pairwise(sizes):
        lowest, held = min(lowest, first_us), held + rows
        if held >= count and lowest > next_us:  # all that these hold is newer than all that is left
            oldest = last_us
            break
    return blocks_in(tx, series_id, Interval(oldest, LATEST_US))


def insert_blocks(tx: Connection, rows: Sequence[Row]) -> None:
    """Add blocks, each as a row that begins with the id of its series."""
    insert_many(tx, f"INSERT INTO head_candles (series_id, {_COLUMNS})", 1 + len(BLOCK_COLUMNS), rows)


def replace_blocks(tx: Connection, series_id: int, old: Sequence[Block], new: Sequence[Block]) -> None:
    """Take blocks of a series out of the head, and add what is left of them."""
    execute_many(tx, "DELETE FROM head_candles WHERE series_id = ? AND last_us = ?", [(series_id, block.last_us) for block in old])
    insert_blocks(tx, [(series_id, *block) for block in new])


def drop_before(tx: Connection, series_id: int, before_us: int) -> None:
    """Take the candles that open before an instant out of the head."""
    execute_many(tx, "DELETE FROM head_candles WHERE series_id = ? AND last_us < ?", [(series_id, before_us)])
    crossing = [block for block in blocks_in(tx, series_id) if block.first_us < before_us]
    replace_blocks(tx, series_id, crossing, [
        part for block in crossing for part in block.without(block.times[block.times < before_us].tolist())])


def times_of(blocks: Sequence[Block], interval: Interval = ALL) -> NDArray[np.int64]:
    """Return the open times of the blocks' candles in `interval`, ascending."""
    times = np.sort(np.concatenate([np.empty(0, np.int64), *(block.times for block in blocks)]))
    low, high = np.searchsorted(times, (interval.start, interval.end))
    return times[low:high]


def candles_of(blocks: Sequence[Block], interval: Interval = ALL, columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return the blocks' candles in `interval`, of one series: `columns` of STORED_SCHEMA, ts among them, ascending."""
    frame = unpacked(blocks, columns)
    if any(after.first_us <= before.last_us for before, after in pairwise(blocks)):  # one lies between the candles of another
        frame = frame.sort("ts")
    if all(interval.start <= block.first_us and block.last_us < interval.end for block in blocks):
        return frame
    low, high = np.searchsorted(frame.get_column("ts").to_physical().to_numpy(), (interval.start, interval.end)).tolist()
    return frame.slice(low, high - low)


def unpacked(blocks: Sequence[Block], columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return the blocks' candles in the order of the blocks: `columns` of STORED_SCHEMA."""
    if not blocks:
        return empty_stored(columns)
    numbers = np.frombuffer(b"".join([block.candles for block in blocks]), "<i8").reshape(-1, _NUMBERS)
    packed = np.ascontiguousarray(numbers.T)
    counts = [block.rows for block in blocks]
    # Column by column: each of Polars' own ways from rows or arrays takes longer for a few candles.
    return pl.DataFrame([_column(name, blocks, packed, counts) for name in columns])


def _column(name: str, blocks: Sequence[Block], packed: NDArray[np.int64], counts: list[int]) -> pl.Series:
    if name == "ts":
        return pl.Series(name, packed[0]).cast(TS)
    if name in VALUES:
        return pl.Series(name, packed[1 + VALUES.index(name)].view("<f8"), nan_to_null=name == VALUES[-1])
    if name == "known_at":
        return pl.Series(name, np.repeat(np.array([block.known_at_us for block in blocks], np.int64), counts)).cast(TS)
    return _repeated(name, [getattr(block, name) for block in blocks], counts)


def _repeated(name: str, texts: list[str], counts: list[int]) -> pl.Series:
    """Return each text so many times."""
    if texts.count(texts[0]) == len(texts):
        return pl.Series(name, texts[:1]).new_from_index(0, sum(counts))
    if len(texts) == sum(counts):
        return pl.Series(name, texts)
    return pl.Series(name, texts).gather(np.repeat(np.arange(len(texts)), counts))

"""The last candles of a lake file, at the cost of its last row group; the newest ones are kept, for a file never changes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from core.candles import STORED_SCHEMA
from storage.lake.schema import ALL_COLUMNS

_KEPT_ROWS, _KEPT_FILES = 1_000, 256  # about 25 MB at most in one process


def read_tail(path: Path, count: int, columns: Sequence[str] = ALL_COLUMNS) -> pl.DataFrame:
    """Return the `count` last rows of a file (all, when it has fewer): `columns` of STORED_SCHEMA.

    Raises:
        OSError: the file is not there or cannot be read.
    """
    if count > _KEPT_ROWS:
        return _read(str(path), count, columns)
    found = path.stat()  # a file that was lost or damaged meanwhile must not be answered from memory
    return _kept(str(path), tuple(columns), found.st_ino, found.st_size, found.st_mtime_ns).tail(count)


@lru_cache(maxsize=_KEPT_FILES)
def _kept(path: str, columns: tuple[str, ...], _inode: int, _size: int, _changed: int) -> pl.DataFrame:
    return _read(path, _KEPT_ROWS, columns)


def _read(path: str, count: int, columns: Sequence[str]) -> pl.DataFrame:
    with pq.ParquetFile(path, pre_buffer=False) as file:  # type: ignore[no-untyped-call]
        wanted = 0
        groups: list[int] = []
        for index in range(file.metadata.num_row_groups - 1, -1, -1):
            groups.insert(0, index)
            wanted += file.metadata.row_group(index).num_rows
            if wanted >= count:
                break
        table = file.read_row_groups(groups, columns=list(columns))
    # Taken, not sliced: a slice would keep the whole row groups in memory.
    frame = pl.DataFrame(table.take(np.arange(max(0, table.num_rows - count), table.num_rows)))
    schema = pl.Schema({name: STORED_SCHEMA[name] for name in columns})
    return frame if frame.schema == schema else frame.select(columns).cast(schema)

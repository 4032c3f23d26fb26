"""The last candles of a lake file, at the cost of its last row group; the newest ones are kept, for a file never changes."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from core.candles import STORED_SCHEMA

_KEPT_ROWS, _KEPT_FILES = 1_000, 256  # about 25 MB at most in one process


def read_tail(path: Path, count: int) -> pl.DataFrame:
    """Return the `count` last rows of a file (all, when it has fewer), of STORED_SCHEMA.

    Raises:
        OSError: the file is not there or cannot be read.
    """
    if count > _KEPT_ROWS:
        return _read(str(path), count)
    found = path.stat()  # a file that was lost or damaged meanwhile must not be answered from memory
    return _kept(str(path), found.st_ino, found.st_size, found.st_mtime_ns).tail(count)


@lru_cache(maxsize=_KEPT_FILES)
def _kept(path: str, _inode: int, _size: int, _changed: int) -> pl.DataFrame:
    return _read(path, _KEPT_ROWS)


def _read(path: str, count: int) -> pl.DataFrame:
    with pq.ParquetFile(path, pre_buffer=False) as file:  # type: ignore[no-untyped-call]
        wanted = 0
        groups: list[int] = []
        for index in range(file.metadata.num_row_groups - 1, -1, -1):
            groups.insert(0, index)
            wanted += file.metadata.row_group(index).num_rows
            if wanted >= count:
                break
        table = file.read_row_groups(groups)
    # Taken, not sliced: a slice would keep the whole row groups in memory.
    frame = pl.DataFrame(table.take(np.arange(max(0, table.num_rows - count), table.num_rows)))
    return frame if frame.schema == STORED_SCHEMA else frame.select(list(STORED_SCHEMA)).cast(STORED_SCHEMA)

"""The tail of a lake file: the last rows whatever the row groups, and never an answer from a file that changed or went."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.candles import STORED_SCHEMA
from storage.lake.tail import read_tail
from storage.lake.writer import encode
from tests.storage.conftest import START_US, candles


def _stored(rows: int, price: float = 100.0) -> pl.DataFrame:
    """Return `rows` candles as a file of the lake holds them."""
    return candles(START_US, rows, price).with_columns(
        known_at=pl.col("ts"), source=pl.lit("rest"), run_id=pl.lit("r")).select(list(STORED_SCHEMA))


def _file(folder: Path, frame: pl.DataFrame, group: int) -> Path:
    path = folder / f"{frame.height}-{group}.parquet"
    if not path.exists():
        frame.write_parquet(path, row_group_size=group)
    return path


@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.sampled_from([1, 2, 999, 1000, 1001, 2500]), group=st.sampled_from([7, 100, 1000, 4000]),
       count=st.integers(1, 3000))
def test_a_tail_is_the_end_of_the_whole_file(tmp_path, rows, group, count):
    """For any number asked and any row groups the tail equals the end of the file read whole; all of it when it is shorter."""
    frame = _stored(rows)
    assert read_tail(_file(tmp_path, frame, group), count).equals(frame.tail(count))


def test_other_columns_and_types_come_as_stored_candles(tmp_path):
    """A file with its columns in another order, or a time zone of another name, gives the lake's own columns and types."""
    frame = _stored(30)
    path = tmp_path / "foreign.parquet"
    frame.select(reversed(frame.columns)).with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC"))).write_parquet(path)
    found = read_tail(path, 10)
    assert found.schema == STORED_SCHEMA
    assert found.equals(frame.tail(10))


def test_what_is_remembered_ends_with_the_file(tmp_path):
    """A file that was replaced is read anew, and a file that is gone is an error, though its rows are still in memory."""
    path = tmp_path / "a.parquet"
    path.write_bytes(encode(_stored(50)))
    assert read_tail(path, 5).equals(_stored(50).tail(5))
    other = tmp_path / "b.parquet"
    other.write_bytes(encode(_stored(60, price=500.0)))
    os.replace(other, path)  # noqa: PTH105  the call whose meaning is tested
    assert read_tail(path, 5).equals(_stored(60, price=500.0).tail(5))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_tail(path, 5)


def test_a_caller_cannot_change_what_is_remembered(tmp_path):
    """Two readers of one file get equal rows, whatever the first did with its frame."""
    path = tmp_path / "a.parquet"
    path.write_bytes(encode(_stored(50)))
    first = read_tail(path, 50)
    first[0, "close"] = -1.0
    assert read_tail(path, 50).equals(_stored(50))

"""Many partitions written at once: the same files as one by one, and nothing left behind when one of them fails."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.candles import CANDLE_SCHEMA
from core.clock import DAY_US, MINUTE_US, parse_instant
from core.errors import StoreCorruptError, StoreUnwritableError
from core.series import Series
from core.timeframe import Timeframe
from storage import Batch
from storage.lake import layout
from storage.lake.flush import by_period
from tests.storage.conftest import candles

KEY = ("kraken", "BTC/USDT", "1m")
SERIES = Series(KEY[0], KEY[1], Timeframe.parse("1m"))
START_US = parse_instant("2025-01-01")
MONTHS = 9


def _long(price: float = 100.0) -> pl.DataFrame:
    """Return some candles in each of nine months."""
    return pl.concat([candles(START_US + number * 31 * DAY_US, 40, price + number) for number in range(MONTHS)])


def _files(root: Path) -> list[Path]:
    return sorted((root / "candles").rglob("*.parquet"))


@hypothesis_settings(max_examples=50, deadline=None)
@given(steps=st.lists(st.integers(1, 60 * 24 * 40), min_size=1, max_size=40), timeframe=st.sampled_from(["1m", "5m", "1d"]))
def test_partitions_cut_a_frame_without_loss(steps, timeframe):
    """Cut into partitions, each candle lies in exactly one, in its own, and together they are the frame."""
    series = Series("kraken", "BTC/USDT", Timeframe.parse(timeframe))
    times, last = [], START_US
    for step in steps:
        last += step * MINUTE_US
        times.append(last)
    frame = pl.DataFrame({name: [0.0] * len(times) for name in CANDLE_SCHEMA if name != "ts"}).with_columns(
        ts=pl.Series(times).cast(CANDLE_SCHEMA["ts"])).select(list(CANDLE_SCHEMA))
    parts = list(by_period(series, frame))
    assert pl.concat([part for _, part in parts]).equals(frame)
    assert len({label for label, _ in parts}) == len(parts)
    for label, part in parts:
        for ts in part["ts"].dt.epoch("us"):
            assert layout.period_label(layout.period_of(series.timeframe, ts)) == label


@pytest.mark.parametrize("way", ["import", "flush"])
def test_many_partitions_at_once_hold_what_was_written(lake, add_series, way):
    """A write over nine months makes nine files that verify, with every candle once; a second one is laid over them."""
    series = add_series()
    for price in (100.0, 200.0):
        if way == "import":
            lake.import_candles(series, _long(price), run_id="i")
        else:
            lake.write([Batch(series, _long(price), "rest")], run_id="r")
        lake.flush()
        assert lake.candles(*KEY).select(list(CANDLE_SCHEMA)).equals(_long(price))
        assert len(_files(lake.root)) == MONTHS
        report = lake.verify()
        assert report.problems == []
    assert not list((lake.root / ".staging").iterdir())


@pytest.mark.parametrize("month", [0, 4, MONTHS - 1])
def test_one_partition_that_cannot_be_merged_changes_none(lake, add_series, month):
    """When one old file of many is damaged, the write is refused: no new file is live or left, the others are as they were."""
    series = add_series()
    lake.import_candles(series, _long(), run_id="i")
    lake.write([Batch(series, _long(200.0), "rest")], run_id="r")
    before = _files(lake.root)
    whole = before[month].read_bytes()
    before[month].write_bytes(b"PAR1 no parquet")
    with pytest.raises(StoreCorruptError, match="candlelake verify"):
        lake.flush()
    assert _files(lake.root) == before
    assert not list((lake.root / ".staging").iterdir())
    before[month].write_bytes(whole)
    lake.flush()
    assert lake.candles(*KEY).select(list(CANDLE_SCHEMA)).equals(_long(200.0))
    assert lake.verify().problems == []


@pytest.mark.parametrize("month", [1, MONTHS - 1])
def test_one_folder_that_cannot_be_made_changes_none(lake, add_series, month):
    """When one of many partitions cannot be published to, the candles stay readable, and the next run finishes the job."""
    series = add_series()
    label = layout.period_label(layout.period_of(SERIES.timeframe, START_US + month * 31 * DAY_US))
    place = lake.root / layout.partition_folder(SERIES, label)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"in the way")
    lake.write([Batch(series, _long(), "rest")], run_id="r")
    with pytest.raises(StoreUnwritableError):
        lake.flush()
    assert lake.candles(*KEY).select(list(CANDLE_SCHEMA)).equals(_long())
    place.unlink()
    lake.flush()
    lake.sweep()
    assert lake.candles(*KEY).select(list(CANDLE_SCHEMA)).equals(_long())
    assert len(_files(lake.root)) == MONTHS
    assert lake.verify().problems == []

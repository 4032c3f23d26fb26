"""Damaged files: told by every reader that can notice, never merged into a new file, and in nobody else's way."""

from __future__ import annotations

import random

import pytest

from core.clock import DAY_US, MINUTE_US
from core.errors import InputError, StoreCorruptError
from core.ticks import Tick, frame_of
from storage import Batch
from storage.exchange_files import read_candle_file
from storage.lake import tail
from storage.lake.blocks import ALL
from tests.storage.conftest import START_US, candles

KEY = ("kraken", "BTC/USDT", "1m")
DAY_START_US = START_US // DAY_US * DAY_US


def _store_days(lake, add_series, symbol="BTC/USDT", days=2):
    series_id = add_series(symbol)
    lake.write([Batch(series_id, candles(DAY_START_US - days * DAY_US, days * 1440), "rest")], run_id="r")
    return series_id


def _file_of(lake, symbol="BTC%2FUSDT"):
    (path,) = (lake.root / "candles").glob(f"connection=kraken/symbol={symbol}/*/*/*.parquet")
    return path


def _flip_unseen(lake, path):
    """Flip one bit so that the file reads as before, but for another value; return its right bytes."""
    good, before = path.read_bytes(), lake.candles(*KEY)
    dice = random.Random(1)
    for _ in range(5000):
        content = bytearray(good)
        content[dice.randrange(4, len(good) // 2)] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(content))
        try:
            found = lake.candles(*KEY)
        except StoreCorruptError:
            continue
        if found.height == before.height and not found.equals(before) and found["ts"].equals(before["ts"]):
            return good
    raise AssertionError


def _flush(lake):
    lake.flush()


def _import(lake):
    lake.import_candles(1, candles(DAY_START_US + DAY_US // 2, 10), run_id="import")


def _retain(lake):
    lake.apply_retention(lake.plan_retention(DAY_START_US - DAY_US))


@pytest.mark.parametrize("work", [_flush, _import, _retain])
def test_an_altered_file_is_not_written_anew(lake, add_series, work):
    """Flush, import and retention refuse a file with a flipped bit: in a new file it would have a right digest for ever."""
    series_id = _store_days(lake, add_series)
    lake.flush()
    path = _file_of(lake)
    good = _flip_unseen(lake, path)
    fresh = candles(DAY_START_US, 5)
    lake.write([Batch(series_id, fresh, "rest")], run_id="r")
    with pytest.raises(StoreCorruptError, match="not those that were written"):
        work(lake)
    assert _file_of(lake) == path
    assert [problem.path for problem in lake.verify().problems] == [path.relative_to(lake.root).as_posix()]
    path.write_bytes(good)
    work(lake)
    assert lake.verify().problems == []
    held = lake.candles(*KEY)
    assert held["ts"].is_unique().all()
    assert held.filter(held["ts"] >= fresh["ts"][0])["close"].head(5).equals(fresh["close"])


def test_damage_keeps_nobody_else_from_being_flushed(lake, add_series):
    """With the first series' file altered the others are flushed, their revisions too, and the error says so."""
    first, other = _store_days(lake, add_series), _store_days(lake, add_series, "ETH/USDT")
    lake.flush()
    path = _file_of(lake)
    _flip_unseen(lake, path)
    lake.write([Batch(first, candles(DAY_START_US, 5), "rest"), Batch(other, candles(DAY_START_US - MINUTE_US, 5, price=7.0), "rest")], run_id="r")
    with pytest.raises(StoreCorruptError, match="all else was done"):
        lake.flush()
    assert lake.sql("SELECT symbol, sum(rows)::BIGINT FROM files WHERE path LIKE 'candles/%' GROUP BY ALL ORDER BY 1").rows() == [
        ("BTC/USDT", 2880), ("ETH/USDT", 2884)]
    assert len(list((lake.root / "revisions").rglob("*.parquet"))) == 1
    assert lake.candles(*KEY).height == 2885


def test_damage_keeps_nobody_from_being_cleaned_up(lake, add_series):
    """A file that nobody can read goes when all of it is too old; it stays, and that is told, where a longer timeframe may be made of it; all others go."""
    for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDT"):
        _store_days(lake, add_series, symbol)
    add_series("ETH/USDT", "1h")
    lake.flush()
    for symbol in ("BTC%2FUSDT", "ETH%2FUSDT"):
        _file_of(lake, symbol).write_bytes(b"no Parquet")
    plan = lake.plan_retention(DAY_START_US)
    assert [(item.series.symbol, item.rows) for item in plan.items] == [("BTC/USDT", 2880), ("SOL/USDT", 2880)]
    (refused,) = plan.refused
    assert (refused.series.symbol, refused.rows) == ("ETH/USDT", 2880)
    assert "cannot read" in refused.reason
    assert lake.apply_retention(plan).rows == 5760
    assert [path.parts[-4] for path in (lake.root / "candles").rglob("*.parquet")] == ["symbol=ETH%2FUSDT"]


def test_altered_ticks_are_not_compacted(lake):
    """A day with an altered file of ticks stays as it is, the others are joined, and the error says so."""
    store = lake.tick_store
    for hour in (1, 2):
        for day in (0, 1):
            at = DAY_START_US + day * DAY_US + hour * 60 * MINUTE_US
            ticks = [Tick("A/B", at + n, at + n, None, None, 1.0 + n, 2.0, "buy", f"{day}-{hour}-{n}") for n in range(50)]
            store.write("kraken", "A/B", frame_of(ticks, "stream", "r").drop("symbol"))
    files = sorted((lake.root / "ticks").rglob("*.parquet"))
    assert len(files) == 4
    first = next(path for path in files if "date=2026-01-31" in str(path))
    content = bytearray(first.read_bytes())
    content[len(content) // 3] ^= 1
    first.write_bytes(bytes(content))
    with pytest.raises(StoreCorruptError, match="all else was done"):
        store.compact(DAY_START_US + 10 * DAY_US)
    assert len(list((lake.root / "ticks").rglob("*.parquet"))) == 3
    assert first.exists()


def _damaged(good, dice):
    """Return a file's bytes, damaged in one of the ways of disks and copies."""
    content = bytearray(good)
    kind = dice.choice(["bits", "end", "cut", "zeros"])
    if kind == "cut":
        return bytes(content[:dice.randrange(len(content))])
    if kind == "zeros":
        start, length = dice.randrange(len(content)), dice.randrange(1, 4096)
        content[start:start + length] = bytes(len(content[start:start + length]))
        return bytes(content)
    for _ in range(dice.choice([1, 3, 20])):
        place = dice.randrange(len(content)) if kind == "bits" else len(content) - 1 - dice.randrange(2000)
        content[place] ^= 1 << dice.randrange(8)
    return bytes(content)


def test_readers_of_damaged_bytes_say_so_and_nothing_else(lake, add_series):
    """Whatever became of a file's bytes, each read answers or raises StoreCorruptError: no reader's own error, no panic, no blame on the query."""
    _store_days(lake, add_series, days=14)
    lake.flush()
    path = _file_of(lake)
    good, dice, said = path.read_bytes(), random.Random(3), []
    reads = (lambda: lake.candles(*KEY), lambda: lake.candles(*KEY, DAY_START_US - 2 * DAY_US, DAY_START_US), lambda: lake.latest(*KEY, 10),
             lambda: lake.sql("FROM candles('kraken', 'BTC/USDT', '1m')"), lambda: lake.sql("SELECT max(high) FROM all_candles"),
             lambda: lake.stored_slots(1, ALL))
    for _ in range(60):
        path.write_bytes(_damaged(good, dice))
        tail._kept.cache_clear()
        for read in reads:
            try:
                read()
            except StoreCorruptError as error:
                said.append(str(error))
        assert path.read_bytes() == good or lake.verify().problems
    assert len(said) > 100
    assert not [text for text in said if "\n" in text]


def test_a_damaged_file_of_ones_own_is_bad_input(tmp_path):
    """A Parquet file to be imported that is damaged in whatever way is read, or refused in one line: no panic of the reader."""
    whole, path = tmp_path / "whole.parquet", tmp_path / "mine.parquet"
    candles(START_US, 3000).write_parquet(whole)
    dice, said = random.Random(4), []
    for _ in range(150):
        path.write_bytes(_damaged(whole.read_bytes(), dice))
        try:
            read_candle_file(path)
        except InputError as error:
            said.append(str(error))
    assert len(said) > 50
    assert not [text for text in said if "\n" in text]

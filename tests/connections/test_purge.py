"""Deleting a connection together with its candles and ticks, on a real lake."""

from contextlib import closing

import polars as pl
import pytest

from connections.holdings import remove_stored
from connections.service import ConnectionService
from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, to_datetime
from core.errors import NotFoundError, PermanentError, StoreCorruptError
from core.ticks import Tick, frame_of
from storage import open_lake
from storage.head import Batch
from storage.series import list_series
from storage.ticks.journal import Journal, segments
from storage.vault import Vault


@pytest.fixture
def lake(settings, clock):
    with_keys = open_lake(settings.home, clock=clock)
    yield with_keys
    with_keys.close()


@pytest.fixture
def ours(lake, key_ring, settings, clock, service):
    """The service over a whole lake."""
    return ConnectionService(lake, Vault(lake.metadata, key_ring, clock), settings, clock,
                             open_provider=service._open, describe=service._describe)


def test_purge_removes_candles_of_head_and_lake(lake, ours, clock, given):
    """A purge removes one connection with all its candles, says how many, and leaves other connections alone."""
    for slug in ("gone", "kept"):
        ours.create(given(slug=slug))
        with lake.metadata.read() as tx:
            (row,) = list_series(tx, slug)
        start = clock.now_us() - clock.now_us() % MINUTE_US - 100 * MINUTE_US
        frame = pl.DataFrame([(to_datetime(start + n * MINUTE_US), 1.0, 1.0, 1.0, 1.0, 1.0, None) for n in range(60)],
                             schema=CANDLE_SCHEMA, orient="row")
        lake.write([Batch(row.id, frame[:40], "rest")], run_id="r1")
        lake.flush()
        lake.write([Batch(row.id, frame[40:], "rest")], run_id="r2")
    with pytest.raises(PermanentError, match="60 stored candles"):
        ours.delete("gone")
    assert lake.candles("gone", "BTC/USD", "1m").height == 60
    removed = ours.delete("gone", purge=True)
    assert (removed.slug, removed.candles, removed.series) == ("gone", 60, 1)
    with pytest.raises(NotFoundError):
        ours.get("gone")
    assert lake.candles("kept", "BTC/USD", "1m").height == 60
    assert lake.verify().problems == []


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"no Parquet"), lambda path: path.unlink()], ids=["damaged", "missing"])
def test_damaged_files_go_too(lake, ours, clock, given, spoil):
    """Files of candles, revisions and ticks, and a journal, that nobody can read: a purge needs none of them, and leaves nothing."""
    ours.create(given(slug="gone"))
    with lake.metadata.read() as tx:
        (row,) = list_series(tx, "gone")
    now = clock.now_us()
    slots = [to_datetime(now - now % MINUTE_US - n * MINUTE_US) for n in range(9, 0, -1)]
    for value in (1.0, 2.0):
        frame = pl.DataFrame([(ts, value, value, value, value, 1.0, None) for ts in slots], schema=CANDLE_SCHEMA, orient="row")
        lake.write([Batch(row.id, frame, "rest")], run_id="r1")
        lake.flush()
    ticks = frame_of([Tick("BTC/USD", now + n, now + n, None, None, 1.0, 2.0, "buy", str(n)) for n in range(20)], "stream", "r")
    lake.tick_store.write("gone", "BTC/USD", ticks.head(10).drop("symbol"))
    with closing(lake.tick_store.open_journal("gone", ["BTC/USD"])) as journal:
        journal.append(ticks.tail(10), now)
    spoiled = [path for name in ("candles", "revisions", "ticks", ".journal") for path in (lake.root / name).rglob("*.*") if path.is_file()]
    assert len(spoiled) == 4
    for path in spoiled:
        spoil(path)
    removed = ours.delete("gone", purge=True)
    assert removed.candles == 9
    assert not [path for path in spoiled if path.exists()]
    assert lake.verify().problems == []
    assert lake.tick_store.flush().segments == 0
    ours.create(given(slug="gone"))
    assert lake.candles("gone", "BTC/USD", "1m").is_empty()


def test_a_purge_that_was_killed_is_finished_by_the_next(lake, ours, clock, given):
    """Killed after candles and ticks left the manifest and before their files left the tree: the next purge takes those too, and no rebuild brings them back."""
    ours.create(given(slug="gone"))
    with lake.metadata.read() as tx:
        (row,) = list_series(tx, "gone")
    now = clock.now_us()
    start = now - now % MINUTE_US - 100 * MINUTE_US
    frame = pl.DataFrame([(to_datetime(start + n * MINUTE_US), 1.0, 1.0, 1.0, 1.0, 1.0, None) for n in range(60)], schema=CANDLE_SCHEMA, orient="row")
    lake.write([Batch(row.id, frame, "rest")], run_id="r1")
    lake.flush()
    lake.tick_store.write("gone", "BTC/USD", frame_of([Tick("BTC/USD", now, now, None, None, 1.0, 2.0, "buy", "1")], "rest", "r").drop("symbol"))
    held = {path: path.read_bytes() for name in ("candles", "ticks") for path in (lake.root / name).rglob("*.parquet")}
    assert len(held) == 2
    remove_stored(lake, "gone")
    for path, content in held.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    ours.delete("gone", purge=True)
    assert not [path for path in held if path.exists()]
    assert lake.verify().problems == []
    assert (lake.rebuild().rows, lake.rebuild().ticks) == (0, 0)


def test_ticks_are_stored_data_too(lake, ours, clock, given):
    """A connection with ticks alone is deleted by a purge only; then its ticks are gone from files and journals, and nothing else is."""
    store, now = lake.tick_store, clock.now_us()
    for slug in ("gone", "kept"):
        ours.create(given(slug=slug))
        ticks = frame_of([Tick("BTC/USD", now + n, now + n, None, None, 1.0, 2.0, "buy", str(n)) for n in range(20)], "stream", "r")
        store.write(slug, "BTC/USD", ticks.head(10).drop("symbol"))
        with closing(store.open_journal(slug, ["BTC/USD"])) as journal:
            journal.append(ticks.tail(10), now)
    with pytest.raises(PermanentError, match="20 ticks"):
        ours.delete("gone")
    assert lake.ticks("gone", "BTC/USD").height == 20
    ours.delete("gone", purge=True)
    assert not list((lake.root / "ticks").glob("connection=gone/**/*.parquet"))
    assert lake.verify().problems == []
    assert store.flush().rows == 10
    assert lake.ticks("kept", "BTC/USD").height == 20


def test_a_journal_that_a_stream_left_standing_goes_with_a_purge(lake, ours, clock, given):
    """A stopped process that has lost its lease still has its journal open: that goes too, and one of that name later has none of its ticks."""
    now = clock.now_us()
    ours.create(given(slug="gone"))
    with closing(lake.tick_store.open_journal("gone", ["BTC/USD"])) as journal:
        journal.append(frame_of([Tick("BTC/USD", now, now, None, None, 1.0, 2.0, "buy", "1")], "stream", "r"), now)
        ours.delete("gone", purge=True)
        assert lake.tick_store.flush().segments == 0
        ours.create(given(slug="gone"))
    assert lake.tick_store.flush("gone").rows == 0
    with pytest.raises(NotFoundError):
        lake.ticks("gone", "BTC/USD")


def test_ticks_whose_connection_is_lost_stay_and_hold_nobody_up(lake, ours, clock, given):
    """A journal of a connection that the store does not know is told, stays where it is, and the others are flushed."""
    now = clock.now_us()
    ours.create(given(slug="known"))
    for slug in ("alien", "known"):
        with closing(Journal(lake.root, slug, ["BTC/USD"])) as journal:
            journal.append(frame_of([Tick("BTC/USD", now, now, None, None, 1.0, 2.0, "buy", "1")], "stream", "r"), now)
    with pytest.raises(StoreCorruptError, match="alien wait for a connection"):
        lake.tick_store.flush()
    assert lake.ticks("known", "BTC/USD").height == 1
    assert len(segments(lake.root, "alien")) == 1
    assert segments(lake.root, "known") == []

"""Ticks come back from their files alone."""

import shutil

import pytest

from core.clock import DAY_US, parse_instant
from core.ticks import Tick, frame_of
from storage import open_lake
from storage.metadata.tables import connections

T0 = parse_instant("2024-03-01T10:00Z")


def trades(first, count, step=1_000_000):
    return frame_of([Tick("A/B", T0 + n * step, T0 + n * step, None, None, 1.0 + n, 2.0, "buy", str(n))
                     for n in range(first, first + count)], "rest", "r").drop("symbol")


@pytest.fixture
def home(tmp_path):
    """A home with four files of ticks, two of them of one day."""
    with open_lake(tmp_path / "home") as lake:
        with lake.metadata.write() as tx:
            tx.execute(connections.insert().values(
                slug="k", name="k", type="crypto", provider="replay", config={}, settings={}, status="active", is_active=True,
                is_admin_owned=False, created_at_us=0, updated_at_us=0))
        for part in (trades(0, 100), trades(100, 50), trades(0, 20, step=DAY_US // 10).tail(8)):
            lake.tick_store.write("k", "A/B", part)
    return tmp_path / "home"


def lose_metadata(home):
    for name in ("metadata.db", "metadata.db-wal", "metadata.db-shm"):
        (home / name).unlink(missing_ok=True)


def test_ticks_come_back_when_the_metadata_is_lost(home):
    """Every tick is there again, value for value; a second rebuild finds nothing more, and verify finds no fault."""
    with open_lake(home) as lake:
        before = lake.ticks("k", "A/B")
    lose_metadata(home)
    with open_lake(home) as lake:
        report = lake.rebuild()
        assert (report.tick_files, report.ticks) == (4, before.height)
        assert lake.ticks("k", "A/B").equals(before)
        assert (lake.rebuild().tick_files, lake.verify().problems) == (0, [])


def test_files_that_were_joined_and_not_yet_removed_count_once(home, tmp_path):
    """A kill in the middle of joining a day leaves its parts beside the whole: no tick comes twice, and nothing strays."""
    shutil.copytree(home / "lake" / "ticks", tmp_path / "parts")
    with open_lake(home) as lake:
        before = lake.ticks("k", "A/B")
        assert lake.tick_store.compact(T0 + 9 * DAY_US) > 0
    shutil.copytree(tmp_path / "parts", home / "lake" / "ticks", dirs_exist_ok=True)
    stray = home / "lake" / "ticks" / "notes.parquet"
    stray.write_bytes(b"not ours")
    lose_metadata(home)
    with open_lake(home) as lake:
        report = lake.rebuild()
        assert report.ticks == before.height
        assert report.skipped == ["ticks/notes.parquet"]
        assert lake.ticks("k", "A/B").equals(before)
        stray.unlink()
        assert lake.verify().problems == []

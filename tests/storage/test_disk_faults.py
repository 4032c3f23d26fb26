"""Real disks that are full or read-only: said in one line, nothing lost, nothing left behind, the next run works.

The disks are tmpfs mounts of 4 MB; without the right to mount these tests are skipped.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.backup import backup
from core.clock import DAY_US, MINUTE_US, ManualClock, parse_instant
from core.errors import StoreFullError, StoreUnwritableError
from core.settings import settings
from storage import Batch, Lake, open_lake
from storage.series import ensure_series
from tests.storage.conftest import START_US, add_connection, candles

KEY = ("kraken", "BTC/USDT", "1m")


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a file system: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    _mount("-t", "tmpfs", "-o", "size=4M", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def lake(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """A lake whose files lie on the small disk and whose metadata lies elsewhere: 3,000 candles in it, 1,000 in the head."""
    monkeypatch.setenv("CANDLELAKE_LAKE", str(disk / "lake"))
    settings.cache_clear()
    opened = open_lake(tmp_path / "home", ManualClock(parse_instant("2026-03-01")))
    add_connection(opened, "kraken")
    with opened.metadata.write() as tx:
        series = ensure_series(tx, 1, "BTC/USDT", "1m", 0).id
    opened.import_candles(series, candles(START_US, 3000), run_id="i")
    opened.write_catalog()
    opened.write([Batch(series, candles(START_US + 3000 * MINUTE_US, 1000, price=3100.0), "rest")], run_id="r")
    yield opened
    opened.close()
    monkeypatch.undo()
    settings.cache_clear()


def _fill(disk: Path) -> Path:
    """Fill the disk to its last byte and return the file that does."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2
    return ballast


def _flush(lake: Lake) -> None:
    lake.flush()


def _import(lake: Lake) -> None:
    lake.import_candles(1, candles(START_US + 3 * DAY_US, 4000, price=5.0), run_id="i")


def _retain(lake: Lake) -> None:
    lake.apply_retention(lake.plan_retention(START_US + 100 * MINUTE_US))


def _catalog(lake: Lake) -> None:
    lake.write_catalog()


def _csv(lake: Lake) -> None:
    lake.export(*KEY, lake.root / "out.csv", "csv")


def _parquet(lake: Lake) -> None:
    lake.export(*KEY, lake.root / "out.parquet", "parquet")


def _json(lake: Lake) -> None:
    lake.export(*KEY, lake.root / "out.json", "json")


OPERATIONS = pytest.mark.parametrize("operation", [_flush, _import, _retain, _catalog, _csv, _parquet, _json])


def _files(lake: Lake) -> list[str]:
    return sorted(item.relative_to(lake.root).as_posix() for item in lake.root.rglob("*") if item.is_file() and item.suffix != ".lock")


def _check_refused(lake: Lake, operation, kind: type[Exception]) -> None:
    before, files = lake.candles(*KEY), _files(lake)
    with pytest.raises(kind) as raised:
        operation(lake)
    assert "\n" not in str(raised.value)
    assert lake.candles(*KEY).equals(before)
    assert _files(lake) == files
    assert not list((lake.root / ".staging").iterdir())


@OPERATIONS
def test_a_full_disk_is_named_and_costs_nothing(lake, disk, operation):
    """With no byte free each operation fails as StoreFullError, leaves every file as it was, and works once there is room."""
    ballast = _fill(disk)
    _check_refused(lake, operation, StoreFullError)
    ballast.unlink()
    operation(lake)
    assert lake.verify().problems == []
    assert not list((lake.root / ".staging").iterdir())


@OPERATIONS
@pytest.mark.parametrize("pages", [1, 2, 4, 12, 40])
def test_a_disk_that_fills_up_midway_costs_nothing(lake, disk, operation, pages):
    """With room for some of the work each operation either succeeds or fails whole, whichever file was the last straw."""
    ballast = _fill(disk)
    os.truncate(ballast, ballast.stat().st_size // 4096 * 4096 - pages * 4096)
    before, said = lake.candles(*KEY), None
    try:
        operation(lake)
    except StoreFullError as error:
        said = str(error)
    assert said is None or ("\n" not in said and lake.candles(*KEY).equals(before))
    assert not list((lake.root / ".staging").iterdir())
    assert not list(lake.root.glob("*.part"))
    ballast.unlink()
    operation(lake)
    assert lake.verify().problems == []


@OPERATIONS
def test_a_disk_that_turns_read_only_is_named_and_costs_nothing(lake, disk, operation):
    """Mounted read-only each operation fails as StoreUnwritableError; reads go on; after the remount it works."""
    _mount("-o", "remount,ro", str(disk))
    _check_refused(lake, operation, StoreUnwritableError)
    _mount("-o", "remount,rw", str(disk))
    operation(lake)
    assert lake.verify().problems == []


def test_a_full_disk_under_the_metadata_keeps_what_was_acknowledged(disk, monkeypatch):
    """Writes fail as StoreFullError when the store's disk is full, nothing of them is stored, and later ones succeed."""
    with open_lake(disk / "home") as opened:
        add_connection(opened, "kraken")
        with opened.metadata.write() as tx:
            ensure_series(tx, 1, "BTC/USDT", "1m", 0)
        opened.write([Batch(1, candles(START_US, 100), "rest")], run_id="r")
        ballast = _fill(disk)
        with pytest.raises(StoreFullError) as raised:
            opened.write([Batch(1, candles(START_US + 100 * MINUTE_US, 5000), "rest")], run_id="r")
        assert "\n" not in str(raised.value)
        assert opened.candles(*KEY).height == 100
        ballast.unlink()
        opened.write([Batch(1, candles(START_US + 100 * MINUTE_US, 1000, price=200.0), "rest")], run_id="r")
        assert opened.candles(*KEY).height == 1100
    with open_lake(disk / "home") as opened:
        assert opened.candles(*KEY).height == 1100


def test_a_read_only_home_is_refused_by_name(disk):
    """A home on a read-only disk cannot be opened, new or old; the error says what to check."""
    open_lake(disk / "home").close()
    _mount("-o", "remount,ro", str(disk))
    for home in ("home", "new"):
        with pytest.raises(StoreUnwritableError) as raised:
            open_lake(disk / home)
        assert "\n" not in str(raised.value)


def test_a_backup_of_a_home_on_a_full_disk_is_refused_and_leaves_nothing(disk, tmp_path, monkeypatch):
    """The database's own copy of itself says that the disk is full as everything else does; no part of the backup stays."""
    monkeypatch.setenv("CANDLELAKE_HOME", str(disk / "home"))
    settings.cache_clear()
    open_lake(disk / "home").close()
    _fill(disk)
    with pytest.raises(StoreFullError) as raised:
        backup(settings(), tmp_path / "home.tar", lambda _done, _total, _what: None)
    assert "\n" not in str(raised.value)
    assert [path for folder in (disk / "home", tmp_path) for pattern in (".backup*", "*.tar*", ".*.part") for path in folder.glob(pattern)] == []
    monkeypatch.undo()
    settings.cache_clear()

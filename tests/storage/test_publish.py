"""From staging into the tree: a plain glob meets the old file or the new one, and a kill at any step is put right."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pytest

from core.clock import MINUTE_US
from core.errors import CandlelakeError
from storage import Batch, open_lake
from storage.lake import layout, publish
from storage.series import ensure_series
from tests.storage.conftest import START_US, add_connection, candles

ROOT = Path(__file__).parents[2]
KEY = ("kraken", "BTC/USDT", "1m")
GLOBS = int(os.environ.get("CANDLELAKE_TEST_GLOBS", "1500"))


def read_globs(root: str, reads: int) -> None:
    """Read the tree by DuckDB's own glob: rows are each there once, in whole files; or it is an error.

    Known limit, storage/README.md: a listing that opened a partition's folder just before the exchange finds it empty.
    """
    seen = failed = missed = 0
    with duckdb.connect() as session:
        for turn in range(reads):
            try:
                closes = [row[0] for row in session.execute(
                    f"SELECT close FROM read_parquet('{root}/**/*.parquet') ORDER BY ts").fetchall()]
            except duckdb.IOException:  # loud: a file left between the listing and the reading
                failed += 1
                continue
            assert closes == [float(n) for n in range(len(closes))], f"read {turn}: {len(closes)} rows"
            missed += len(closes) < seen
            seen = max(seen, len(closes))
    assert failed < reads
    assert missed <= max(1, reads // 100), f"{missed} of {reads} globs missed a partition"
    print(f"{reads} globs, {failed} loud errors")  # noqa: T201  shown by pytest -s


def _hammer(lake, series, reads: int) -> None:
    slot = 0
    lake.write([Batch(series, candles(START_US, 7, price=0.0), "rest")], run_id="r")
    lake.flush()
    script = f"from tests.storage.test_publish import read_globs; read_globs({str(lake.root / 'candles')!r}, {reads})"
    readers = [subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) for _ in range(2)]
    while any(reader.poll() is None for reader in readers):
        slot += 7
        lake.write([Batch(series, candles(START_US + slot % 20_000 * MINUTE_US, 7, price=float(slot % 20_000)), "rest")], run_id="r")
        lake.flush()
    assert [reader.returncode for reader in readers] == [0, 0]


@pytest.mark.slow
def test_plain_globs_during_flushes_are_whole(lake, add_series):
    """Another program's globs during hot flushes give whole answers or a loud error: never doubled; one in a hundred at most misses a partition."""
    _hammer(lake, add_series(), 60)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_plain_globs_during_flushes(lake, add_series):
    """The same with CANDLELAKE_TEST_GLOBS globs of each of two programs."""
    _hammer(lake, add_series(), GLOBS)


def _flushed_twice(lake, add_series):
    """Return paths of the old and the new file of one partition, and of the head's next rows."""
    series = add_series()
    for count in (3, 5):
        lake.write([Batch(series, candles(START_US, count), "rest")], run_id="r")
        lake.flush()
    new = lake.sql("SELECT path FROM files").item()
    old = next((lake.root / ".old").rglob("*.parquet")).relative_to(lake.root / ".old").as_posix()
    return old, new


def _before_the_exchange(root, old, new):
    """Committed, not published: the new file in staging, the old one in the tree."""
    layout.staged_file(root, new).parent.mkdir()
    (root / new).rename(layout.staged_file(root, new))
    layout.old_path(root, old).rename(root / old)


def _after_the_exchange(root, old, new):
    """Exchanged: the new file in the tree, the old one in the folder where the new one was."""
    folder = layout.staged_file(root, new).parent
    folder.mkdir()
    layout.old_path(root, old).rename(folder / Path(old).name)


def _moved_out(root, old, new):
    """Without exchange: the old file in .old/, the new one not yet in the tree."""
    layout.staged_file(root, new).parent.mkdir()
    (root / new).rename(layout.staged_file(root, new))


@pytest.mark.parametrize("state", [_before_the_exchange, _after_the_exchange, _moved_out])
@pytest.mark.parametrize("cure", ["open", "flush", "sweep", "verify", "retention"])
def test_readers_find_a_committed_file_at_every_step_and_the_next_run_finishes(lake, add_series, clock, state, cure):
    """Our readers read on at once; open, flush, sweep, verify and retention each bring the new file in and the old one out."""
    old, new = _flushed_twice(lake, add_series)
    state(lake.root, old, new)
    assert lake.candles(*KEY).height == 5
    assert lake.latest(*KEY, 2)["close"].to_list() == [103.0, 104.0]
    assert lake.sql("FROM all_candles").height == 5
    lake.write([Batch(1, candles(START_US + 5 * MINUTE_US, 1, price=105.0), "rest")], run_id="r")
    if cure == "open":
        open_lake(lake.root.parent, clock).close()
    elif cure == "flush":
        assert lake.flush().rows == 1
    elif cure == "sweep":
        lake.sweep()
    elif cure == "retention":
        lake.apply_retention(lake.plan_retention(START_US + MINUTE_US))
    if cure in {"open", "flush", "sweep", "retention"} or state is not _after_the_exchange:
        assert lake.verify().problems == []
        assert not list((lake.root / ".staging").iterdir())
    assert len(list((lake.root / "candles").rglob("*.parquet"))) == 1
    assert lake.candles(*KEY).height == (5 if cure == "retention" else 6)
    assert lake.verify().problems == []


def test_where_no_exchange_is_known_the_old_file_leaves_first(lake, add_series, monkeypatch):
    """A C library without renameat2: every flush still ends with one file for a partition, and all candles."""
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: object())
    publish._renameat2.cache_clear()
    try:
        assert not publish.exchange(lake.root, lake.root)
        old, new = _flushed_twice(lake, add_series)
        assert (lake.root / new).exists()
        assert layout.old_path(lake.root, old).exists()
        assert not list((lake.root / ".staging").iterdir())
        assert lake.verify().problems == []
    finally:
        publish._renameat2.cache_clear()


def test_exchange_says_when_a_folder_is_missing(tmp_path):
    """A real error of the system is raised, not taken for a missing feature."""
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        publish.exchange(tmp_path / "a", tmp_path / "b")


def test_a_strange_file_in_a_partition_stays_where_it_is(lake, add_series):
    """A file that the manifest does not know is not carried off by a flush."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 3), "rest")], run_id="r")
    lake.flush()
    folder = next((lake.root / "candles").rglob("*.parquet")).parent
    (folder / "note.txt").write_text("mine")
    lake.write([Batch(series, candles(START_US, 5), "rest")], run_id="r")
    lake.flush()
    assert sorted(item.suffix for item in folder.iterdir()) == [".parquet", ".txt"]
    assert lake.candles(*KEY).height == 5


def kill_at(home: str, step: int) -> None:
    """Flush the lake at `home`, and kill this process at its step-th touch of a file in the lake."""
    lake = open_lake(Path(home))
    touched = 0

    def watch(event: str, values: tuple[object, ...]) -> None:
        nonlocal touched
        if event not in {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.scandir", "os.listdir", "open"}:
            return
        if str(lake.root) not in str(values[0]) or threading.current_thread() is not threading.main_thread():
            return
        touched += 1
        if touched == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    lake.flush()
    lake.close()
    os._exit(0)


def kill_each_asked_for() -> None:
    """For each line `home step`, do `kill_at` in a fork of this process, which has imported all already; print its exit code."""
    for line in sys.stdin:
        home, step = line.rsplit(maxsplit=1)
        child = os.fork()
        if child == 0:
            kill_at(home, int(step))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


@pytest.fixture
def killed():
    """Do `kill_at` in a process of its own; return its exit code."""
    script = "from tests.storage.test_publish import kill_each_asked_for; kill_each_asked_for()"
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as helper:

        def kill(home: Path, step: int) -> int:
            helper.stdin.write(f"{home} {step}\n")
            helper.stdin.flush()
            return int(helper.stdout.readline())

        yield kill


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_kill_at_each_touch_of_a_file_loses_and_doubles_nothing(tmp_path, killed):
    """A flush of two partitions killed before each single file operation: readers and globs are right, the next run finishes."""
    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 1
        home = tmp_path / str(step)
        with open_lake(home) as lake:
            add_connection(lake, "kraken")
            with lake.metadata.write() as tx:
                series = ensure_series(tx, 1, "BTC/USDT", "1m", 0).id
            for count in (40, 50):
                lake.write([Batch(series, candles(START_US, count, price=0.0), "rest")], run_id="r")
                if count == 40:
                    lake.flush()
            lake.write([Batch(series, candles(START_US, 1, price=0.0).with_columns(volume=9.0 + 0 * candles(START_US, 1)["volume"]),
                              "rest")], run_id="r")
            code = killed(home, step)
            want = [float(n) for n in range(50)]
            assert lake.candles(*KEY)["close"].to_list() == want
            with duckdb.connect() as session:
                rows = session.execute(f"SELECT close FROM read_parquet('{lake.root}/candles/**/*.parquet') ORDER BY ts").fetchall()
            assert [row[0] for row in rows] in (want[:40], want)
            try:
                lake.flush()
            except CandlelakeError as error:
                pytest.fail(f"step {step}: {error}")
            assert lake.candles(*KEY)["close"].to_list() == want
            lake.sweep()
            assert lake.verify().problems == []
            assert not list((lake.root / ".staging").iterdir())
    assert code == 0
    assert step > 20

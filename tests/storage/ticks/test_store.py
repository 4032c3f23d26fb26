"""The ticks dataset: what is journalled is readable at once, repeats go, files are whole, losses are booked and healed."""

import random
import resource
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import DAY_US, parse_instant, to_datetime
from core.errors import NotFoundError, StoreFullError
from core.interval import Interval
from core.ticks import Tick, frame_of, without_repeats
from storage import open_lake
from storage.metadata.tables import connections
from storage.ticks import journal, losses
from storage.ticks.files import parse_path

T0 = parse_instant("2024-03-01T10:00Z")
ALL = Interval(0, parse_instant("2090-01-01"))
WORKER = Path(__file__).with_name("kill_worker.py")


@pytest.fixture
def lake(tmp_path):
    with open_lake(tmp_path / "home") as lake:
        with lake.metadata.write() as tx:
            tx.execute(connections.insert().values(
                slug="k", name="k", type="crypto", provider="replay", config={}, settings={}, status="active", is_active=True,
                is_admin_owned=False, created_at_us=0, updated_at_us=0))
        yield lake


def trades(count, first=0, start=T0, step=1000, symbol="A/B"):
    return [Tick(symbol, start + number * step, start + number * step, None, None, 1.0 + number, 2.0, "buy", str(number))
            for number in range(first, first + count)]


def keep(lake, ticks, until=T0):
    store = lake.tick_store
    writer = store.open_journal("k", ["A/B"])
    writer.append(frame_of(ticks, "stream", "r"), until)
    return writer


def test_what_is_journalled_is_read_at_once_and_after_the_flush(lake):
    """Ticks are the same from the journal, from both, and from the files; a repeat across the two counts once."""
    writer = keep(lake, trades(300))
    before = lake.ticks("k", "A/B")
    assert before.height == 300
    assert lake.tick_store.flush().segments == 0  # its writer holds it
    writer.close()
    assert lake.tick_store.flush().rows == 300
    writer = keep(lake, trades(400, first=200))
    assert lake.ticks("k", "A/B")["trade_id"].to_list() == [str(number) for number in range(600)]
    assert lake.sql("SELECT count(*) n, count(DISTINCT trade_id) d FROM ticks('k', 'A/B')").row(0) == (600, 600)
    writer.close()
    flushed = lake.tick_store.flush()
    assert (flushed.rows, flushed.repeats) == (300, 100)
    assert lake.ticks("k", "A/B").head(300).equals(before)
    assert lake.ticks("k", "A/B", limit=5)["trade_id"].to_list() == ["595", "596", "597", "598", "599"]
    assert lake.verify().problems == []


def test_days_are_files_of_their_own_and_are_joined_when_they_are_over(lake):
    """Each UTC day has its files; compaction leaves one for each day that has ended, and the same rows."""
    for part in range(4):
        keep(lake, trades(50, first=part * 50, step=DAY_US // 100)).close()
        lake.tick_store.flush()
    whole = lake.ticks("k", "A/B")
    files = lake.sql("SELECT path, date, rows FROM tick_files ORDER BY path").to_dicts()
    assert len(files) > len({item["date"] for item in files})
    assert all(parse_path(item["path"]) == ("k", "A/B", item["date"]) for item in files)
    assert lake.tick_store.compact(T0 + 10 * DAY_US) == len(files) - len({item["date"] for item in files})
    assert lake.ticks("k", "A/B").equals(whole)
    assert lake.verify().problems == []
    glob = pl.read_parquet(lake.root / "ticks" / "**" / "*.parquet", hive_partitioning=False)
    assert glob.height == whole.height  # a plain reader sees each row once


def test_a_damaged_and_a_strange_file_are_found(lake):
    """A flipped byte and a file that nobody wrote are problems with a name."""
    keep(lake, trades(100)).close()
    lake.tick_store.flush()
    path = next((lake.root / "ticks").rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (path.parent / "notes.txt").write_text("mine")
    assert {problem.what.split(";")[0] for problem in lake.verify().problems} == {
        "its bytes are not those that were written", "not a file of the lake"}


def test_a_frame_that_a_kill_cut_short_does_not_count(lake):
    """Whatever is left of the last frame, all frames before it are read."""
    writer = keep(lake, trades(100))
    writer.append(frame_of(trades(100, first=100), "stream", "r"), T0 + 1)
    writer.close()
    path = journal.segments(lake.root, "k")[0]
    whole = path.read_bytes()
    for cut in (1, 7, 100, 500):
        path.write_bytes(whole[:-cut])
        assert journal.read_segment(path).ticks.height == 100
    path.write_bytes(whole[:-10] + bytes(10))
    assert journal.read_segment(path).ticks.height == 100


def test_a_frame_that_the_disk_spoiled_costs_itself_alone_and_is_booked(lake):
    """Ticks behind a spoiled frame are read, and the spoiled one's time is booked as lost, once, whatever flushes again."""
    writer = keep(lake, trades(100))
    for part in (1, 2):
        writer.append(frame_of(trades(100, first=100 * part), "stream", "r"), T0 + part * 1_000_000)
    writer.close()
    path = journal.segments(lake.root, "k")[0]
    content = bytearray(path.read_bytes())
    second = content.index(b"CLT1", content.index(b"CLT1", 4) + 4)  # behind the head and the first frame
    content[second + 60] ^= 1
    path.write_bytes(content)
    segment = journal.read_segment(path)
    lake.tick_store._take_in("k", segment, None)
    lake.tick_store.flush()
    assert set(lake.ticks("k", "A/B")["trade_id"]) == {str(number) for number in (*range(100), *range(200, 300))}
    with lake.metadata.read() as tx:
        found = [(gap.interval, gap.cause) for gap in losses.list_losses(tx, "k")]
    assert found == [(Interval(T0, T0 + 2_000_000), "damaged")]


def test_a_disk_that_was_full_for_a_moment_spoils_nothing_behind_it(lake):
    """A frame that the disk had no room for is an error and does not count; what is written later is read, and the time between is booked."""
    writer = keep(lake, trades(100))
    size = journal.segments(lake.root, "k")[0].stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
    try:
        with pytest.raises(StoreFullError):
            writer.append(frame_of(trades(500, first=100), "stream", "r"), T0 + 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.append(frame_of(trades(100, first=600), "stream", "r"), T0 + 2_000_000)
    writer.close()
    lake.tick_store.flush()
    assert set(lake.ticks("k", "A/B")["trade_id"]) == {str(number) for number in (*range(100), *range(600, 700))}
    with lake.metadata.read() as tx:
        assert [(gap.interval, gap.cause) for gap in losses.list_losses(tx, "k")] == [(Interval(T0, T0 + 2_000_000), "damaged")]


def test_retention_removes_whole_days(lake):
    """Days beyond the cut go; what is younger stays, and nothing is gone before the plan is applied."""
    keep(lake, trades(50, step=DAY_US // 10)).close()
    lake.tick_store.flush()
    plan = lake.tick_store.plan_retention(T0 + 3 * DAY_US)
    assert lake.ticks("k", "A/B").height == 50
    assert lake.tick_store.apply_retention(plan) == plan.rows > 0
    left = lake.ticks("k", "A/B")
    assert left.height == 50 - plan.rows
    assert left["ts"][0] >= to_datetime((T0 + 2 * DAY_US) // DAY_US * DAY_US)
    assert lake.verify().problems == []


def test_losses_are_booked_and_healed_in_part(lake):
    """History that covers a part of a lost range heals that part alone."""
    with lake.metadata.write() as tx:
        key = losses.ensure_tick_series(tx, "k", "A/B", T0)
        losses.book_losses(tx, key, [(Interval(T0, T0 + 100), "killed", {"run_id": "r"}), (Interval(T0, T0), "killed", {})], T0)
        assert losses.heal(tx, key, Interval(T0 + 20, T0 + 60), T0) == 1
        open_ones = losses.list_losses(tx, "k")
        healed = [gap for gap in losses.list_losses(tx, "k", healed_too=True) if gap.healed_at_us is not None]
    assert [gap.interval for gap in open_ones] == [Interval(T0, T0 + 20), Interval(T0 + 60, T0 + 100)]
    assert [gap.interval for gap in healed] == [Interval(T0 + 20, T0 + 60)]


def test_unknown_ticks_are_an_error(lake):
    """Neither Python nor SQL answers with an empty table where nothing was ever kept."""
    with pytest.raises(NotFoundError, match="stream"):
        lake.ticks("k", "NO/SUCH")
    with pytest.raises(NotFoundError, match="no ticks"):
        lake.sql("FROM ticks('k', 'NO/SUCH')")


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["1", "2", None]), st.integers(1, 3)), max_size=40))
def test_repeats_are_exact_and_the_first_stays(rows):
    """Of each key the first row stays, in its place; rows that differ in anything that counts are kept."""
    ticks = [Tick("A", T0 + at, T0, None, None, float(price), 1.0, "buy", named) for at, named, price in rows]
    seen, expected = set(), []
    for tick in ticks:
        if tick.key not in seen:
            seen.add(tick.key)
            expected.append((tick.ts_us, tick.trade_id, tick.price))
    kept = without_repeats(frame_of(ticks, "stream", "r"))
    assert kept.select(pl.col("ts").dt.epoch("us"), "trade_id", "price").rows() == expected


def killed_rounds(lake, rounds):
    """Run the worker and kill it at a random moment, so often; return the ids that were said to be durable, and those heard."""
    dice, durable, heard = random.Random(3), set(), 0
    for number in range(rounds):
        first = number * 1_000_000
        worker = subprocess.Popen([sys.executable, str(WORKER), str(lake.root.parent), str(first)], stdout=subprocess.PIPE, text=True)
        lines = dice.randint(3, 90)
        for _ in range(lines):
            word, last = worker.stdout.readline().split()
            if word == "durable":
                durable.update(range(first, int(last) + 1))
        worker.kill()
        rest = worker.communicate()[0].split()
        for word, last in zip(rest[::2], rest[1::2], strict=False):
            if word == "durable":
                durable.update(range(first, int(last) + 1))
            heard = max(heard, int(last))
    return durable, heard


@pytest.mark.slow
def test_what_was_durable_survives_every_kill(lake):
    """Killed in the midst of journalling, flushing and starting: no durable tick is lost, none comes twice, all files are right."""
    durable, _ = killed_rounds(lake, 6)
    lake.tick_store.flush()
    found = lake.ticks("k", "A/B")
    ids = [int(text) for text in found["trade_id"]]
    assert len(set(ids)) == len(ids)
    assert durable <= set(ids)
    assert journal.segments(lake.root, "k") == []
    assert lake.verify().problems == []

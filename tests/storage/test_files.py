"""The lake's files: names, flush, import, retention, sweep, verify, rebuild, and other people's readers."""

from __future__ import annotations

import errno
import hashlib
import os
import threading

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.candles import VALUES
from core.clock import DAY_US, MINUTE_US, parse_instant, to_datetime
from core.errors import InputError, StoreCorruptError, StoreFullError, StoreUnwritableError
from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from core.timeframe import Grid, Timeframe
from storage import Batch, Gap, Written, open_lake
from storage.coverage import coverage
from storage.exchange_files import read_candle_file
from storage.lake import layout
from storage.lake.place import store_error
from storage.lake.schema import HIVE_SCHEMA
from storage.ledger import list_gaps
from storage.metadata.tables import connections
from storage.series import ensure_series, get_series
from storage.statements import execute_many
from tests.storage.conftest import BOTH_STORES, START_US, add_connection, candles

KEY = ("kraken", "BTC/USDT", "1m")
SYMBOLS = ["0700", "700", "1e5", "true", "inf", "NULL", "2026-01-01", "BTC/USDT", "BTC%2FUSDT", "EURUSDm", "EURUSDM", "a b",
           "...", "X.", "a=b", "a\\b", "#Ä€", "'quoted'", "a{b}[c]*?"]


def _tree(lake):
    return sorted(item.relative_to(lake.root).as_posix() for item in (lake.root / "candles").rglob("*") if item.is_file())


def test_layout_is_the_documented_one(lake, add_series):
    """Months below 5m, years from 5m up, named by their first day; nothing but Parquet in the tree."""
    for timeframe, step in (("1m", MINUTE_US), ("1mo", 31 * DAY_US), ("5m", 5 * MINUTE_US)):
        lake.write([Batch(add_series(timeframe=timeframe), candles(START_US // step * step, 2, step_us=step), "rest")], run_id="r")
    lake.flush()
    folders = {path.rsplit("/", 1)[0] for path in _tree(lake)}
    base = "candles/connection=kraken/symbol=BTC%2FUSDT"
    assert f"{base}/timeframe=1m/period=2026-01-01" in folders
    assert f"{base}/timeframe=5m/period=2026-01-01" in folders
    assert f"{base}/timeframe=1mo/period=2026-01-01" in folders
    assert all(path.endswith(".parquet") for path in _tree(lake))


def test_symbols_read_back_the_same_in_every_reader(lake, add_series):
    """DuckDB, Polars and pyarrow give each symbol as the provider spells it, when told that symbols are text."""
    lake.write([Batch(add_series(symbol), candles(START_US, 1), "rest") for symbol in SYMBOLS], run_id="r")
    lake.flush()
    root = lake.root / "candles"
    with duckdb.connect() as session:
        rows = session.execute(f"SELECT symbol FROM read_parquet('{root}/**/*.parquet', hive_types = {{'symbol': VARCHAR}})").fetchall()
    assert sorted(row[0] for row in rows) == sorted(SYMBOLS)
    assert sorted(pl.scan_parquet(root, hive_schema=HIVE_SCHEMA).collect()["symbol"]) == sorted(SYMBOLS)
    schema = pa.schema([(name, pa.string()) for name in HIVE_SCHEMA])
    read = ds.dataset(root, partitioning=ds.partitioning(schema, flavor="hive")).to_table()
    assert sorted(read["symbol"].to_pylist()) == sorted(SYMBOLS)
    for symbol in SYMBOLS:
        assert lake.candles("kraken", symbol, "1m").height == 1


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20))
def test_encoded_symbols_are_reversible_and_no_folder_of_their_own(symbol):
    """Any symbol comes back; its folder name holds no separator, is no dot name, and differs where only case differs."""
    text = layout.encode_symbol(symbol)
    assert layout.decode_symbol(text) == symbol
    assert text.isascii()
    assert "/" not in text
    assert text not in {".", ".."}
    twin = symbol.swapcase()
    assert symbol == twin or text.lower() != layout.encode_symbol(twin).lower()


@given(st.sampled_from(["1m", "3m", "5m", "1h", "1mo"]), st.integers(0, 4_000_000_000_000_000))
def test_paths_name_their_partition(timeframe, us):
    """A path leads back to its series and partition, and the partition holds the candle's time."""
    series = Series("kraken", "BTC/USDT", Timeframe.parse(timeframe))
    period = layout.period_of(series.timeframe, us)
    assert us in period
    label = layout.period_label(period)
    assert layout.parse_path(layout.new_file(series, label)) == (series, label)
    assert layout.period_start_us(label) == period.start


def test_names_that_cannot_be_folders_are_refused(lake, add_series):
    """A symbol too long for a file name, and hive's word for null, are refused before anything is stored."""
    for symbol in ("é" * 90, "__HIVE_DEFAULT_PARTITION__"):
        with pytest.raises(InputError, match="symbol"):
            add_series(symbol)
    with pytest.raises(StoreCorruptError):
        layout.parse_path("candles/x/y.parquet")
    with pytest.raises(StoreCorruptError):
        layout.parse_path("other/connection=a/symbol=B/timeframe=1m/period=2026-01-01/x.parquet")


def test_flush_leaves_one_live_file_for_each_partition(lake, add_series):
    """After several flushes each partition has one file; superseded ones lie in .old/ and the head is empty."""
    series = add_series()
    seen = []
    for part in range(3):
        lake.write([Batch(series, candles(START_US + part * 20 * MINUTE_US, 20), "rest")], run_id="r")
        lake.flush(progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1] == (1, 1, "flushed")
    assert len(_tree(lake)) == 2
    assert lake.flush().rows == 0
    assert lake.candles(*KEY).height == 60
    assert len(list((lake.root / ".old").rglob("*.parquet"))) == 2
    assert lake.verify().problems == []


def test_flush_only_what_is_named(lake, add_series):
    """flush(series_ids) leaves other series in the head."""
    first, second = add_series(), add_series("ETH/USDT")
    lake.write([Batch(item, candles(START_US, 3), "rest") for item in (first, second)], run_id="r")
    assert lake.flush([second]).rows == 3
    assert all("ETH" in path for path in _tree(lake))


@pytest.mark.slow
@BOTH_STORES
def test_many_writers_and_flushers_at_once_lose_nothing(lake, add_series):
    """Threads that write, revise and flush one series at the same time end with every candle once, at its last value."""
    series = add_series()
    failed = []

    def work(number: int) -> None:
        other = open_lake(lake.root.parent)
        try:
            for turn in range(6):
                start = START_US + number * 1000 * MINUTE_US
                other.write([Batch(series, candles(start, 10 + turn, price=100.0 + turn), "rest")], run_id=f"{number}")
                other.flush()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            other.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    frame = lake.candles(*KEY)
    want = pl.concat([candles(START_US + number * 1000 * MINUTE_US, 15, price=105.0) for number in range(4)])
    assert frame.select("ts", *VALUES).equals(want)
    assert lake.verify().problems == []


@BOTH_STORES
def test_import_goes_straight_to_the_lake_and_keeps_what_is_there(lake, add_series):
    """Imported candles fill partitions; equal ones change nothing, different ones are revisions; gaps are cleared."""
    series = add_series()
    booked = Interval(START_US, START_US + 10 * MINUTE_US)
    lake.write([Batch(series, candles(START_US + 10 * MINUTE_US, 5), "rest", gaps=[Gap(series, booked, "unknown")])], run_id="r")
    frame = candles(START_US, 3000).with_columns(close=pl.col("close") - 0.5)
    assert lake.import_candles(series, frame, run_id="i") == Written(2995, 5, 0, 0)
    assert lake.import_candles(series, frame.reverse(), run_id="i") == Written(0, 0, 3000, 0)
    assert lake.import_candles(series, frame.clear(), run_id="i") == Written(0, 0, 0, 0)
    assert lake.candles(*KEY).select("ts", *VALUES).equals(frame)
    with lake.metadata.read() as tx:
        assert list_gaps(tx) == []
        assert get_series(tx, series).first_us == START_US


@pytest.mark.parametrize("bad", [
    candles(START_US, 1).with_columns(close=pl.lit(float("nan"))), pl.concat([candles(START_US, 1), candles(START_US, 1)])])
def test_import_refuses_unchecked_frames(lake, add_series, bad):
    """A frame with values that are not finite, or two rows for one time, is refused whole."""
    with pytest.raises(InputError, match="check"):
        lake.import_candles(add_series(), bad, run_id="i")


@BOTH_STORES
def test_retention_plans_then_cuts_exactly(lake, add_series, clock):
    """Partitions below the boundary go whole, its own is cut at the very candle; head, revisions, gaps and watermarks follow."""
    series = add_series()
    start = parse_instant("2025-12-20")
    lake.import_candles(series, candles(start, 60 * 24 * 30), run_id="i")
    clock.set(clock.now_us() + 1)
    lake.write([Batch(series, candles(start + 5 * MINUTE_US, 1, price=1.5), "rest", gaps=[
        Gap(series, Interval(start - DAY_US, start), "out_of_reach")])], run_id="r")
    boundary = parse_instant("2026-01-05T10:07Z")
    plan = lake.plan_retention(boundary, "kraken")
    (item,) = plan.items
    assert (plan.rows, item.whole_files, item.cut_files) == ((boundary - start) // MINUTE_US, 1, 1)
    assert lake.candles(*KEY).height == 60 * 24 * 30
    done = lake.apply_retention(plan)
    assert (done.rows, done.files) == (plan.rows, 2)
    frame = lake.candles(*KEY)
    assert frame["ts"].dt.epoch("us")[0] == boundary
    assert frame.height == 60 * 24 * 30 - plan.rows
    with lake.metadata.read() as tx:
        assert get_series(tx, series).first_us == boundary
        assert list_gaps(tx) == []
    assert lake.candles(*KEY, as_of=clock.now_us()).height == frame.height
    assert lake.plan_retention(boundary).items == []
    assert lake.verify().problems == []
    with pytest.raises(InputError):
        lake.plan_retention(-1)


def test_retention_of_everything_empties_the_series(lake, add_series):
    """A boundary past the last candle leaves no candle and no watermark."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 60), "rest")], run_id="r")
    lake.flush()
    lake.apply_retention(lake.plan_retention(START_US + DAY_US))
    assert lake.candles(*KEY).is_empty()
    with lake.metadata.read() as tx:
        assert get_series(tx, series).last_us is None


@BOTH_STORES
def test_sweep_clears_leftovers_and_keeps_what_lives(lake, add_series, tmp_path):
    """Staging leftovers and orphans go; live files and files of unknown series stay; .old/ goes after its grace only."""
    series = add_series()
    for count in (3, 5):
        lake.write([Batch(series, candles(START_US, count), "rest")], run_id="r")
        lake.flush()
    live = _tree(lake)
    folder = (lake.root / live[0]).parent
    (folder / "orphan.parquet").write_bytes((lake.root / live[0]).read_bytes())
    (lake.root / ".staging" / "0123.leftover.parquet").write_bytes(b"half")
    foreign = lake.root / "candles/connection=gone/symbol=X/timeframe=1m/period=2026-01-01/a.parquet"
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"x")
    assert lake.sweep().files == 2
    assert sorted(_tree(lake)) == sorted([*live, foreign.relative_to(lake.root).as_posix()])
    assert len(list((lake.root / ".old").rglob("*.parquet"))) == 2
    eager = type(lake)(lake.place, grace_hours=0)
    assert eager.sweep().files == 2
    assert not list((lake.root / ".old").iterdir())
    assert lake.candles(*KEY).height == 5


def test_verify_finds_every_kind_of_damage(lake, add_series):
    """A flipped bit, a missing file, an orphan and a stray file are each named with what to do."""
    for symbol in ("A", "B", "C"):
        lake.write([Batch(add_series(symbol), candles(START_US, 20), "rest")], run_id="r")
    lake.flush()
    seen = []
    assert lake.verify(lambda done, total, what: seen.append(done)).problems == []
    assert seen[-1] == 3
    a, b, c = (lake.root / path for path in _tree(lake))
    flipped = bytearray(a.read_bytes())
    flipped[len(flipped) // 3] ^= 4
    a.write_bytes(flipped)
    b.unlink()
    (c.parent / "other.parquet").write_bytes(c.read_bytes())
    (c.parent / "_SUCCESS").write_bytes(b"")
    whats = sorted(problem.what.split(":")[0] for problem in lake.verify().problems)
    assert whats == ["its bytes are not those that were written", "missing", "not a file of the lake; it breaks other readers",
                     "not in the manifest"]
    assert all(problem.fix for problem in lake.verify().problems)


@pytest.mark.parametrize(("damage", "says"), [
    (lambda frame: frame.drop("run_id"), "columns"), (lambda frame: frame.head(3), "holds 3 rows"),
    (lambda frame: frame.reverse(), "not sorted"), (lambda frame: frame.with_columns(pl.col("ts") + pl.duration(minutes=1)), "first or last"),
    (None, "not readable")])
def test_verify_reads_what_is_in_a_file(lake, add_series, damage, says):
    """A file whose digest is right and whose content is not, as after a writer's mistake, is a problem of its own."""
    lake.write([Batch(add_series(), candles(START_US, 20), "rest")], run_id="r")
    lake.flush()
    file = lake.root / _tree(lake)[0]
    if damage is None:
        file.write_bytes(b"PAR1 no parquet PAR1")
    else:
        damage(pl.read_parquet(file, hive_partitioning=False)).write_parquet(file)
    with lake.metadata.write() as tx:
        execute_many(tx, "UPDATE lake_files SET digest = ?", [(hashlib.sha256(file.read_bytes()).hexdigest(),)])
    (problem,) = lake.verify().problems
    assert says in problem.what


def test_verify_names_live_files_in_old_and_superseded_ones_in_the_tree(lake, add_series):
    """Files that lie where they should not are said to, with the way back; a folder in a file's place is no crash."""
    series = add_series()
    for count in (3, 5):
        lake.write([Batch(series, candles(START_US, count), "rest")], run_id="r")
        lake.flush()
    live, old = lake.root / _tree(lake)[0], next((lake.root / ".old").rglob("*.parquet"))
    (live.parent / old.name).write_bytes(old.read_bytes())
    (problem,) = lake.verify().problems
    assert problem.what.startswith("superseded, but still in the tree")
    (live.parent / old.name).unlink()
    live.rename(old.parent / live.name)
    assert [item.what for item in lake.verify().problems] == ["live, but lies in .old/"]
    live.mkdir()
    assert [item.what.split(":")[0] for item in lake.verify().problems] == ["cannot be read"]


def test_rebuild_after_lost_metadata(lake, add_series, tmp_path, clock):
    """From the files alone every flushed candle comes back; connections return inactive; partition twins are merged."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 50), "rest")], run_id="r")
    lake.flush()
    want = lake.candles(*KEY)
    twin = lake.root / _tree(lake)[0]
    (twin.parent / "twin.parquet").write_bytes(twin.read_bytes())
    (lake.root / "candles" / "broken.parquet").write_bytes(b"x")
    home = lake.root.parent
    lake.close()
    for item in home.glob("metadata.db*"):
        item.unlink()
    again = open_lake(home, clock)
    report = again.rebuild()
    assert (report.connections, report.series, report.files) == (1, 1, 2)
    assert report.skipped == ["candles/broken.parquet"]
    assert again.candles(*KEY).equals(want)
    assert again.sql("SELECT status, provider FROM connections").row(0) == ("inactive", "unknown")
    (lake.root / "candles" / "broken.parquet").unlink()
    assert again.verify().problems == []
    assert again.rebuild().files == 0
    again.close()


@BOTH_STORES
def test_rebuild_joins_orphans_to_live_partitions(lake, add_series):
    """A file that the manifest does not know is merged with the live one of its partition."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 5), "rest")], run_id="r")
    lake.flush()
    orphan = lake.root / layout.new_file(Series.parse(*KEY), "2026-01-01")
    lake.candles(*KEY).with_columns(pl.col("ts") + pl.duration(minutes=10)).write_parquet(orphan)
    assert lake.rebuild().files == 1
    assert lake.candles(*KEY).height == 10
    assert lake.verify().problems == []


@pytest.mark.parametrize(("number", "kind"), [
    (errno.ENOSPC, StoreFullError), (errno.EROFS, StoreUnwritableError), (errno.EACCES, StoreUnwritableError),
    (errno.EIO, StoreUnwritableError), (errno.ENOENT, StoreCorruptError)])
def test_errors_of_the_file_system_say_what_to_do(tmp_path, number, kind):
    """Each error of the operating system becomes the store's own, with the path."""
    error = store_error(tmp_path, OSError(number, os.strerror(number)))
    assert isinstance(error, kind)
    assert str(tmp_path) in str(error)


def test_a_full_or_unwritable_place_leaves_everything_as_it_was(lake, add_series):
    """When a partition's folder cannot be made, flush fails by name, the head keeps its rows, and nothing is left in staging."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 5), "rest")], run_id="r")
    (lake.root / "candles").rmdir()
    (lake.root / "candles").write_bytes(b"in the way")
    with pytest.raises(StoreUnwritableError):
        lake.flush()
    assert not list((lake.root / ".staging").iterdir())
    (lake.root / "candles").unlink()
    assert lake.flush().rows == 5
    assert lake.candles(*KEY).height == 5


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_export_comes_back_the_same(lake, add_series, tmp_path, kind):
    """What is exported reads back as the same candles."""
    lake.write([Batch(add_series(), candles(START_US, 30, spread=0.25), "rest")], run_id="r")
    file = tmp_path / f"out.{kind}"
    assert lake.export(*KEY, file, kind) == 30
    assert read_candle_file(file).equals(candles(START_US, 30, spread=0.25))
    with pytest.raises(InputError, match="format"):
        lake.export(*KEY, file, "xlsx")


@pytest.mark.parametrize("times", [
    [1_769_902_200, 1_769_902_260], [1_769_902_200_000, 1_769_902_260_000], [1_769_902_200_000_000, 1_769_902_260_000_000],
    ["2026-01-31T23:30:00Z", "2026-01-31T23:31:00Z"], ["2026-01-31 23:30", "2026-01-31 23:31"],
    ["2026-02-01T01:30:00+02:00", "2026-02-01T01:31:00+02:00"], ["1769902200.0", "1769902260.0"]])
@pytest.mark.parametrize("name", ["ts", "Time", "timestamp", "date"])
def test_people_write_times_in_many_ways(tmp_path, times, name):
    """Seconds, milliseconds, microseconds and ISO 8601 under any usual column name mean the same instants."""
    file = tmp_path / "in.csv"
    pl.DataFrame({name: times, "Open": [1, 2], "high": [1, 2], "low": [1, 2], "close": [1, 2]}).write_csv(file)
    frame = read_candle_file(file)
    assert frame["ts"].dt.epoch("us").to_list() == [START_US, START_US + MINUTE_US]
    assert frame["volume"].to_list() == [0.0, 0.0]
    assert frame["spread"].to_list() == [None, None]


@pytest.mark.parametrize(("content", "says"), [
    ("a,b\n1,2\n", "for the time"), ("ts,open,high,low\n1,2,3,4\n", "close is missing"),
    ("ts,open,high,low,close\nyesterday,1,1,1,1\n", "yesterday"), ("ts,open,high,low,close\n2026-01-01,x,1,1,1\n", "decimal point"),
    ("ts,open,high,low,close\n-5,1,1,1,1\n", "1970"), ("ts,open,high,low,close\n99999999999999999,1,1,1,1\n", "2100"), ("", "readable csv")])
def test_files_that_are_no_candles_say_why(tmp_path, content, says):
    """A file that cannot be candles is refused with what was found and what is expected."""
    file = tmp_path / "in.csv"
    file.write_text(content)
    with pytest.raises(InputError, match=says):
        read_candle_file(file)


def test_unknown_or_missing_files_are_refused(tmp_path):
    """A wrong ending and a wrong path each say so."""
    with pytest.raises(InputError, match="ends in"):
        read_candle_file(tmp_path / "x.xlsx")
    with pytest.raises(InputError, match="exists"):
        read_candle_file(tmp_path / "x.csv")


@BOTH_STORES
def test_coverage_counts_slots(lake, add_series):
    """Slots add up: expected = stored + explained + unexplained, from the first stored or booked slot to the last."""
    series = add_series()
    add_series("EMPTY")
    lake.write([Batch(series, candles(START_US, 10), "rest", gaps=[
        Gap(series, Interval(START_US + 10 * MINUTE_US, START_US + 13 * MINUTE_US), "no_trade"),
        Gap(series, Interval(START_US + 13 * MINUTE_US, START_US + 14 * MINUTE_US), "unknown")])], run_id="r")
    lake.write([Batch(series, candles(START_US + 20 * MINUTE_US, 5), "rest")], run_id="r")
    lake.flush()
    row = coverage(lake, "kraken", "BTC/USDT", "1m")[0]
    assert (row.expected, row.stored, row.explained, row.unexplained) == (25, 15, 3, 7)
    empty = coverage(lake, symbol="EMPTY")[0]
    assert (empty.expected, empty.first_us) == (0, None)


def _broker_days(first: str, count: int, clock: ServerClock) -> pl.DataFrame:
    """Return daily candles that open at a server's midnight."""
    opens = Grid(Timeframe.parse("1d"), clock).slots(Interval(parse_instant(first), parse_instant(first) + (count + 1) * DAY_US))
    return candles(START_US, count).with_columns(ts=pl.Series([to_datetime(us) for us in opens[:count]]))


@BOTH_STORES
def test_a_brokers_days_are_counted_filled_and_cleared_on_its_own_grid(lake, clock):
    """With the server's clock in the connection's config days follow its summer time: coverage, fill, write and import agree."""
    server = ServerClock.fixed(120, "us")
    with lake.metadata.write() as tx:
        key = int(tx.execute(connections.insert().values(
            slug="broker", name="b", type="fx", provider="mtapi:mt5", config={"server_clock": server.as_config()}, settings={},
            status="active", is_active=True, is_admin_owned=False, created_at_us=0, updated_at_us=0)).inserted_primary_key[0])
        series = ensure_series(tx, key, "EURUSD", "1d", 0).id
    days = _broker_days("2026-03-01", 20, server)  # New York's summer begins on 8 March
    opens = days["ts"].dt.epoch("us").to_list()
    assert {us % DAY_US for us in opens} == {22 * 60 * MINUTE_US, 21 * 60 * MINUTE_US}
    whole = Interval(opens[0], Grid(Timeframe.parse("1d"), server).next(opens[-1]))
    lake.write([Batch(series, pl.concat([days[:5], days[10:12]]), "rest", gaps=[Gap(series, whole, "unknown")])], run_id="r")
    row = coverage(lake, "broker")[0]
    assert (row.expected, row.stored, row.explained, row.unexplained) == (20, 7, 0, 13)
    fill = lake.candles("broker", "EURUSD", "1d", fill="previous")
    assert fill["ts"].to_list() == days["ts"][:12].to_list()
    assert fill["is_filled"].sum() == 5
    lake.import_candles(series, days[5:10], run_id="i")
    assert coverage(lake, "broker")[0].unexplained == 8
    lake.write([Batch(series, days[12:], "rest")], run_id="r")
    with lake.metadata.read() as tx:
        assert list_gaps(tx) == []
    assert coverage(lake, "broker", servers={"broker": server})[0].unexplained == 0


def test_two_connections_do_not_meet(lake, add_series):
    """The same symbol of two connections is two series with folders of their own."""
    other = add_connection(lake, "binance")
    with lake.metadata.write() as tx:
        second = ensure_series(tx, other, "BTC/USDT", "1m").id
    lake.write([Batch(add_series(), candles(START_US, 1), "rest"), Batch(second, candles(START_US, 2), "rest")], run_id="r")
    lake.flush()
    assert lake.candles(*KEY).height == 1
    assert lake.candles("binance", "BTC/USDT", "1m").height == 2

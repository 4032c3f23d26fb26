"""Reading: ranges, as_of, fill, latest, SQL, catalog, and what is said when something is wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import duckdb
import polars as pl
import pytest

from core.candles import STORED_SCHEMA
from core.clock import DAY_US, MINUTE_US, to_datetime
from core.errors import InputError, NotFoundError, StoreCorruptError
from core.interval import Interval
from storage import Batch, Gap
from tests.storage.conftest import BOTH_STORES, START_US, candles

KEY = ("kraken", "BTC/USDT", "1m")


@pytest.fixture
def filled_lake(lake, add_series):
    """60 candles over a partition border, the first 45 flushed and the last of those revised in the head."""
    series = add_series()
    lake.write([Batch(series, candles(START_US, 45), "rest")], run_id="a")
    lake.flush()
    lake.write([Batch(series, candles(START_US + 44 * MINUTE_US, 16, price=144.5), "rest")], run_id="b")
    return lake


@BOTH_STORES
def test_head_overrides_the_lake(filled_lake):
    """One frame, ascending, unique, with the head's value where both have one."""
    frame = filled_lake.candles(*KEY)
    assert frame.schema == STORED_SCHEMA
    assert frame.height == 60
    assert frame["ts"].is_sorted()
    assert frame["close"][44] == 144.5


@pytest.mark.parametrize(("first", "last"), [(0, 60), (10, 20), (25, 35), (44, 45), (50, 60), (60, 70), (5, 5)])
def test_ranges_are_half_open(filled_lake, first, last):
    """Reading [start, end) gives exactly the candles that open in it, wherever they lie."""
    start, end = START_US + first * MINUTE_US, START_US + last * MINUTE_US
    got = filled_lake.candles(*KEY, start=to_datetime(start), end=to_datetime(end))
    want = filled_lake.candles(*KEY).slice(first, max(0, min(last, 60) - first))
    assert got.equals(want)
    slots = filled_lake.stored_slots(1, Interval(start, end))
    assert slots.tolist() == want["ts"].dt.epoch("us").to_list()


@pytest.mark.parametrize("count", [1, 3, 15, 16, 17, 30, 59, 60, 500])
def test_latest_gives_the_newest_ascending(filled_lake, count):
    """`latest` equals the tail of all candles, over head, row groups and partitions."""
    assert filled_lake.latest(*KEY, count).equals(filled_lake.candles(*KEY).tail(count))


def test_latest_reads_only_what_it_needs_from_a_large_file(lake, add_series):
    """Over more than one row group `latest` still equals the tail."""
    lake.import_candles(add_series(), candles(START_US, 20_000), run_id="i")
    assert lake.latest(*KEY, 9_000).equals(lake.candles(*KEY).tail(9_000))
    assert lake.latest(*KEY).height == 100


@pytest.mark.parametrize("columns", [("close",), ("ts", "close"), ("source", "volume"), ("spread", "known_at", "run_id", "ts")])
def test_columns_are_those_asked_for(filled_lake, columns):
    """Whichever columns are asked for, in whichever order, they hold what the whole answer holds: over head and lake, in the past, filled, in a snapshot."""
    filled_lake.create_snapshot("then")
    border = START_US + 30 * MINUTE_US
    for where in ({}, {"start": border}, {"end": border}, {"as_of": filled_lake.clock.now_us()}, {"fill": "previous"}, {"snapshot": "then"}):
        got = filled_lake.candles(*KEY, **where, columns=columns)
        assert got.columns == list(columns)
        assert got.equals(filled_lake.candles(*KEY, **where).select(columns)), where
    for count in (1, 16, 50, 500):
        assert filled_lake.latest(*KEY, count, columns=columns).equals(filled_lake.candles(*KEY).tail(count).select(columns))
    empty = filled_lake.candles(*KEY, end=START_US, columns=columns)
    assert empty.schema == pl.Schema({name: STORED_SCHEMA[name] for name in columns})


def test_columns_of_filled_and_derived_candles_have_their_own_marks(filled_lake):
    """`is_filled` and `is_complete` can be asked for where there are such columns, and nowhere else."""
    assert filled_lake.candles(*KEY, fill="previous", columns=["is_filled"]).to_series().to_list() == [False] * 60
    assert filled_lake.candles(*KEY[:2], "5m", derive_from="1m", columns=["ts", "is_complete"]).columns == ["ts", "is_complete"]
    for wrong in (["is_filled"], [], ["ts", "ts"], ["Close"], "price"):
        with pytest.raises(InputError, match=r"columns: .* ts, open"):
            filled_lake.candles(*KEY, columns=wrong)
    with pytest.raises(InputError, match="columns"):
        filled_lake.latest(*KEY, columns=["parts"])


def test_an_answer_that_is_changed_in_place_changes_no_later_one(lake, add_series):
    """What a caller does to a frame of the newest candles is not seen by the next caller."""
    lake.write([Batch(add_series(), candles(START_US, 30), "rest")], run_id="a")
    for _ in range(2):
        frame = lake.latest(*KEY, 30)
        assert frame["close"][0] != -1.0
        frame[0, "close"] = -1.0
        frame.extend(frame)
        frame.drop_in_place("open")
        lake.flush()


def test_instants_may_be_integers_of_numpy(filled_lake):
    """Microseconds from an array are taken as they are."""
    slots = filled_lake.stored_slots(1, Interval(START_US, START_US + 60 * MINUTE_US))
    assert filled_lake.candles(*KEY, start=slots[10], end=slots[20]).height == 10


def test_fill_marks_and_never_stores(lake, add_series):
    """Filled rows carry the last close and no volume, say that they are filled, and are not stored."""
    series = add_series()
    lake.write([Batch(series, pl.concat([candles(START_US, 2), candles(START_US + 4 * MINUTE_US, 1)]), "rest")], run_id="r")
    frame = lake.candles(*KEY, fill="previous")
    assert frame["is_filled"].to_list() == [False, False, True, True, False]
    assert frame["high"].to_list()[2:4] == [101.0, 101.0]
    assert frame["volume"].to_list()[2:4] == [0.0, 0.0]
    assert lake.candles(*KEY).height == 3
    assert lake.candles(*KEY, end=START_US + MINUTE_US, fill="previous")["is_filled"].to_list() == [False]


def test_wrong_requests_say_what_is_allowed(lake, add_series):
    """An unknown series, fill, count or instant is refused in one line."""
    add_series()
    with pytest.raises(NotFoundError, match="no series kraken XRP/USDT 1m"):
        lake.candles("kraken", "XRP/USDT", "1m")
    with pytest.raises(InputError, match="fill"):
        lake.candles(*KEY, fill="linear")
    with pytest.raises(InputError, match="count"):
        lake.latest(*KEY, 0)
    with pytest.raises(InputError, match="start"):
        lake.candles(*KEY, start=1.5)
    with pytest.raises(InputError, match="start before its end"):
        lake.candles(*KEY, start="2026-02-01", end="2026-01-01")


def test_a_missing_or_damaged_file_is_an_error_and_never_a_short_answer(filled_lake):
    """Reading over a lost or cut file raises StoreCorruptError that names the file."""
    file = next((filled_lake.root / "candles").rglob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    for read in (lambda: filled_lake.candles(*KEY), lambda: filled_lake.sql("FROM candles('kraken', 'BTC/USDT', '1m')")):
        with pytest.raises(StoreCorruptError):
            read()
    file.unlink()
    for read in (lambda: filled_lake.candles(*KEY), lambda: filled_lake.sql("FROM all_candles")):
        with pytest.raises(StoreCorruptError, match="verify"):
            read()


@BOTH_STORES
def test_sql_sees_the_same_candles(filled_lake):
    """`candles(...)` in SQL, by literals or parameters, and `all_candles` equal `lake.candles`."""
    want = filled_lake.candles(*KEY)
    for text, parameters in (("SELECT * FROM candles('kraken', 'BTC/USDT', '1m') ORDER BY ts", None),
                             ("SELECT * FROM candles(?, ?, ?) ORDER BY ts", list(KEY)),
                             ("SELECT * EXCLUDE (connection, symbol, timeframe) FROM all_candles ORDER BY ts", None)):
        assert filled_lake.sql(text, parameters).cast(STORED_SCHEMA).equals(want)
    joined = "SELECT count(*) AS n FROM candles('kraken','BTC/USDT','1m') a JOIN candles('kraken','BTC/USDT','1m') b USING (ts)"
    assert filled_lake.sql(joined).item() == 60


def test_sql_with_thousands_of_texts_still_finds_its_series(filled_lake):
    """However many texts a query holds, the series that it names is found."""
    texts = ", ".join(f"'{n}'" for n in range(6000))
    query = f"SELECT count(*) AS n FROM candles('kraken', 'BTC/USDT', '1m') WHERE run_id NOT IN ({texts})"
    assert filled_lake.sql(query).item() == 60


def test_queries_at_the_same_time_do_not_see_each_other(lake, add_series):
    """Threads that ask for series of the same process each get their own."""
    for number in range(4):
        lake.write([Batch(add_series(f"S{number}"), candles(START_US, number + 1), "rest")], run_id="r")

    def ask(number):
        return lake.sql(f"SELECT count(*) AS n FROM candles('kraken', 'S{number % 4}', '1m')").item()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(40))) == [number % 4 + 1 for number in range(40)]


@BOTH_STORES
def test_sql_shows_the_metadata_without_secrets(filled_lake):
    """series, gaps, connections, revisions and files are there; no column can hold a credential."""
    filled_lake.write([Batch(1, candles(START_US, 0), "rest", gaps=[
        Gap(1, Interval(START_US - DAY_US, START_US), "unknown", proof={"why": "test"})])], run_id="r")
    rows = {name: filled_lake.sql(f"FROM {name}") for name in ("series", "gaps", "connections", "revisions", "files")}
    assert {name: frame.height for name, frame in rows.items()} == {
        "series": 1, "gaps": 1, "connections": 1, "revisions": 1, "files": 2}
    assert rows["gaps"]["cause"].to_list() == ["unknown"]
    assert not {"config", "base_url", "ciphertext", "last_error"} & set(rows["connections"].columns)


@pytest.mark.parametrize("text", [
    "COPY (SELECT 1) TO 'x.csv'", "ATTACH 'x.db'", "SET threads = 1", "SELECT 1; SELECT 2", "INSTALL httpfs", "selec", "",
    "SELECT * FROM read_csv('/etc/passwd')", "FROM glob('/etc/*')", "FROM nothing", "SELECT * FROM read_text('/proc/self/environ')"])
def test_sql_reaches_nothing_but_the_lake(filled_lake, text):
    """Anything but one query over the lake is refused with what is allowed."""
    with pytest.raises(InputError, match="allowed"):
        filled_lake.sql(text)


def test_sql_names_an_unknown_series(filled_lake):
    """candles() of a series that is not in the store says which."""
    with pytest.raises(NotFoundError, match="no series kraken btc/usdt 1m"):
        filled_lake.sql("FROM candles('kraken', 'btc/usdt', '1m')")


@BOTH_STORES
def test_catalog_opens_anywhere_and_replaces_whole(filled_lake, tmp_path, monkeypatch):
    """candlelake.duckdb answers from any working directory, before any file exists and after flushes, while one is open."""
    filled_lake.flush()
    filled_lake.write_catalog()
    monkeypatch.chdir(tmp_path)
    database = filled_lake.root / "candlelake.duckdb"
    with duckdb.connect(str(database), read_only=True) as session:
        filled_lake.write_catalog()
        assert session.execute("SELECT count(*), max(ts) IS NOT NULL FROM candles('kraken', 'BTC/USDT', '1m')").fetchone() == (60, True)
        assert session.execute("SELECT DISTINCT symbol FROM all_candles").fetchall() == [("BTC/USDT",)]
        for name in ("series", "gaps", "connections", "files"):
            session.execute(f"FROM {name}").fetchall()
    assert sorted(item.name for item in (filled_lake.root / "catalog").iterdir()) == [
        "connections.parquet", "files.parquet", "gaps.parquet", "series.parquet"]
    assert not list((filled_lake.root / ".staging").iterdir())


def test_catalog_of_an_empty_lake_is_typed(lake):
    """Before the first file the views are empty and have their types."""
    lake.write_catalog()
    with duckdb.connect(str(lake.root / "candlelake.duckdb"), read_only=True) as session:
        assert session.execute("FROM all_candles").fetchall() == []
        kinds = {row[0]: row[1] for row in session.execute("DESCRIBE all_candles").fetchall()}
        assert session.execute("SELECT symbol, ts, old_close, new_close FROM revisions").fetchall() == []
    assert kinds["ts"] == "TIMESTAMP WITH TIME ZONE"
    assert kinds["close"] == "DOUBLE"
    assert lake.sql("FROM all_candles").is_empty()

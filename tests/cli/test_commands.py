"""The commands from adding a connection to reading its candles, over real parts: a replayed file, the store, the lake."""

import asyncio
import json
import sqlite3
import threading
from datetime import UTC, datetime, timedelta

import duckdb
import polars as pl
import pytest

from core.clock import SystemClock, to_datetime
from feed import open_feed

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = ("2024-01-01", "2024-01-02")
SERIES = ("tape", "BTCUSD", "1m")
COVERAGE = ["connection", "symbol", "timeframe", "first", "last", "expected", "stored", "explained", "unexplained"]


def candles_of(minutes, skip=()):
    """A frame of made-up minute candles from START on, without those in `skip`."""
    kept = [i for i in range(minutes) if i not in skip]
    close = [100 + (i * 7919 % 100) / 10 for i in kept]
    return pl.DataFrame({
        "ts": [START + timedelta(minutes=i) for i in kept], "open": close, "high": [c + 1 for c in close],
        "low": [c - 1 for c in close], "close": close, "volume": [float(i % 10 + 1) for i in kept],
    }, schema_overrides={"ts": pl.Datetime("us", "UTC")})


@pytest.fixture
def folder(tmp_path):
    """A folder with one replayed series: a day of minutes, ten of them missing."""
    path = tmp_path / "tapes"
    path.mkdir()
    candles_of(1440, skip=range(600, 610)).write_parquet(path / "made_BTCUSD_1m.parquet")
    return path


@pytest.fixture
def tape(candlelake, folder):
    """A connection `tape` to the replayed series."""
    config = json.dumps({"folder": str(folder), "market_type": "crypto"})
    answer = candlelake("connections", "add", "tape", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m",
                        "--config", config)
    assert answer.code == 0, answer.err
    assert "candlelake connections test tape" in answer.err
    assert answer.out == ""
    return candlelake


@pytest.fixture
def filled(tape):
    """The connection `tape`, its day backfilled."""
    answer = tape("backfill", *SERIES, *DAY, "--json")
    assert answer.code in {0, 3}, answer.err
    return tape


def test_a_backfill_stores_every_candle_and_says_so(tape):
    """A backfill ends with all candles of the source, its JSON has the promised fields, its exit code says how it ended."""
    answer = tape("backfill", *SERIES, *DAY, "--json")
    assert answer.json["stored"] == 1430
    assert answer.json["revised"] == 0
    assert answer.json["status"] == {0: "complete", 3: "complete_with_gaps"}[answer.code]
    again = tape("backfill", *SERIES, *DAY, "--json")
    assert again.json["stored"] == 0


def test_a_symbol_that_the_provider_lacks_is_told_and_not_kept(filled):
    """One line names it, also beside --json's answer; no series stays behind at which every later fetch would fail."""
    order = ("backfill", "tape", "XYZUSD", "1m", *DAY)
    for words in (order, (*order, "--json")):
        answer = filled(*words)
        assert answer.code == 1
        assert ["XYZUSD" in line for line in answer.err.splitlines() if line.startswith("error: ")] == [True]
    assert answer.json["status"] == "failed"
    assert [row["symbol"] for row in filled("coverage", "--json").json] == ["BTCUSD"]


def test_a_backfill_that_finds_another_at_work_waits_for_its_turn(tape):
    """Two backfills of one series at once: the second says that it waits, and ends with the candles, not as skipped."""
    is_held = threading.Event()

    async def hold():
        with open_feed() as feed:
            async with feed.leases.hold("backfill:tape BTCUSD 1m", seconds=60):
                is_held.set()
                await asyncio.sleep(1.5)

    other = threading.Thread(target=lambda: asyncio.run(hold()))
    other.start()
    assert is_held.wait(30)
    answer = tape("backfill", *SERIES, *DAY, "--json")
    other.join()
    assert answer.json["stored"] == 1430
    assert answer.err.count("waiting: ") == 1


def test_progress_goes_to_stderr(tape):
    """Without --json a backfill shows how far it is on stderr, and nothing on stdout."""
    answer = tape("backfill", *SERIES, *DAY)
    assert answer.out == ""
    assert "/1440" in answer.err


def test_coverage_adds_up(filled):
    """Every expected candle is stored, explained or unexplained; the fields are the promised ones."""
    (row,) = filled("coverage", "--json").json
    assert list(row) == COVERAGE
    assert (row["stored"], row["connection"], row["symbol"], row["timeframe"]) == (1430, "tape", "BTCUSD", "1m")
    assert row["expected"] == row["stored"] + row["explained"] + row["unexplained"]
    assert row["first"] == "2024-01-01T00:00:00Z"
    assert filled("audit", "--json").code == (1 if row["unexplained"] else 0)


def test_the_gap_is_booked_with_cause_and_proof(filled):
    """The ten missing minutes are in the ledger as one range, with all promised fields."""
    found = [row for row in filled("gaps", "tape", "--json").json if row["start"] == "2024-01-01T10:00:00Z"]
    assert [row["end"] for row in found] == ["2024-01-01T10:10:00Z"]
    assert set(found[0]) == {"connection", "symbol", "timeframe", "start", "end", "cause", "attempts", "next_try", "proof"}
    assert found[0]["attempts"] >= 1
    assert isinstance(found[0]["proof"], dict)


def test_candles_in_every_format_are_the_same(filled, tmp_path):
    """JSON, CSV and Parquet give the same candles; --limit gives the newest of the range, oldest first."""
    span = ("--start", "2024-01-01T01:00", "--end", "2024-01-01T02:00Z")
    rows = filled("candles", *SERIES, *span, "--json").json
    assert len(rows) == 60
    assert rows[0]["ts"] == "2024-01-01T01:00:00Z"
    assert rows[0]["ts"] < rows[-1]["ts"]
    text = filled("candles", *SERIES, *span, "--format", "csv")
    csv = pl.read_csv(text.out.encode())
    assert csv["close"].to_list() == [row["close"] for row in rows]
    assert csv["ts"][0] == "2024-01-01T01:00:00Z"
    target = tmp_path / "out.parquet"
    assert filled("candles", *SERIES, *span, "--format", "parquet", "-o", target).code == 0
    assert pl.read_parquet(target)["close"].to_list() == [row["close"] for row in rows]
    last = filled("candles", *SERIES, *span, "--limit", 2, "--json").json
    assert last == rows[-2:]
    assert filled("candles", *SERIES, *span, "--columns", "close, ts", "--json").json == [
        {"close": row["close"], "ts": row["ts"]} for row in rows]
    assert not list(tmp_path.glob(".out*"))


def test_a_table_shows_the_newest_hundred(filled):
    """Without range and limit the table has the newest hundred candles, and tells nothing else on stdout."""
    lines = filled("candles", *SERIES).out.splitlines()
    assert sum("2024-01-01T" in line for line in lines) == 100
    assert any("2024-01-01T23:59:00Z" in line for line in lines)


def test_filled_rows_are_marked(filled):
    """--fill adds the missing minutes to the answer, marked; without it they are absent."""
    span = ("--start", "2024-01-01T09:58", "--end", "2024-01-01T10:12")
    rows = filled("candles", *SERIES, *span, "--fill", "previous", "--json").json
    assert len(rows) == 14
    assert sum(row["is_filled"] for row in rows) == 10
    assert len(filled("candles", *SERIES, *span, "--json").json) == 4


def test_a_changed_candle_is_a_revision_and_the_past_can_be_read(filled, folder):
    """A value that the source changed is kept as a revision with old and new; --as-of reads the old one."""
    before = datetime.now(UTC).isoformat()
    candles_of(1440, skip=range(600, 610)).with_columns(
        pl.when(pl.col("ts") == pl.col("ts").max()).then(pl.col("volume") + 5).otherwise(pl.col("volume")).alias("volume"),
    ).write_parquet(folder / "made_BTCUSD_1m.parquet")
    target = folder.parent / "changed.parquet"
    pl.read_parquet(folder / "made_BTCUSD_1m.parquet").tail(1).write_parquet(target)
    answer = filled("import", *SERIES, target, "--json")
    assert answer.json["revised"] == 1
    (row,) = filled("revisions", "tape", "--json").json
    assert row["ts"] == "2024-01-01T23:59:00Z"
    assert row["new"]["volume"] - row["old"]["volume"] == 5
    now = filled("candles", *SERIES, "--limit", 1, "--json").json[0]
    then = filled("candles", *SERIES, "--limit", 1, "--as-of", before, "--json").json[0]
    assert now["volume"] - then["volume"] == 5


def test_flush_verify_and_other_peoples_readers(filled, home):
    """After a flush DuckDB reads the catalog and a plain glob finds the same rows; verify is content."""
    assert filled("flush", "--json").code == 0
    report = filled("verify", "--json")
    assert report.code == 0
    assert report.json["rows"] >= 1430
    assert report.json["problems"] == []
    glob = home / "lake/candles/**/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM read_parquet('{glob}', hive_partitioning=true)").fetchall() == [(1430,)]
    with duckdb.connect(home / "lake/candlelake.duckdb", read_only=True) as catalog:
        assert catalog.sql("SELECT count(*) FROM candles('tape','BTCUSD','1m')").fetchall() == [(1430,)]


def test_verify_finds_a_flipped_byte(filled, home):
    """A damaged file is named with what to do, and the exit code is 1."""
    filled("flush")
    file = next((home / "lake/candles").rglob("*.parquet"))
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)
    answer = filled("verify", "--json")
    assert answer.code == 1
    assert len(answer.json["problems"]) == 1


def test_query_reads_head_and_lake(filled):
    """SQL sees flushed and unflushed candles; a broken query is one line and exit code 2."""
    count = "SELECT count(*) AS n FROM candles('tape','BTCUSD','1m')"
    assert filled("query", count, "--json").json == [{"n": 1430}]
    filled("flush")
    assert filled("query", count, "--json").json == [{"n": 1430}]
    assert "1430" in filled("query", count).out
    broken = filled("query", "SELEC 1")
    assert broken.code == 2
    assert broken.err.count("\n") == 1


def test_fetch_and_repair_end_well(tape, folder):
    """Fetch and repair over a complete series store nothing new and say how they ended."""
    end = to_datetime(SystemClock().now_us()).replace(second=0, microsecond=0) - timedelta(minutes=5)  # all have settled
    candles = candles_of(1440).with_columns(ts=pl.col("ts") + (end - START - timedelta(days=1)))
    candles.write_parquet(folder / "made_BTCUSD_1m.parquet")
    assert tape("backfill", *SERIES, (end - timedelta(days=1)).isoformat(), end.isoformat(), "--json").json["stored"] == 1440
    for words in (("fetch", "tape"), ("repair", "tape"), ("repair",)):
        answer = tape(*words, "--json")
        assert answer.code in {0, 3}, answer.err
        assert {"status", "stored", "revised", "gaps"} <= set(answer.json)
        assert answer.json["stored"] == 0


def test_cleanup_is_a_dry_run_until_told(filled):
    """Cleanup shows the plan and removes nothing; with --apply the old candles are gone."""
    plan = filled("cleanup", "--retention-days", 1, "--json")
    assert plan.json["applied"] is False
    assert plan.json["rows"] == 1430
    assert "dry run" in filled("cleanup", "--retention-days", 1).err
    assert filled("coverage", "--json").json[0]["stored"] == 1430
    assert filled("cleanup", "--retention-days", 1, "--apply").code == 0
    assert filled("candles", *SERIES, "--json").json == []


@pytest.mark.parametrize("shape", ["csv", "parquet", "json"])
def test_export_and_import_give_the_same_candles(filled, tmp_path, shape):
    """What is exported can be imported into another connection, value for value."""
    target = tmp_path / f"out.{shape}"
    assert filled("export", *SERIES, target, "--json").json["rows"] == 1430
    assert filled("connections", "add", "copy", "--provider", "replay", "--config",
                  json.dumps({"folder": str(tmp_path), "market_type": "crypto"})).code == 0
    answer = filled("import", "copy", "BTCUSD", "1m", target, "--json")
    assert answer.json == {"stored": 1430, "revised": 0, "unchanged": 0, "rejected": {}}
    keys = ("ts", "open", "high", "low", "close", "volume")
    one, two = (
        [[row[key] for key in keys] for row in filled("candles", slug, "BTCUSD", "1m", "--json").json] for slug in ("tape", "copy"))
    assert one == two


@pytest.mark.parametrize("timeframe", ["5m", "4h", "1mo"])
def test_candles_of_a_shorter_timeframe_are_not_imported_as_longer_ones(filled, tmp_path, timeframe):
    """A file of 1m candles has some that open where longer ones do: it is refused whole, and no series is made of it."""
    candles_of(500).write_parquet(tmp_path / "minutes.parquet")
    before = filled("coverage", "--json").json
    answer = filled("import", "tape", "BTCUSD", timeframe, tmp_path / "minutes.parquet")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"received '{timeframe}'" in answer.err
    assert "0:01:00 apart" in answer.err
    assert filled("coverage", "--json").json == before


def test_import_quarantines_what_is_no_candle(filled, tmp_path):
    """Rows that cannot be candles are counted by reason, not stored, and can be asked for as they came; the good ones are stored."""
    frame = pl.concat([candles_of(2), candles_of(3).tail(1).with_columns(high=pl.lit(1.0))])
    frame.with_columns(ts=pl.col("ts") + timedelta(days=1)).write_parquet(tmp_path / "bad.parquet")
    answer = filled("import", *SERIES, tmp_path / "bad.parquet", "--json")
    assert answer.json["stored"] == 2
    assert sum(answer.json["rejected"].values()) == 1
    assert "high" in "".join(answer.json["rejected"])
    (row,) = filled("query", "FROM quarantine", "--json").json
    assert (row["connection"], row["symbol"], row["ts"], row["reason"]) == ("tape", "BTCUSD", "2024-01-02T00:02:00Z", "high below low")
    assert json.loads(row["row"])["high"] == 1.0


def test_a_backup_is_restored_whole(filled, home, tmp_path, monkeypatch):
    """A backup brings candles, connections and ledger back into an empty home, and into no other; DuckDB alone reads it at once."""
    target = tmp_path / "home.tar"
    filled("flush")
    before = [filled(*words, "--json").json for words in (("candles", *SERIES), ("coverage",), ("gaps",))]
    assert filled("backup", target).code == 0
    assert filled("restore", target).code == 2  # this home has data
    assert filled("backup", target).code == 2  # it exists already
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "second"))
    assert filled("restore", target, "--json").json["files"] >= 1
    with duckdb.connect(str(tmp_path / "second" / "lake" / "candlelake.duckdb"), read_only=True) as session:
        assert session.execute("SELECT count(*) FROM candles('tape', 'BTCUSD', '1m')").fetchone() == (1430,)
    assert [filled(*words, "--json").json for words in (("candles", *SERIES), ("coverage",), ("gaps",))] == before
    assert filled("verify").code == 0
    assert not list((tmp_path / "second").glob(".restore*"))
    assert not list(home.glob(".backup*"))


def test_a_damaged_backup_restores_nothing(filled, tmp_path, monkeypatch):
    """A backup with a flipped byte, a wrecked database, a cut one and a file that is none are refused; the new home stays without data."""
    target = tmp_path / "home.tar"
    filled("flush")
    filled("backup", target)
    raw = target.read_bytes()
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "second"))
    place, database = raw.rindex(b"PAR1") - 5000, raw.index(b"SQLite format 3")
    for name, content in {"flipped": raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1:], "cut": raw[: len(raw) // 2],
                          "database": raw[:database + 100] + bytes(4000) + raw[database + 4100:], "other": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        answer = filled("restore", tmp_path / name)
        assert answer.code in {1, 2}, name
        assert answer.err.count("\n") == 1
        assert "--debug" not in answer.err
        assert not (tmp_path / "second" / "metadata.db").exists()


def test_lost_metadata_comes_back_from_the_files(filled, home):
    """When the metadata store is lost, audit --rebuild makes series and manifest again; no flushed candle is lost."""
    filled("flush")
    for path in home.glob("metadata.db*"):
        path.unlink()
    answer = filled("audit", "--rebuild", "--json")
    assert answer.json[0]["stored"] == 1430
    assert len(filled("candles", *SERIES, "--json").json) == 1430


def test_connections_from_add_to_delete(tape):
    """list, show, update, deactivate, activate, logs and delete do what they say."""
    assert [row["slug"] for row in tape("connections", "list", "--json").json] == ["tape"]
    assert tape("connections", "update", "tape", "--name", "My tape").code == 0
    assert tape("connections", "show", "tape", "--json").json["name"] == "My tape"
    assert tape("connections", "deactivate", "tape").code == 0
    assert tape("connections", "show", "tape", "--json").json["status"] == "inactive"
    assert tape("fetch", "tape").code in {1, 2}
    assert tape("connections", "activate", "tape").code == 0
    actions = [row["action"] for row in tape("connections", "logs", "tape", "--json").json]
    assert {"create", "update", "activate", "deactivate"} <= set(actions)
    assert "tape" in tape("connections", "list").out
    assert "My tape" in tape("connections", "show", "tape").out
    assert "update" in tape("connections", "logs", "tape").out
    assert tape("connections", "delete", "tape").code == 2
    assert tape("connections", "delete", "tape", "--yes").code == 0
    assert tape("connections", "list", "--json").json == []


def test_a_connection_test_names_its_steps(tape):
    """`connections test` gives type, message and steps, each with name, ok, ms and message."""
    answer = tape("connections", "test", "tape", "--json")
    assert answer.code == 0, answer.out
    assert answer.json["type"] == "success"
    assert all(set(step) == {"name", "ok", "ms", "message"} for step in answer.json["steps"])
    assert tape("connections", "test", "tape").code == 0


def test_own_settings_are_changed_one_by_one(tape):
    """--settings merges into what is there, null takes an option away, and what is no option is refused by name."""
    assert tape("connections", "update", "tape", "--settings", '{"stream": true, "retention_days": 9}').code == 0
    answer = tape("connections", "update", "tape", "--settings", '{"retention_days": null, "tick_retention_days": 3}', "--json")
    assert answer.json["settings"] == {"stream": True, "tick_retention_days": 3}
    refused = tape("connections", "update", "tape", "--settings", '{"streams": true}')
    assert refused.code == 2
    assert "streams" in refused.err


def test_health_says_what_is_stale(filled):
    """A series whose last candle is old makes its connection stale, with a reason and exit code 1."""
    answer = filled("health", "--json")
    assert answer.code == 1
    assert answer.json[0]["connection"] == "tape"
    assert answer.json[0]["status"] == "stale"


def test_a_secret_is_nowhere(candlelake, home, tmp_path):
    """A credential is in no output, no file and no table of the home but as ciphertext."""
    secret = "s3cr3t-" + "x" * 20
    (tmp_path / "c.json").write_text(json.dumps({"user": "1001", "password": secret, "server": "Nowhere-Demo"}))
    add = candlelake("connections", "add", "broker", "--provider", "mtapi:mt5", "--symbol", "EURUSD", "--timeframe", "1m",
                     "--credentials", tmp_path / "c.json", "--debug")
    assert add.code == 0, add.err
    shown = [candlelake(*words, "--debug") for words in (
        ("connections", "show", "broker", "--json"), ("connections", "list", "--json"), ("connections", "logs", "broker", "--json"),
        ("keys", "rotate", "--json"), ("config",), ("query", "FROM connections", "--json"))]
    assert [answer.code for answer in shown] == [0] * len(shown)
    for answer in (add, *shown):
        assert secret not in answer.out + answer.err
    for path in home.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    with sqlite3.connect(home / "metadata.db") as database:
        assert database.execute("SELECT count(*) FROM credentials").fetchone()[0] >= 2


def test_credentials_come_from_stdin(program, home):
    """`--credentials -` reads the JSON object from stdin."""
    answer = program("connections", "add", "broker", "--provider", "mtapi:mt5", "--credentials", "-", "--json",
                     stdin='{"user": 1001, "password": "pw-pw-pw", "server": "Nowhere-Demo"}')
    assert answer.code == 0, answer.err
    assert answer.json["slug"] == "broker"
    assert "pw-pw-pw" not in answer.out + answer.err

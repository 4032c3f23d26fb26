"""Bad input: one line that says what was received, what is allowed and what to do; the right code; nothing changed."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

PASSWORD = "pass-w0rd-never-shown"


@pytest.fixture
def files(tmp_path):
    """Files that are no credentials, and ones that are no candles."""
    content = {
        "empty.json": "", "text.json": f"user=x password={PASSWORD}", "list.json": f'["{PASSWORD}"]',
        "nested.json": json.dumps({"user": {"password": PASSWORD}}), "cut.json": f'{{"password": "{PASSWORD}',
        "unknown.json": json.dumps({"user": "1", "password": PASSWORD, "server": "s", "pasword2": PASSWORD}),
        "lacking.json": json.dumps({"password": PASSWORD}), "candles.csv": "a,b\n1,2\n", "broken.parquet": "no parquet",
    }
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "huge.json").write_text('{"a": "' + "x" * 100_000 + '"}')
    return tmp_path


@pytest.fixture(scope="module")
def tapes(tmp_path_factory):
    """The folder of the connection, and beside it the home to copy from."""
    folder = tmp_path_factory.mktemp("ready") / "tapes"
    folder.mkdir()
    return folder


@pytest.fixture
def ready(candlelake, home, tapes, tmp_path):
    """A home with one connection and one series: made once, copied for each test."""
    (tmp_path / "tapes").mkdir()
    made = tapes.parent / "home"
    if made.exists():
        shutil.copytree(made, home)
        return candlelake
    config = json.dumps({"folder": str(tapes), "market_type": "crypto"})
    assert candlelake("connections", "add", "tape", "--provider", "replay", "--symbol", "BTCUSD", "--timeframe", "1m",
                      "--config", config).code == 0
    shutil.copytree(home, made)
    return candlelake


def state(home):
    """All that a bad command must leave alone: every row of the metadata store, every file of the lake."""
    with closing(sqlite3.connect(home / "metadata.db")) as database:
        return list(database.iterdump()), sorted(str(path) for path in (home / "lake").rglob("*"))


def test_an_argument_that_is_no_text_is_one_line(ready, home):
    """Bytes that are no UTF-8, in a reason, a name or a path, are told with where they stand; nothing is done."""
    before = state(home)
    for words in (("orders", "halt", "why \udcff"), ("connections", "update", "tape", "--name", "\udcff"), ("import", "tape", "BTCUSD", "1m", "\udcff.csv")):
        answer = ready(*words)
        assert (answer.code, answer.err.count("\n")) == (2, 1), words
        assert "UTF-8" in answer.err
        assert "unexpected" not in answer.err
    assert state(home) == before


ADD = ("connections", "add", "new")
MT5 = (*ADD, "--provider", "mtapi:mt5", "--credentials")
CASES = [
    # what, the command line, exit code, what the line must name
    ("export folder", ("export", "tape", "BTCUSD", "1m", "/no/such/folder/x.csv"), 2, "folder that exists"),
    ("candles folder", ("candles", "tape", "BTCUSD", "1m", "--format", "csv", "-o", "/no/such/folder/x.csv"), 2, "folder that exists"),
    ("backup folder", ("backup", "/no/such/folder/x.tar"), 2, "folder that exists"),
    ("no command", ("connections",), 2, "activate"),
    ("provider", (*ADD, "--provider", "nonsense"), 2, "nonsense"),
    ("exchange", (*ADD, "--provider", "ccxt:nonsense"), 2, "nonsense"),
    ("mt6", (*ADD, "--provider", "mtapi:mt6"), 2, "mtapi:mt5"),
    ("slug", ("connections", "add", "Bad Slug", "--provider", "replay"), 2, "Bad Slug"),
    ("long slug", ("connections", "add", "x" * 64, "--provider", "replay"), 2, "at most 63"),
    ("taken", ("connections", "add", "tape", "--provider", "replay", "--config", '{"folder": "."}'), 2, "taken"),
    ("symbol", (*ADD, "--provider", "ccxt:kraken", "--symbol", ""), 2, "symbol"),
    ("control symbol", (*ADD, "--provider", "ccxt:kraken", "--symbol", "A\x1b[2JB"), 2, "symbol"),
    ("timeframe", (*ADD, "--provider", "ccxt:kraken", "--symbol", "BTC/USD", "--timeframe", "7m"), 2, "1m"),
    ("base url", (*ADD, "--provider", "ccxt:kraken", "--base-url", "ftp://example.com"), 1, "http"),
    ("private", (*ADD, "--provider", "ccxt:kraken", "--base-url", "http://127.0.0.1:9"), 1, "CANDLELAKE_ALLOW_PRIVATE_HOSTS"),
    ("config", (*ADD, "--provider", "ccxt:kraken", "--config", "{"), 2, "JSON object"),
    ("no credentials", (*ADD, "--provider", "mtapi:mt5"), 2, "password"),
    ("credentials away", (*MT5, "nowhere.json"), 2, "nowhere.json"),
    ("credentials a folder", (*MT5, "tapes"), 2, "tapes"),
    *((f"credentials {name}", (*MT5, f"{name}.json"), 2, "credentials")
      for name in ("empty", "text", "list", "nested", "cut", "binary", "huge")),
    ("credentials unknown", (*MT5, "unknown.json"), 2, "pasword2"),
    ("credentials lacking", (*MT5, "lacking.json"), 2, "user"),
    ("fetch unknown", ("fetch", "nobody"), 1, "nobody"),
    ("fetch symbol", ("fetch", "tape", "--symbol", "XYZ"), 1, "XYZ"),
    ("fetch timeframe", ("fetch", "tape", "--timeframe", "1x"), 2, "1x"),
    ("backfill unknown", ("backfill", "nobody", "BTCUSD", "1m", "2024-01-01", "2024-01-02"), 1, "nobody"),
    ("backfill timeframe", ("backfill", "tape", "BTCUSD", "1minute", "2024-01-01", "2024-01-02"), 2, "1minute"),
    ("backfill reversed", ("backfill", "tape", "BTCUSD", "1m", "2024-01-02", "2024-01-01"), 2, "2024-01-02"),
    ("backfill empty", ("backfill", "tape", "BTCUSD", "1m", "2024-01-01", "2024-01-01"), 2, "exclusive"),
    ("backfill text", ("backfill", "tape", "BTCUSD", "1m", "yesterday", "today"), 2, "yesterday"),
    ("backfill 1799", ("backfill", "tape", "BTCUSD", "1m", "1799-01-01", "2024-01-01"), 2, "1799"),
    ("backfill 9999", ("backfill", "tape", "BTCUSD", "1m", "2024-01-01", "9999-12-31"), 2, "9999"),
    ("backfill 31 feb", ("backfill", "tape", "BTCUSD", "1m", "2024-02-31", "2024-03-31"), 2, "2024-02-31"),
    ("candles unknown", ("candles", "nobody", "BTCUSD", "1m"), 1, "nobody"),
    ("candles symbol", ("candles", "tape", "XYZ", "1m"), 1, "XYZ"),
    ("candles reversed", ("candles", "tape", "BTCUSD", "1m", "--start", "2024-02-01", "--end", "2024-01-01"), 2, "range"),
    ("candles format", ("candles", "tape", "BTCUSD", "1m", "--format", "xls"), 2, "table, csv, json, parquet"),
    ("candles fill", ("candles", "tape", "BTCUSD", "1m", "--fill", "linear"), 2, "previous"),
    ("candles columns", ("candles", "tape", "BTCUSD", "1m", "--columns", "ts,price"), 2, "known_at"),
    ("candles as-of", ("candles", "tape", "BTCUSD", "1m", "--as-of", "then"), 2, "--as-of"),
    ("coverage unknown", ("coverage", "nobody"), 1, "nobody"),
    ("gaps timeframe", ("gaps", "tape", "BTCUSD", "9q"), 2, "9q"),
    ("revisions unknown", ("revisions", "nobody"), 1, "nobody"),
    ("revisions since", ("revisions", "tape", "--since", "then"), 2, "--since"),
    ("gaps unknown", ("gaps", "nobody"), 1, "nobody"),
    ("gaps retired unknown", ("gaps", "nobody", "--retired"), 1, "nobody"),
    ("tick-gaps unknown", ("tick-gaps", "nobody"), 2, "nobody"),
    ("report unknown", ("report", "nobody"), 1, "nobody"),
    ("report end", ("report", "--end", "then"), 2, "--end"),
    ("report reversed", ("report", "--start", "2024-02-01", "--end", "2024-01-01"), 2, "range"),
    ("repair unknown", ("repair", "nobody"), 1, "nobody"),
    ("audit unknown", ("audit", "nobody"), 1, "nobody"),
    ("query broken", ("query", "SELECT FROM WHERE"), 2, "query"),
    ("query writes", ("query", "CREATE TABLE x (a INT)"), 2, "query"),
    ("query reads a file", ("query", "SELECT * FROM read_text('/etc/hostname')"), 2, "query"),
    ("cleanup without days", ("cleanup",), 2, "CANDLELAKE_RETENTION_DAYS"),
    ("cleanup zero", ("cleanup", "--retention-days", "0", "--apply"), 2, "1 to 36500"),
    ("delete without yes", ("connections", "delete", "tape"), 2, "--yes"),
    ("delete unknown", ("connections", "delete", "nobody", "--yes"), 1, "nobody"),
    ("update nothing", ("connections", "update", "tape"), 2, "at least one option"),
    ("update unknown", ("connections", "update", "nobody", "--name", "x"), 1, "nobody"),
    ("test unknown", ("connections", "test", "nobody"), 1, "nobody"),
    ("activate unknown", ("connections", "activate", "nobody"), 1, "nobody"),
    ("sandbox mode", ("sandbox", "serve", "--mode", "live"), 2, "history, replay"),
    ("sandbox data", ("sandbox", "serve", "--data", "nowhere"), 2, "nowhere"),
    ("export format", ("export", "tape", "BTCUSD", "1m", "out.xls"), 2, "parquet, csv, json"),
    ("export unknown", ("export", "nobody", "BTCUSD", "1m", "out.csv"), 1, "nobody"),
    ("import away", ("import", "tape", "BTCUSD", "1m", "nowhere.csv"), 2, "nowhere.csv"),
    ("import columns", ("import", "tape", "BTCUSD", "1m", "candles.csv"), 2, "columns"),
    ("import broken", ("import", "tape", "BTCUSD", "1m", "broken.parquet"), 2, "broken.parquet"),
    ("restore away", ("restore", "nowhere.tar"), 2, "nowhere.tar"),
    ("restore other", ("restore", "candles.csv"), 2, "home"),
]


@pytest.mark.parametrize(("words", "code", "names"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input_is_one_line_and_changes_nothing(words, code, names, ready, files, home):  # noqa: PLR0917  three are fixtures
    """One line on stderr, nothing on stdout, the right exit code, no secret, no traceback, and the home as it was."""
    before = state(home)
    answer = ready(*words)
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert answer.err.count("\n") == 1, answer.err
    assert answer.err.startswith("error: ")
    assert names in answer.err
    assert "Traceback" not in answer.err
    assert PASSWORD not in answer.err
    assert "\x1b" not in answer.err
    assert state(home) == before


def test_a_home_that_is_a_file_is_told(candlelake, home):
    """A home that cannot be a folder: one line that names it and the setting."""
    home.write_text("")
    for words in (("coverage",), ("fetch", "x"), ("up", "--once")):
        answer = candlelake(*words)
        assert answer.code == 1
        assert answer.err.count("\n") == 1, answer.err
        assert str(home) in answer.err


def test_a_metadata_store_that_is_no_database_is_told(candlelake, home):
    """A file that is no database: one line, exit code 1, and the file is left as it is."""
    home.mkdir()
    (home / "metadata.db").write_bytes(b"no database at all " * 100)
    answer = candlelake("coverage")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert (home / "metadata.db").read_bytes() == b"no database at all " * 100


def test_a_read_only_home_is_told(home, tmp_path):
    """On a read-only file system: one line that says so, exit code 1."""
    # Root may write into any folder, so the file system itself is mounted read-only, in a mount namespace of its own.
    home.mkdir()
    script = (f"mount --bind '{home}' '{home}' && mount -o remount,bind,ro '{home}' && "
              f"exec '{sys.executable}' -m cli.main coverage")
    probe = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no mount namespaces here: nothing can be made read-only for root")
    answer = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path)
    if "mount:" in answer.stderr:
        pytest.skip("mounting is not permitted here")
    assert answer.returncode == 1
    assert answer.stderr.count("\n") == 1, answer.stderr
    assert "cannot be written" in answer.stderr
    assert not list(home.iterdir())

"""The lake on S3-compatible storage: a server of the protocol in this process, and the real client."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pydantic import SecretStr

from core.clock import MINUTE_US, ManualClock, SystemClock, to_datetime
from core.errors import InputError, NetworkError, NotFoundError, NotPermittedError, StoreCorruptError, UnsupportedError
from core.settings import Settings, settings
from core.ticks import STORED_TICK_SCHEMA
from storage import Batch, Lake, open_lake
from storage.lake import layout
from storage.lake.copy_limit import CopyLimit, trim
from storage.lake.local import present
from storage.lake.objects import open_objects
from storage.series import ensure_series
from tests.storage.conftest import START_US, add_connection, candles

ROOT = Path(__file__).parents[2]
BUCKET = "lake"
Opener = Callable[..., Lake]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an S3 server with one bucket."""
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    url = f"http://{host}:{port}"
    with urllib.request.urlopen(urllib.request.Request(f"{url}/{BUCKET}", method="PUT")):
        pass
    yield url
    made.stop()


@pytest.fixture
def address(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an empty lake, with the settings to reach it in the environment."""
    for name, value in {"ENDPOINT": server, "REGION": "us-east-1", "ACCESS_KEY": "one", "SECRET_KEY": "two"}.items():
        monkeypatch.setenv(f"CANDLELAKE_OBJECT_STORE_{name}", value)
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    monkeypatch.setenv("CANDLELAKE_LAKE", url)
    settings.cache_clear()
    yield url
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def machine(address: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opener]:
    """Open the lake as the machine of that name: a home of its own, metadata and bucket shared."""
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", f"sqlite:///{tmp_path / 'shared.db'}")
    settings.cache_clear()
    opened: list[Lake] = []

    def open_one(name: str = "a") -> Lake:
        is_first = not (tmp_path / "shared.db").exists()
        lake = open_lake(tmp_path / name, clock)
        opened.append(lake)
        if is_first:
            add_connection(lake, "kraken")
        return lake

    yield open_one
    for lake in opened:
        lake.close()


def series_of(lake: Lake, symbol: str = "BTC/USDT") -> int:
    """Return the id of a 1m series of `kraken`."""
    with lake.metadata.write() as tx:
        return ensure_series(tx, 1, symbol, "1m", 0).id


def fill(lake: Lake, first: int, count: int, price: float = 100.0, symbol: str = "BTC/USDT") -> None:
    """Write `count` candles from slot `first` on and flush them."""
    lake.write([Batch(series_of(lake, symbol), candles(START_US + first * MINUTE_US, count, price), "rest")], run_id="r")
    lake.flush()


def read(lake: Lake, symbol: str = "BTC/USDT") -> pl.DataFrame:
    """Return all candles of a series."""
    return lake.candles("kraken", symbol, "1m")


def live(lake: Lake) -> list[str]:
    """Return the paths of the live files."""
    return lake.sql("SELECT path FROM files ORDER BY path")["path"].to_list()


def keys(lake: Lake) -> list[str]:
    """Return the keys of the candles' objects."""
    assert lake.place.objects is not None
    return sorted(row.path for row in lake.place.objects.list("candles"))


def overwrite(lake: Lake, path: str, content: bytes | None) -> None:
    """Do behind the lake's back what nobody should: replace or delete an object."""
    assert lake.place.objects is not None
    lake.place.objects.delete([path])
    if content is not None:
        lake.place.objects.put(path, content)


STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 60), st.integers(1, 60), st.sampled_from([1.0, 2.0])),
    st.tuples(st.just("import"), st.integers(0, 60), st.integers(1, 60), st.just(3.0)),
    st.tuples(st.just("flush"), st.just(0), st.just(0), st.just(0.0)),
    st.tuples(st.just("retain"), st.integers(0, 60), st.just(0), st.just(0.0)),
)


def test_what_is_read_over_s3_equals_a_folder(machine, tmp_path, clock, monkeypatch):
    """Any order of writes, imports, flushes and retention reads the same from S3, by both of two machines, as from a folder."""
    first, second = machine("a"), machine("b")
    monkeypatch.delenv("CANDLELAKE_LAKE")
    monkeypatch.delenv("CANDLELAKE_METADATA_URL")
    settings.cache_clear()
    with open_lake(tmp_path / "plain", clock) as plain:
        add_connection(plain, "kraken")

        @examples(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(STEP, min_size=2, max_size=5))
        def follows(steps: list[tuple[str, int, int, float]]) -> None:
            symbol = uuid.uuid4().hex
            for number, (what, slot, count, price) in enumerate(steps):
                clock.advance(timedelta(seconds=1))
                for lake in ((first, second)[number % 2], plain):
                    number_of = series_of(lake, symbol)
                    frame = candles(START_US + slot * MINUTE_US, count, price)
                    if what == "write":
                        lake.write([Batch(number_of, frame, "rest")], run_id="r")
                    elif what == "import":
                        lake.import_candles(number_of, frame, run_id="i")
                    elif what == "flush":
                        lake.flush([number_of])
                    else:
                        lake.apply_retention(lake.plan_retention(START_US + slot * MINUTE_US))
                assert read(first, symbol).equals(read(plain, symbol))
                assert read(second, symbol).equals(read(plain, symbol))

        follows()
        assert first.verify().problems == []


def test_a_second_machine_reads_and_writes_the_same_lake(machine):
    """A machine with an empty home reads by every way what the other flushed, flushes in turn, and the first reads that."""
    first, second = machine("a"), machine("b")
    fill(first, 0, 60)
    whole = read(first)
    assert whole.height == 60
    assert not list((second.root / "candles").rglob("*.parquet"))
    assert read(second).equals(whole)
    assert second.latest("kraken", "BTC/USDT", "1m", 5).equals(whole.tail(5))
    assert second.sql("SELECT count(*) AS n FROM candles('kraken', 'BTC/USDT', '1m')").item() == 60
    assert second.sql("SELECT count(*) AS n FROM all_candles WHERE symbol = 'BTC/USDT'").item() == 60
    assert second.candles("kraken", "BTC/USDT", "1h", derive_from="1m")["volume"].sum() == whole["volume"].sum()
    fill(second, 50, 20, price=150.0)
    assert read(first).height == 70
    assert read(first).equals(read(second))
    assert {path for path in live(first) if path.startswith("candles")} < set(keys(first))
    assert first.verify().problems == second.verify().problems == []


def test_many_readers_of_one_object_at_once(machine):
    """Readers that all lack a file fetch it side by side; each reads all of it, and one copy is left."""
    first, second = machine("a"), machine("b")
    fill(first, 40, 100)
    out: list[int] = []
    threads = [threading.Thread(target=lambda: out.append(read(second).height)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert out == [100] * 8
    assert sorted(path.name for path in (second.root / ".cache").rglob("*") if path.is_file()) == sorted(Path(path).name for path in live(first))


def test_a_missing_or_altered_object_is_named(machine):
    """Who lacks a copy is told which object is missing or altered, and reads nothing wrong; verify says the same anywhere."""
    first, second = machine("a"), machine("b")
    fill(first, 40, 10)
    (path,) = live(first)
    content = first.place.objects.get(path)
    overwrite(first, path, content[:-20] + bytes(20))
    with pytest.raises(StoreCorruptError, match=path):
        read(second)
    assert [(problem.path, "bytes" in problem.what) for problem in first.verify().problems] == [(path, True)]
    overwrite(first, path, None)
    with pytest.raises(StoreCorruptError, match=rf"{path} is missing"):
        read(second)
    assert [(problem.path, "missing" in problem.what) for problem in second.verify().problems] == [(path, True)]
    assert read(first).height == 10
    overwrite(first, path, content)
    assert read(second).height == 10
    (copy,) = (second.root / ".cache").rglob("*.parquet")
    copy.write_bytes(content[:-20] + bytes(20))
    assert ["copy" in problem.what for problem in second.verify().problems] == [True]


def test_sweep_takes_superseded_objects_and_strays_after_their_grace(machine, clock):
    """Superseded objects go after the grace, strays after a day, copies with them; what is live or young or pinned stays."""
    first, second = machine("a"), machine("b")
    fill(first, 40, 10)
    assert read(second).height == 10
    (old,) = live(first)
    first.create_snapshot("kept")
    fill(first, 50, 10)
    (middle,) = live(first)
    fill(first, 60, 10)
    (new,) = live(first)
    stray = f"{new.rsplit('/', 1)[0]}/{uuid.uuid4().hex}.parquet"
    first.place.objects.put(stray, b"left by a killed writer")
    first.place.objects.put("candles/other", b"not ours")
    first.sweep()
    assert set(keys(first)) == {old, middle, new, stray, "candles/other"}
    clock.advance(timedelta(microseconds=SystemClock().now_us() - clock.now_us()) + timedelta(hours=25))
    assert {problem.path for problem in second.verify().problems} == {stray, "candles/other"}
    first.sweep()
    assert set(keys(first)) == {old, new, "candles/other"}
    assert read(second).height == 30
    assert first.sql("SELECT count(*) AS n FROM files").item() == 1


def test_copies_stay_below_their_limit(machine):
    """Above the limit those go that were not read for longest, never what was read within the hour; what is gone is fetched again."""
    first, second = machine("a"), machine("b")
    symbols = [f"C{number}/USDT" for number in range(4)]
    for number, symbol in enumerate(symbols):
        fill(first, 0, 10 + number, symbol=symbol)
    whole = [read(second, symbol) for symbol in symbols]
    root = second.place.root

    def kept() -> dict[str, Path]:
        return {path.parts[-4]: path for path in (root / layout.CACHE).rglob("*.parquet")}

    files = [kept()[f"symbol={symbol.replace('/', '%2F')}"] for symbol in symbols]
    limit = sum(file.stat().st_size for file in files[2:])
    assert trim(root, 1, SystemClock().now_us() / 1e6) == 0  # all of them were just read
    for hours, file in zip((9, 8, 7, 6), files, strict=True):
        at = SystemClock().now_us() / 1e6 - hours * 3600
        os.utime(file, (at, at))
    assert read(second, symbols[0]).equals(whole[0])  # read again: the first is the newest now
    assert trim(root, limit, SystemClock().now_us() / 1e6) >= 1
    assert files[0].exists()
    assert not files[1].exists()
    assert sum(file.stat().st_size for file in kept().values()) <= limit
    assert [read(second, symbol) for symbol in symbols][1].equals(whole[1])
    assert files[1].exists()


def test_copies_are_counted_as_they_come(machine):
    """Every so many bytes the copies are looked at by themselves, not only when somebody cleans up."""
    first, second = machine("a"), machine("b")
    fill(first, 0, 50)
    read(second)
    old = list((second.place.root / layout.CACHE).rglob("*.parquet"))
    at = SystemClock().now_us() / 1e6 - 9 * 3600
    for file in old:
        os.utime(file, (at, at))
    fill(first, 0, 50, symbol="ETH/USDT")
    new = next(path for path in live(first) if "ETH" in path)
    assert present(replace(second.place, copies=CopyLimit(1)), new).exists()
    assert old
    assert not any(file.exists() for file in old)


def test_a_new_machine_with_lost_metadata_gets_all_back(machine, tmp_path, monkeypatch):
    """Rebuild makes manifest, series and revisions again from the bucket alone, and what retention removed stays away."""
    first = machine("a")
    fill(first, 0, 60)
    fill(first, 10, 5, price=500.0)  # revisions
    fill(first, 60, 60)
    first.apply_retention(first.plan_retention(START_US + 15 * MINUTE_US))
    whole, changes = read(first), first.sql("SELECT count(*) AS n FROM revisions").item()
    assert (whole.height, changes) == (105, 5)
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", f"sqlite:///{tmp_path / 'new.db'}")
    settings.cache_clear()
    with open_lake(tmp_path / "new", first.clock) as again:
        report = again.rebuild()
        assert (report.connections, report.series, report.revisions, report.skipped) == (1, 1, 5, [])
        assert read(again).equals(whole)
        assert again.verify().problems == []
        assert again.rebuild().files == 0


def test_ticks_lie_there_too(machine):
    """Ticks that one machine stored are read by another, and joining a day's files keeps them."""
    first, second = machine("a"), machine("b")
    for part in range(2):
        row = dict.fromkeys(STORED_TICK_SCHEMA) | {
            "kind": "quote", "bid": 1.0 + part, "ask": 2.0 + part, "source": "rest", "run_id": "r",
            "ts": to_datetime(START_US + part), "received_at": to_datetime(START_US + part)}
        first.tick_store.write("kraken", "BTC/USDT", pl.DataFrame([row], schema=STORED_TICK_SCHEMA))
    assert second.ticks("kraken", "BTC/USDT").equals(first.ticks("kraken", "BTC/USDT"))
    assert second.tick_store.compact(first.clock.now_us()) == 1
    assert first.ticks("kraken", "BTC/USDT")["bid"].to_list() == [1.0, 2.0]
    assert first.sql("SELECT count(*) AS n FROM ticks('kraken', 'BTC/USDT')").item() == 2
    assert first.verify().problems == []


def test_nothing_is_lost_while_the_object_store_is_away(machine):
    """A flush without an answer changes nothing: the candles stay in the head, are read, and the next flush stores them."""
    lake = machine()
    lake.write([Batch(series_of(lake), candles(START_US, 40), "rest")], run_id="r")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = settings().model_copy(update={"object_store_endpoint": f"http://127.0.0.1:{closed.getsockname()[1]}"})
        cut = Lake(replace(lake.place, objects=open_objects(away.lake_root, away)))
        with pytest.raises(NetworkError, match="try again"):
            cut.flush()
    assert live(lake) == keys(lake) == []
    assert read(lake).height == 40
    assert lake.flush().rows == 40
    assert read(lake).height == 40


class _Refusing(http.server.BaseHTTPRequestHandler):
    """Says that everything is denied."""

    def do_PUT(self) -> None:
        """Answer as S3 does to a key without the right."""
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_refusals_are_one_line_that_names_no_secret(server):
    """No such bucket, a denied key and addresses that are none each end as one line with what to do."""
    base = Settings(object_store_endpoint=server, object_store_region="us-east-1", object_store_access_key=SecretStr("one"),
                    object_store_secret_key=SecretStr("hush-hush"))
    with pytest.raises(NotFoundError, match=r"s3://nowhere/x.*no such bucket"):
        open_objects("s3://nowhere/x", base).put("candles/a", b"1")
    with pytest.raises(NotFoundError, match="no such bucket"):
        list(open_objects("s3://nowhere", base).list("candles"))
    refusing = http.server.HTTPServer(("127.0.0.1", 0), _Refusing)
    thread = threading.Thread(target=refusing.serve_forever)
    thread.start()
    try:
        denied = base.model_copy(update={"object_store_endpoint": f"http://127.0.0.1:{refusing.server_port}"})
        with pytest.raises(NotPermittedError, match="denies this") as caught:
            open_objects("s3://lake/p", denied).put("candles/a", b"1")
    finally:
        refusing.shutdown()
        thread.join()
        refusing.server_close()
    assert "\n" not in str(caught.value)
    for wrong in ("s3://", "gs://bucket/x", "s3://user:hush-hush@bucket/x"):
        with pytest.raises(InputError) as refused:
            open_objects(wrong, base)
        assert "hush-hush" not in str(refused.value)
    assert "hush-hush" not in repr(base)


def test_no_object_is_ever_overwritten(server):
    """The same bytes once more change nothing, other bytes at a key that exists are refused."""
    chosen = Settings(object_store_endpoint=server, object_store_region="us-east-1", object_store_access_key=SecretStr("one"),
                      object_store_secret_key=SecretStr("two"))
    store = open_objects(f"s3://{BUCKET}/{uuid.uuid4().hex}", chosen)
    store.put("candles/a", b"1")
    store.put("candles/a", b"1")
    with pytest.raises(StoreCorruptError, match="candles/a holds other bytes"):
        store.put("candles/a", b"2")
    assert store.get("candles/a") == b"1"


def test_open_lake_takes_the_address_and_the_environment_of_other_tools(server, tmp_path, clock, monkeypatch):
    """open_lake("s3://bucket/prefix") works with the AWS_ variables alone, and keeps its working copy in CANDLELAKE_HOME."""
    for name, value in {"AWS_ENDPOINT_URL": server, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two",
                        "CANDLELAKE_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    try:
        with open_lake(f"s3://{BUCKET}/{uuid.uuid4().hex}/", clock) as lake:
            add_connection(lake, "kraken")
            fill(lake, 40, 10)
            assert lake.root == tmp_path / "home" / "lake"
            assert keys(lake) == live(lake)
            lake.write_catalog()
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_the_extra_is_named_when_it_is_missing(monkeypatch):
    """Without the client one line says what to install."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(UnsupportedError, match=r"pip install 'candlelake\[s3\]'"):
        open_objects("s3://bucket/x", Settings())


def _worker(home: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-m", "tests.storage.object_worker", str(home), *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_machines_flush_one_series_at_once(address, tmp_path, postgres_url, monkeypatch):
    """Two processes with homes of their own write and flush the same series over PostgreSQL and S3: nothing is lost or doubled."""
    monkeypatch.setenv("CANDLELAKE_METADATA_URL", postgres_url)
    settings.cache_clear()
    with open_lake(tmp_path / "c") as lake:
        add_connection(lake, "kraken")
        series_of(lake)
        workers = [_worker(tmp_path / name, str(turn), "12") for turn, name in enumerate("ab")]
        for worker in workers:
            said, _ = worker.communicate(timeout=300)
            assert worker.returncode == 0
            assert said.splitlines()[-1] == "done"
        lake.flush()
        frame = read(lake)
        assert ((frame["ts"].dt.epoch("us") - START_US) // MINUTE_US).to_list() == list(range(2 * 12 * 50))
        assert lake.verify().problems == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kills_in_the_middle_of_a_flush_lose_nothing(address, tmp_path):
    """After each kill -9 every acknowledged candle is there once; the bucket holds at most strays besides, never a wrong object."""
    home = tmp_path / "home"
    with open_lake(home) as lake:
        add_connection(lake, "kraken")
        series_of(lake)
    acknowledged = 0
    for turn in range(6):
        worker = _worker(home, "0", "1000", str(acknowledged))
        assert worker.stdout is not None
        for _ in range(2 + turn):  # killed somewhere in the steps after some were acknowledged
            line = worker.stdout.readline()
            assert line.startswith("stored")
        worker.kill()
        rest, _ = worker.communicate()
        said = [item for item in [line, *rest.splitlines()] if item.startswith("stored") and item.endswith(tuple("0123456789\n"))]
        acknowledged = max(int(item.split()[1]) for item in said)
        with open_lake(home) as lake:
            slots = ((read(lake)["ts"].dt.epoch("us") - START_US) // MINUTE_US).to_list()
            assert slots == list(range(len(slots)))
            assert len(slots) >= acknowledged
            assert {path for path in live(lake) if path.startswith("candles")} <= set(keys(lake))
            assert lake.verify().problems == []

"""Replays on a Dask cluster: two worker processes on loopback say what one process says, byte for byte."""

import hashlib
import sys
from contextlib import ExitStack

import orjson
import pytest

from connections.service import ConnectionInput
from core.interval import Interval
from core.series import Series
from feed import open_feed
from feed.pipelines import create
from feed.replaying import replay_pipeline
from storage.head import Batch
from storage.pipelines import delete_pipeline
from storage.series import ensure_series
from tasks.artifacts import artifact_key
from tasks.pipeline import signal_rows
from tests.deployments.conftest import free_port, process, wait_for
from tests.pipeline.conftest import definition, market

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SYMBOLS = ("BTC/USD", "ETH/USD")
START, END = "2024-01-10", "2024-01-20"


@pytest.fixture
def workers(server, environment, tmp_path):
    """A Dask cluster of two worker processes of one thread each, and the embedded runner whose runs use it; the workers' logs."""
    address = f"tcp://127.0.0.1:{free_port()}"
    own = {**environment, "CANDLELAKE_DASK_ADDRESS": address}
    dask = [sys.executable, "-m", "dask"]
    logs = [tmp_path / "worker-0.log", tmp_path / "worker-1.log"]
    with ExitStack() as children:
        children.enter_context(process(
            [*dask, "scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard"],
            environment, tmp_path / "scheduler.log"))
        for log in logs:
            children.enter_context(process(
                [*dask, "worker", address, "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny", "--no-dashboard",
                 "--preload", "tasks.pipeline", "--local-directory", str(tmp_path / log.stem)],
                environment, log))
        children.enter_context(process([sys.executable, "-m", "deployments.embedded"], own, tmp_path / "runner.log"))
        wait_for(lambda: server.get("/deployments/name/replay_pipeline/replay_pipeline"), 120)
        wait_for(lambda: all("Registered to" in log.read_text() for log in logs), 120)
        yield logs


@pytest.fixture
def pipeline(home):
    """A pipeline over two series of a connection of its own, with 500 hourly candles each; returns its name and series."""
    keys = [Series.parse("clustered", symbol, "1h") for symbol in SYMBOLS]
    with open_feed(home) as feed:
        number = feed.connections.create(ConnectionInput(
            slug="clustered", provider="ccxt:kraken", symbols=SYMBOLS, timeframes=("1h",), is_active=False)).id
        for seed, symbol in enumerate(SYMBOLS):
            with feed.lake.metadata.write() as tx:
                row = ensure_series(tx, number, symbol, "1h")
            feed.lake.write([Batch(row.id, market(500, seed=seed), "rest")], run_id="fetch")
        series = [{"connection": "clustered", "symbol": symbol, "timeframe": "1h"} for symbol in SYMBOLS]
        create(feed, definition("clustered", series=series), "me")
    yield "clustered", keys
    with open_feed(home) as feed:
        with feed.lake.metadata.write() as tx:
            delete_pipeline(tx, "clustered")
        feed.connections.delete("clustered", purge=True)


@pytest.mark.usefixtures("only_ordered")
def test_a_cluster_says_what_one_process_says(pipeline, workers, finished, server, home):
    """The workers replay both series, and each one's signals are those of a replay in this process, byte for byte."""
    name, keys = pipeline
    run, state = finished("replay_pipeline", pipeline=name, start=START, end=END)
    assert state["type"] == "COMPLETED", state["message"]
    wait_for(lambda: sum(log.read_text().count("Finished in state Completed()") for log in workers) == len(keys))
    told = {item["key"]: item for item in server.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [run]}}})}
    with open_feed(home) as feed:
        here = {item.result.context.series: item.result for item in replay_pipeline(feed, name, Interval.parse(START, END))}
    assert set(here) == set(keys)
    for key, result in here.items():
        assert result.lines
        there = told[artifact_key("replay", name, str(key), "signals")]
        assert there["description"].endswith(hashlib.sha256(result.lines).hexdigest())
        assert orjson.loads(there["data"]) == signal_rows(result.records)

"""A new candle on its way at a real Prefect server: fetched, told, judged by the run that its event starts, ordered on paper."""

from itertools import pairwise

import orjson
import polars as pl
import pytest

from connections.service import ConnectionInput
from core.clock import DAY_US, MINUTE_US, SECOND_US, isoformat
from core.series import Series
from feed import open_feed
from feed.pipelines import create
from sandbox.server import running
from storage.orders import list_orders
from storage.pipelines import delete_pipeline, get_pipeline, list_executions, list_signals, set_enabled
from storage.series import ensure_series, find_series
from tests.deployments.conftest import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("only_ordered", "runner")]

SERIES = Series.parse("judged", "BTC/USD", "1m")
STAGES = ["cleaner", "filter", "indicator", "signal", "confidence"]


@pytest.fixture
def market(tmp_path):
    """A sandbox whose minutes close at 100 and 102 in turn for ever: each one crosses the mean of four; its present is now."""
    close = pl.Series([100.0, 102.0] * 720)
    pl.DataFrame({
        "ts": pl.Series(range(0, DAY_US, MINUTE_US)).cast(pl.Datetime("us", "UTC")), "open": close.reverse(),
        "high": pl.Series([103.0] * 1440), "low": pl.Series([99.0] * 1440), "close": close, "volume": pl.Series([9.0] * 1440),
    }).write_parquet(tmp_path / "coinbase_BTCUSD_1m.parquet")
    with running(tmp_path, mode="replay") as box:
        yield box


@pytest.fixture
def judged(home, market):
    """A connection to that market and an enabled pipeline that orders on each of its candles; its name."""
    with open_feed(home) as feed:
        number = feed.connections.create(ConnectionInput(
            slug="judged", provider="ccxt:coinbase", base_url=market.url, symbols=("BTC/USD",), timeframes=("1m",),
            settings={"settle_seconds": 2.0})).id
        with feed.lake.metadata.write() as tx:
            ensure_series(tx, number, "BTC/USD", "1m")
        create(feed, {
            "name": "judged", "lookback": 30, "chapter": 256,
            "series": [{"connection": "judged", "symbol": "BTC/USD", "timeframe": "1m"}],
            "cleaners": [{"plugin": "ohlc_sanity"}], "filters": [{"plugin": "volume", "parameters": {"min_ratio": 0.5}}],
            "indicators": [{"plugin": "talib", "name": "mean", "parameters": {"function": "SMA", "options": {"timeperiod": 4}}}],
            "signals": [{"plugin": "crossover", "parameters": {"fast": "close", "slow": "mean"}}],
            "confidence": [{"plugin": "weighted", "parameters": {
                "components": [{"column": "volume", "low": 0, "high": 10, "sell": "same"}]}}],
            "executors": [{"plugin": "execution", "parameters": {"quantity": 0.5}}],
        }, "me")
        with feed.lake.metadata.write() as tx:
            set_enabled(tx, "judged", enabled=True, now_us=feed.clock.now_us())
    yield "judged"
    with open_feed(home) as feed:
        with feed.lake.metadata.write() as tx:
            delete_pipeline(tx, "judged")
        feed.connections.delete("judged", purge=True)


def read(home):
    """Return the stage rows, the signals and the orders of the pipeline, and the open time of the newest stored candle."""
    with open_feed(home) as feed, feed.lake.metadata.read() as tx:
        rows = list_executions(tx, get_pipeline(tx, "judged").id, 1000)
        return rows, list_signals(tx, "judged"), list_orders(tx, pipeline="judged"), find_series(tx, SERIES).last_us


def runs_of(server, name):
    """Return the flow runs of a deployment by id."""
    body = {"deployments": {"id": {"any_": [str(server.deployment_id(name))]}}}
    return {run["id"]: run for run in server.post("/flow_runs/filter", body)}


def events_of(server, name, run):
    """Return the payloads of the events of that name that a flow run sent, its own resource among the related ones."""
    body = {"filter": {"event": {"name": [name]}, "related": {"id": [f"prefect.flow-run.{run}"]}}, "limit": 50}
    return [event["payload"] for event in server.post("/events/filter", body)["events"]]


def judging_run(server, home, known, ts_us):
    """Wait for the completed run of process_pipeline that nobody ordered and that judged the candle; return it."""
    def look():
        by_run = {row["run_id"] for row in read(home)[0] if row["ts_us"] == ts_us}
        return next((run for key, run in runs_of(server, "process_pipeline").items()
                     if key not in known and f"process-{key}" in by_run and run["state_type"] == "COMPLETED"), None)

    return wait_for(look, 240)


def fetched(server, home, finished, known):
    """Fetch what is due, and return the fetch's run, the newest candle's open time and the run that judged it."""
    run, state = finished("fetch", connection="judged")
    assert state["type"] == "COMPLETED", state["message"]
    newest = read(home)[3]
    return run, newest, judging_run(server, home, known, newest)


def test_a_new_candle_becomes_a_paper_order_step_by_step(judged, home, finished, server):
    """Each step is an event, a row and a flow run; the run that judges is started by the fetch's event and by nobody else."""
    known = set(runs_of(server, "process_pipeline"))
    _, before, first = fetched(server, home, finished, known)
    (order,) = read(home)[2]
    assert (order["mode"], order["status"], order["ts_us"], order["quantity"]) == ("paper", "new", before, 0.5)

    def is_due():
        with open_feed(home) as feed, feed.lake.metadata.read() as tx:
            return find_series(tx, SERIES).next_due_us <= feed.clock.now_us() + 10 * SECOND_US  # a fetch waits for those

    wait_for(is_due, 180)  # the next minute has closed
    fetch, newest, second = fetched(server, home, finished, {*known, first["id"]})
    assert newest > before
    at = isoformat(newest)

    # the fetch's run tells of the candle
    told = wait_for(lambda: events_of(server, "candlelake.data-received", fetch))
    assert [(item["connection"], item["stored"] > 0) for item in told] == [("judged", True)]
    assert [item["series"] for item in events_of(server, "candlelake.pipelines-due", fetch)] == [["judged BTC/USD 1m"]]
    assert second["created_by"]["type"] == "AUTOMATION"

    # the judging run: a row and an event of each stage, one input handed on
    rows, signals, orders, _ = read(home)
    mine = sorted((row for row in rows if row["ts_us"] == newest and row["stage"] != "executor"), key=lambda row: row["id"])
    assert [(row["stage"], row["status"], row["run_id"]) for row in mine] == [(name, "ok", f"process-{second['id']}") for name in STAGES]
    assert all(early["output_digest"] == late["input_digest"] for early, late in pairwise(mine))

    def of_candle(name):
        return [item for item in events_of(server, name, second["id"]) if item["ts"] == at]

    asked = [*STAGES, "executor"]
    stages = wait_for(lambda: found if len(found := of_candle("candlelake.pipeline-stage-completed")) == len(asked) else None)
    assert sorted((item["stage"], item["status"]) for item in stages) == sorted((name, "ok") for name in asked)
    assert [item["rows_out"] > 30 for item in of_candle("candlelake.data-cleaned")] == [True]
    assert [item["passed"] for item in of_candle("candlelake.data-filtered")] == [True]
    (said,) = of_candle("candlelake.signal-generated")
    (signal,) = [item for item in signals if item.ts_us == newest]
    assert (said["side"], said["price"], said["confidence"], said["is_actionable"]) == (signal.side, signal.price, 90.0, True)
    assert (signal.side, signal.price) in {("buy", 102.0), ("sell", 100.0)}

    # its order on paper; the one before is filled by the candle that followed it, against us
    by_candle = {order["ts_us"]: order for order in orders}
    assert set(by_candle) == {item.ts_us for item in signals}
    assert [row["run_id"] for row in rows if row["ts_us"] == newest and row["stage"] == "executor"] == [f"process-{second['id']}"]
    assert (by_candle[newest]["status"], by_candle[newest]["side"], by_candle[newest]["mode"]) == ("new", signal.side, "paper")
    filled = by_candle[before]
    assert (filled["status"], filled["filled_quantity"], filled["filled_us"]) == ("filled", 0.5, before + MINUTE_US)
    assert filled["fill_price"] == pytest.approx({"buy": 102.0 * 1.0005, "sell": 100.0 * 0.9995}[filled["side"]])

    # what a person sees of the run
    artifacts = server.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [second["id"]]}}})
    tables = {item["key"]: orjson.loads(item["data"]) for item in artifacts if item["type"] == "table"}
    assert [item["key"] for item in artifacts if item["type"] == "image"] == ["pipeline-equity"]
    assert at in {row["candle"] for row in tables["pipeline-signals"]}
    assert {row["stage"] for row in tables["pipeline-stage-times"]} >= set(STAGES)

"""Replay, comparison and training as runs at a real Prefect server: what a person reads there is what the lake says."""

import asyncio
import base64

import orjson
import pytest

from connections.service import ConnectionInput
from core.clock import to_datetime
from core.interval import Interval
from core.series import Series
from core.settings import Settings
from feed import open_feed
from feed.pipelines import create, shadow
from feed.processing import process
from feed.replaying import compare_pipelines, compare_shadow, replay_pipeline
from feed.training import forget_model
from pipeline.charts import chart_png, equity_png, reliability_png
from pipeline.metrics import returns_after
from storage.head import Batch
from storage.models import get_model
from storage.pipelines import delete_pipeline, set_enabled
from storage.series import ensure_series
from tasks.artifacts import artifact_key
from tasks.pipeline import HORIZON, comparison_markdown, signal_rows
from tasks.training import report_rows
from tests.pipeline.conftest import definition, market

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("only_ordered", "runner")]

SERIES = Series.parse("charted", "BTC/USD", "1h")
START, END = "2024-01-20", "2024-02-10"
RANGE = Interval.parse(START, END)
LIVE = 40  # candles that were judged when they came
COUNT = 1_600


@pytest.fixture(scope="module")
def pipelines(environment):
    """A champion and its challenger over 1,600 hourly candles, of which both judged the last ones when they came; their settings."""
    home = Settings(_env_file=None, home=environment["CANDLELAKE_HOME"], key_file=environment["CANDLELAKE_KEY_FILE"])
    candles = market(COUNT, seed=4)
    key = {"connection": "charted", "symbol": "BTC/USD", "timeframe": "1h"}
    with open_feed(home) as feed:
        number = feed.connections.create(ConnectionInput(
            slug="charted", provider="ccxt:kraken", symbols=("BTC/USD",), timeframes=("1h",), is_active=False)).id
        with feed.lake.metadata.write() as tx:
            row = ensure_series(tx, number, "BTC/USD", "1h")
        feed.lake.write([Batch(row.id, candles.head(COUNT - LIVE), "rest")], run_id="fetch-1")
        create(feed, definition("champ", series=[key], catch_up=LIVE), "me")
        create(feed, definition("rival", series=[key], catch_up=LIVE, filters=[]), "me")
        shadow(feed, "rival", "champ")
        for name in ("champ", "rival"):
            with feed.lake.metadata.write() as tx:
                set_enabled(tx, name, enabled=True, now_us=feed.clock.now_us())
        assert not asyncio.run(process(feed)).errors
        feed.lake.write([Batch(row.id, candles.tail(LIVE), "rest")], run_id="fetch-2")
        assert asyncio.run(process(feed)).candles == 2 * LIVE
    yield home
    with open_feed(home) as feed:
        for name in ("rival", "champ"):
            with feed.lake.metadata.write() as tx:
                delete_pipeline(tx, name)
        feed.connections.delete("charted", purge=True)


@pytest.fixture
def shown(finished, server):
    """Order a run, expect that it completes, and return its last state and what it published, by key."""
    def run(name, **config):
        number, state = finished(name, **config)
        assert state["type"] == "COMPLETED", state["message"]
        found = server.post("/artifacts/filter", {"flow_runs": {"id": {"any_": [number]}}})
        return state, {item["key"]: item for item in found}

    return run


def table(artifact):
    """Return the rows of a table."""
    return orjson.loads(artifact["data"])


def picture(artifact):
    """Return the bytes of a picture."""
    head, _, data = artifact["data"].partition(",")
    assert head == "data:image/png;base64"
    return base64.b64decode(data, validate=True)


def test_a_replay_publishes_its_signals_times_chart_and_equity(pipelines, shown):
    """The tables hold each signal and each stage; the pictures are those of the same candles and signals drawn here."""
    state, told = shown("replay_pipeline", pipeline="champ", start=START, end=END)
    with open_feed(pipelines) as feed:
        (replayed,) = replay_pipeline(feed, "champ", RANGE)
    result, key = replayed.result, artifact_key("replay", "champ", str(SERIES))
    assert result.records
    assert f"{len(result.records)} signals" in state["message"]
    assert table(told[f"{key}-signals"]) == signal_rows(result.records)
    stages = {row["stage"]: row for row in table(told[f"{key}-stages"])}
    assert stages.keys() == {"cleaner", "filter", "indicator", "signal", "confidence"}
    assert all(row["count"] >= 1 and row["mean_ms"] > 0 and row["errors"] == 0 for row in stages.values())
    from_us = int(replayed.judged["ts"].dt.epoch("us")[0])
    assert picture(told[f"{key}-chart"]) == chart_png(
        replayed.judged, [item for item in result.records if item.ts_us >= from_us],
        f"champ: {SERIES}, from {to_datetime(from_us):%Y-%m-%d %H:%M}")
    gains = returns_after(result.signals, replayed.candles, HORIZON)
    title = f"champ: {SERIES}, gain {HORIZON} candles after each signal, costs left out"
    assert picture(told[f"{key}-equity"]) == equity_png(result.signals["ts"], gains, title)
    assert picture(told[f"{key}-equity"]) != equity_png(result.signals["ts"], -gains, title)


@pytest.mark.parametrize("by", ["replay", "live"])
def test_a_comparison_publishes_its_report(pipelines, shown, by):
    """By a replay of the candles, or by what both said live: the report and the run's message hold the verdict, no signal is lost."""
    with open_feed(pipelines) as feed:
        newest = feed.lake.latest("charted", "BTC/USD", "1h", LIVE)["ts"]
        start, end = (START, END) if by == "replay" else (newest[0].isoformat(), "2024-12-31")
        compared = compare_pipelines if by == "replay" else compare_shadow
        found = compared(feed, "champ", "rival", Interval.parse(start, end), horizon=5)
    (item,) = found
    assert item.candles == (LIVE if by == "live" else 504)
    assert item.challenger.signals >= item.champion.signals > 0
    state, told = shown("compare_pipelines", champion="champ", challenger="rival", start=start, end=end, horizon=5, by=by)
    assert told["comparison-champ-rival"]["data"] == comparison_markdown(found)
    assert state["message"] == f"{SERIES}: {item.verdict}"
    assert item.verdict in told["comparison-champ-rival"]["data"]


def test_a_training_publishes_its_report(pipelines, shown):
    """The table is the report of the stored model, the picture its reliability, and the message says plainly what it is worth."""
    state, told = shown("train_model", model="charted", connection="charted", symbol="BTC/USD", timeframe="1h", horizon=3)
    with open_feed(pipelines) as feed:
        with feed.lake.metadata.read() as tx:
            row = get_model(tx, "charted")
        forget_model(feed, "charted", row.version)
    assert (row.connection, row.symbol, row.timeframe) == ("charted", "BTC/USD", "1h")
    assert state["message"] == f"charted version 1: {row.report['verdict']}"
    assert row.report["verdict"].startswith(("beats", "does NOT beat"))
    rows = table(told["model-charted"])
    assert rows == orjson.loads(orjson.dumps(report_rows(row)))
    assert [item["candles"] for item in rows] == ["unseen", "walk forward", "unseen fall", "walk forward fall"]
    assert f"costs of {row.report['plan']['cost_bp']:g} bp" in state["message"]
    title = "charted: what was said and what came true, unseen candles"
    assert picture(told["model-charted-reliability"]) == reliability_png(row.report["report"]["unseen"]["reliability"], title)

"""Learned confidence: no future leaks, honest reports, files that are numbers alone, and refusals that say why."""

from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.ai_signals import features
from addons.ai_signals.model import Model, digest_of, read_model, stability
from addons.ai_signals.plugin import AiConfidence, ModelParameters, load_model, model_path
from addons.ai_signals.training import Plan, _grow, calibration_error, examples_of, report_of, splits, train
from cli.main import run
from core.candles import CANDLE_SCHEMA
from core.errors import InputError, NotFoundError
from core.interval import Interval
from feed.executing import record_of
from feed.pipelines import change, create, load
from feed.processing import process
from feed.replaying import check_pipeline, replay_pipeline
from feed.training import forget_model, train_model
from pipeline.stages import Signal
from storage.models import get_model, list_models, split_version
from storage.pipelines import list_signals, set_enabled
from tests.pipeline.conftest import SERIES, START, clock, context, definition, feed, market, store  # noqa: F401  fixtures

EURUSD = Path(__file__).parents[2] / "sandbox" / "data" / "oanda_EURUSD_H1.parquet"
SMALL = Plan(horizon=3, folds=3, trees=15, cost_bp=0.0)
HOUR = 3_600_000_000


def momentum(count, seed=5):
    """Candles whose moves go on: there is something to learn."""
    candles = market(count, seed=seed)
    dice, moves = np.random.default_rng(seed), np.zeros(count)
    for at in range(1, count):
        moves[at] = 0.6 * moves[at - 1] + dice.normal(0, 3e-3)
    close = 100 * np.exp(np.cumsum(moves))
    opens = np.r_[100.0, close[:-1]]
    return candles.with_columns(
        open=opens, close=close, high=np.maximum(opens, close) * 1.0005, low=np.minimum(opens, close) * 0.9995).select(list(CANDLE_SCHEMA))


@pytest.fixture(scope="module")
def learned():
    """Candles with something to learn, and the model of them."""
    candles = momentum(6_000)
    return candles, train(candles, SMALL, {"series": "test"})


def test_features_know_nothing_of_the_future():
    """Each row of features is the same whether or not the candles after it are there, and whatever they are."""
    candles = market(900)
    whole = features.compute(candles)
    for cut in (250, 500, 899):
        np.testing.assert_array_equal(features.compute(candles.head(cut)), whole[:cut])
    changed = pl.concat([candles.head(600), market(300, seed=9).with_columns(ts=candles["ts"].slice(600))])
    np.testing.assert_array_equal(features.compute(changed)[:600], whole[:600])


@given(count=st.integers(200, 5_000), folds=st.integers(2, 12), embargo=st.integers(1, 200))
def test_training_never_knows_what_is_judged(count, folds, embargo):
    """In every split all training rows lie `embargo` rows or more before the first judged one, and each row is judged once at most."""
    judged = np.zeros(count, dtype=int)
    for learn, judge in splits(count, folds, embargo):
        assert learn.stop <= max(0, judge.start - embargo)
        judged[judge] += 1
    assert judged.max() == 1
    assert judged[count // (folds + 1) * 1:].min() == 1


def test_labels_look_exactly_as_far_as_they_say():
    """A label is the close `horizon` candles later against the candle's own; what has none is left out."""
    candles = market(600)
    found = examples_of(candles, 5)
    close = dict(zip(candles["ts"].to_physical().to_list(), candles["close"].to_list(), strict=True))
    for us, is_up in zip(found.ts_us.tolist(), found.is_up.tolist(), strict=True):
        assert is_up == (close[us + 5 * HOUR] > close[us])
    assert found.ts_us.max() == candles["ts"].to_physical()[-6]


def test_our_reading_of_the_trees_is_scikit_learns():
    """The logits of the plain numbers are those of scikit-learn's own classifier, missing values among them."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    dice = np.random.default_rng(3)
    rows = dice.normal(size=(3_000, 6))
    rows[dice.random(rows.shape) < 0.1] = np.nan
    is_up = np.nan_to_num(rows[:, 0]) + 0.5 * np.nan_to_num(rows[:, 1]) ** 2 + dice.normal(size=3_000) > 0.3
    base, trees = _grow(rows, is_up, Plan(trees=20))
    theirs = HistGradientBoostingClassifier(
        max_iter=20, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=50, l2_regularization=10.0, early_stopping=False, random_state=7)
    theirs.fit(rows, is_up)
    ours = Model((), 0, base, 1.0, 0.0, (), trees, {}).logits(rows)
    np.testing.assert_allclose(ours, theirs.decision_function(rows), rtol=0, atol=1e-12)


def test_the_same_candles_give_the_same_file(learned):
    """Trained twice, byte for byte the same; read back, the same probabilities."""
    candles, model = learned
    content = model.to_bytes()
    assert train(candles, SMALL, {"series": "test"}).to_bytes() == content
    again = read_model(content, model.digest)
    rows = features.compute(candles, model.features)[-50:]
    np.testing.assert_array_equal(again.probabilities(rows), model.probabilities(rows))


def test_a_changed_file_is_refused(learned, tmp_path):
    """One changed byte, another format, or no file: one line that says so, and nothing of the file is run."""
    _, model = learned
    content = model.to_bytes()
    with pytest.raises(InputError, match="model file"):
        read_model(content.replace(b'"slope":', b'"slope": ', 1), model.digest)
    other = orjson.dumps({**orjson.loads(content), "format": 99})
    with pytest.raises(InputError, match="format"):
        read_model(other, digest_of(other))
    with pytest.raises(InputError, match="train the model again"):
        load_model(tmp_path, model.digest)


def test_reports_are_honest(learned):
    """Where moves go on the model beats the base rate; on a random walk it says that it does not; its numbers are scikit-learn's."""
    from sklearn.metrics import brier_score_loss, log_loss

    candles, model = learned
    assert model.about["verdict"].startswith("beats the base rate")
    told = model.about["report"]["unseen"]
    found = examples_of(candles, SMALL.horizon)
    unseen = found.ts_us >= found.ts_us[np.searchsorted(found.ts_us, pl.Series([model.about["unseen_from"]]).str.to_datetime(time_unit="us").to_physical()[0])]
    places = [features.NAMES.index(name) for name in model.features]
    said = model.probabilities(found.rows[unseen][:, places])
    assert told["count"] == int(unseen.sum())
    assert told["log_loss"] == pytest.approx(log_loss(found.is_up[unseen], said), abs=1e-9)
    assert told["brier"] == pytest.approx(brier_score_loss(found.is_up[unseen], said), abs=1e-9)
    dull = train(market(4_000, seed=11), SMALL, {"series": "walk"})
    assert "does NOT beat the base rate" in dull.about["verdict"]


def test_intervals_hold_what_they_say():
    """The gain of probabilities that are the truth lies within its own interval, above 0; that of noise around them below."""
    dice = np.random.default_rng(1)
    truth = dice.uniform(0.3, 0.7, 5_000)
    is_up = dice.random(5_000) < truth
    right = report_of(truth, is_up, 0.5, 1)
    wrong = report_of(dice.uniform(0.05, 0.95, 5_000), is_up, 0.5, 1)
    assert right["gain_low"] <= right["gain"] <= right["gain_high"]
    assert right["gain_low"] > 0 > wrong["gain_high"]
    assert right["calibration_error"] < 0.04 < wrong["calibration_error"]


def test_drift_is_seen():
    """The index is near 0 for values as in training, and large for others."""
    dice = np.random.default_rng(2)
    edges = tuple(np.quantile(dice.normal(size=50_000), np.linspace(0.1, 0.9, 9)).tolist())
    assert stability(dice.normal(size=2_000), edges) < 0.05
    assert stability(dice.normal(2.0, 1.0, 2_000), edges) > 1.0


@pytest.mark.slow
def test_calibrated_on_the_last_unseen_year_of_real_candles():
    """EURUSD to 2018: on its last year, never trained on, the calibration error is within the stated one and the verdict is plain."""
    from sklearn.metrics import log_loss

    frame = pl.read_parquet(EURUSD).filter(pl.col("ts").dt.year() >= 2012).with_columns(spread=pl.lit(None, pl.Float64))
    candles = frame.cast(dict(CANDLE_SCHEMA), strict=False).select(list(CANDLE_SCHEMA))
    share = candles.filter(pl.col("ts").dt.year() == 2018).height / candles.height
    model = train(candles, Plan(horizon=12, folds=5, holdout=share, trees=30, cost_bp=0.0), {"series": "oanda EURUSD 1h"})
    report = model.about["report"]
    assert model.about["unseen_from"].startswith(("2018", "2017-12"))
    found = examples_of(candles, 12)
    places = [features.NAMES.index(name) for name in model.features]
    unseen = slice(len(found.is_up) - report["unseen"]["count"], None)
    said, is_up = model.probabilities(found.rows[unseen][:, places]), found.is_up[unseen]
    assert calibration_error(said, is_up) == report["unseen"]["calibration_error"]
    assert report["unseen"]["calibration_error"] <= report["stated_error"] <= 0.1
    gain = log_loss(is_up, np.full(len(is_up), report["base_rate"])) - log_loss(is_up, said)
    assert report["unseen"]["gain"] == pytest.approx(gain, abs=1e-9)
    assert model.about["verdict"].startswith("beats" if report["unseen"]["gain_low"] > 0 else "does NOT beat")


CONFIDENT = [{"plugin": "ai_confidence", "parameters": {"model": "up", "drift_window": 200, "drift_features": 20}}]


@pytest.mark.slow
async def test_a_pipeline_keeps_the_model_it_was_stored_with(feed, store):  # noqa: F811  fixtures
    """A definition names the file; live equals replay; `check` passes; a later training waits for a new version; a lost file is told."""
    candles = momentum(2_300)
    store(candles.head(2_000))
    first = train_model(feed, "up", SERIES, plan=SMALL)
    create(feed, definition(lookback=400, filters=[], confidence=CONFIDENT), "me")
    with feed.lake.metadata.write() as tx:
        set_enabled(tx, "trend", enabled=True, now_us=feed.clock.now_us())
    kept = load(feed, "trend")[1].confidence[0].parameters
    assert (kept["version"], kept["digest"]) == (1, first.digest)
    await process(feed)
    for at in range(2_000, 2_040):
        store(candles.slice(at, 1), run_id=f"fetch-{at}")
        assert not (await process(feed)).errors
    with feed.lake.metadata.read() as tx:
        live = [row for row in list_signals(tx, "trend") if row.ts_us >= START + 2_000 * HOUR]
    assert live
    assert {0 < row.confidence < 100 for row in live} == {True}
    (replayed,) = replay_pipeline(feed, "trend", Interval(START + 2_000 * HOUR, START + 2_040 * HOUR))
    assert b"".join(item.as_line() for item in replayed.result.records) == b"".join(record_of(row).as_line() for row in live)
    assert all(report.is_clean for report in check_pipeline(feed, "trend", frontiers=5))
    store(candles.slice(2_040, 200))
    second = train_model(feed, "up", SERIES, plan=SMALL)
    assert second.version == 2
    assert load(feed, "trend")[1].confidence[0].parameters["digest"] == first.digest
    change(feed, definition(lookback=400, filters=[], confidence=CONFIDENT), "me")
    assert load(feed, "trend")[1].confidence[0].parameters["digest"] == second.digest
    model_path(feed.settings.home, second.digest).unlink()
    result = await process(feed)
    assert result.errors
    assert "model file" in result.errors[0]


def test_it_refuses_what_it_does_not_know(learned, tmp_path, monkeypatch):
    """Missing features and drifted ones are an error that names them; a model that is not stored by its digest is refused."""
    from core.settings import settings

    candles, model = learned
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path))
    settings.cache_clear()
    path = model_path(tmp_path, model.digest)
    path.parent.mkdir(parents=True)
    path.write_bytes(model.to_bytes())
    plugin = AiConfidence(ModelParameters(model="up", digest=model.digest))
    buy, sell = (plugin.evaluate(Signal(side), candles.head(3_000), context()) for side in ("buy", "sell"))
    assert buy + sell == pytest.approx(100)
    wild = pl.concat([candles.head(500), candles.slice(500, 500).with_columns(
        pl.col("high") * 1.3, pl.col("low") * 0.7, open=pl.col("close") * np.where(np.arange(500) % 2, 1.2, 0.8))])
    with pytest.raises(InputError, match=r"drifted: .*range"):
        plugin.evaluate(Signal("buy"), wild, context())
    assert plugin.evaluate(Signal("buy"), candles.head(15), context()) == 0  # too young: it never acts
    holes = candles.head(600).with_columns(close=pl.when(pl.int_range(600) == 599).then(None).otherwise(pl.col("close")))
    with pytest.raises(InputError, match="no value for return_1"):
        plugin.evaluate(Signal("buy"), holes, context())
    with pytest.raises(InputError, match="stored"):
        AiConfidence(ModelParameters(model="up"))
    settings.cache_clear()


@pytest.mark.slow
def test_models_are_kept_as_versions(feed, store):  # noqa: F811  fixtures
    """The same training again is no new version; another is; the file goes with its last version; bad names and too few candles are refused."""
    store(momentum(2_000))
    first = train_model(feed, "up", SERIES, plan=SMALL)
    assert train_model(feed, "up", SERIES, plan=SMALL) == first
    other = train_model(feed, "up", SERIES, plan=Plan(horizon=4, folds=3, trees=15, cost_bp=0.0))
    assert (first.version, other.version) == (1, 2)
    with feed.lake.metadata.read() as tx:
        assert [row.version for row in list_models(tx)] == [2, 1]
        assert get_model(tx, "up").digest == other.digest
    forget_model(feed, "up", 2)
    assert not model_path(feed.settings.home, other.digest).exists()
    assert model_path(feed.settings.home, first.digest).exists()
    with pytest.raises(NotFoundError, match="models list"):
        forget_model(feed, "up", 2)
    with pytest.raises(InputError, match="model name"):
        train_model(feed, "../up", SERIES, plan=SMALL)
    with pytest.raises(InputError, match="backfill more"):
        train_model(feed, "up", SERIES, Interval(START, START + 700 * HOUR), plan=SMALL)
    with pytest.raises(InputError, match="NAME@VERSION"):
        split_version("up@x")


async def test_the_task_and_the_commands(feed, store, capsys):  # noqa: F811  fixtures
    """What the flow's task trains, the commands list, show whole, and delete when told twice."""
    from tasks.training import report_rows, train_on_candles

    def candlelake(*words):
        """Run a command; returns exit code, stdout and stderr."""
        capsys.readouterr()
        code = run(list(words))
        return code, *capsys.readouterr()

    store(momentum(2_000))
    done = await train_on_candles.fn("up", ("kraken", "BTC/USD", "1h"), None, None, {"horizon": 3, "folds": 3, "holdout": 0.2, "trees": 15, "cost_bp": 30.0})
    assert done["version"] == 1
    with feed.lake.metadata.read() as tx:
        assert [row["candles"] for row in report_rows(get_model(tx, "up"))] == ["unseen", "walk forward", "unseen fall", "walk forward fall"]
    (row,) = orjson.loads(candlelake("models", "list", "--json")[1])
    assert (row["name"], row["version"], row["series"]) == ("up", 1, "kraken BTC/USD 1h")
    shown = orjson.loads(candlelake("models", "show", "up@1", "--json")[1])
    assert shown["report"]["unseen"]["count"] > 100
    assert (shown["report"]["cost_from"], shown["plan"]["cost_bp"]) == ("given", 30)
    assert "costs of 30 bp" in shown["verdict"]
    code, out, _ = candlelake("models", "train", "up", "kraken", "BTC/USD", "1h", "--horizon", "3", "--folds", "3", "--trees", "15", "--cost", "30", "--json")
    assert (code, orjson.loads(out)["version"]) == (0, 1)  # the same again
    assert candlelake("models", "delete", "up@1")[0] == 2
    assert candlelake("models", "delete", "up@1", "--yes")[0] == 0
    code, _, err = candlelake("models", "show", "up")
    assert code in {1, 2}
    assert "models list" in err
    told = orjson.loads(candlelake("users", "audit", "--json")[1])
    assert [(row["action"], row["subject"]) for row in told] == [("model.delete", "up@1"), ("model.train", "up")]
    assert candlelake("models", "train", "up", "kraken", "BTC/USD", "1h", "--start", "2024-01-01")[0] == 2

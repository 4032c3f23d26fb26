"""Learned confidence after costs: what does not earn its costs is right for neither side, and reports are net of them."""

from dataclasses import replace

import numpy as np
import orjson
import polars as pl
import pytest
from hypothesis import given
from hypothesis import settings as tried
from hypothesis import strategies as st

from addons.ai_signals import features
from addons.ai_signals.model import FORMAT, PLAIN, digest_of, read_model
from addons.ai_signals.plugin import AiConfidence, AiSignal, ModelParameters, model_path
from addons.ai_signals.training import ASSUMED_COST_BP, Plan, cost_of, examples_of, net_of, train, verdict_of
from core.errors import InputError
from core.settings import settings
from pipeline.stages import Signal
from tests.addons.test_ai_signals import momentum
from tests.pipeline.conftest import context, market

COST = 25.0  # basis points; a move over three candles of `momentum` is some 100
COSTED = Plan(horizon=3, folds=3, trees=15, cost_bp=COST)
CANDLES = momentum(4_000)
OLD_FILE = {  # as it was written before costs were known
    "format": 1, "features": ["rsi"], "horizon": 3, "base": 0.25, "slope": 1.0, "shift": 0.0, "edges": [[0.4, 0.6]], "about": {"series": "x"},
    "trees": [{"feature": [0, 0, 0], "threshold": [0.5, 0.0, 0.0], "missing_left": [True, False, False], "left": [1, 0, 0],
               "right": [2, 0, 0], "value": [0.0, -1.0, 1.0], "is_leaf": [False, True, True]}]}


@pytest.fixture(scope="module")
def model():
    """A model of candles with something to learn, after costs."""
    return train(CANDLES, COSTED, {"series": "test"})


@pytest.fixture
def plugged(tmp_path, monkeypatch):
    """Make a plug-in of a model's file."""
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path))
    settings.cache_clear()

    def make(kind, content, **parameters):
        path = model_path(tmp_path, digest_of(content))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return kind(kind.Parameters(model="up", digest=digest_of(content), drift_features=100, **parameters))

    yield make
    monkeypatch.undo()
    settings.cache_clear()


def test_costs_are_given_or_the_candles_own_or_assumed():
    """A cost that is given counts; else the median spread where half of the candles tell one; else what is assumed; nonsense is refused."""
    candles = market(400)  # a spread of 0.02 on six candles of seven
    spread = (candles["spread"] / candles["close"] * 1e4).drop_nulls().median()
    assert cost_of(candles, Plan(cost_bp=3.0)) == (3.0, "given")
    assert cost_of(candles, Plan(cost_bp=0.0)) == (0.0, "given")
    assert cost_of(candles, Plan()) == (round(spread, 3), "spread")
    few = candles.with_columns(spread=pl.when(pl.int_range(400) < 190).then(pl.col("spread")))
    assert cost_of(few, Plan()) == cost_of(candles.with_columns(spread=pl.lit(0.0)), Plan()) == (ASSUMED_COST_BP, "assumed")
    for wrong in (-1.0, 1_001.0, float("nan")):
        with pytest.raises(InputError, match="0 to 1000 basis points"):
            cost_of(candles, Plan(cost_bp=wrong))


@tried(max_examples=30)
@given(cost=st.floats(0.001, 500), horizon=st.integers(1, 24))
def test_a_side_is_right_only_beyond_its_costs(cost, horizon):
    """No example is right for both sides, each label is its move against the cost, and a higher cost never makes more of them right."""
    candles = CANDLES.head(700)
    found, dearer = examples_of(candles, horizon, cost), examples_of(candles, horizon, cost * 1.5)
    assert (found.is_up == (found.moves > cost)).all()
    assert (found.is_down == (found.moves < -cost)).all()
    assert not (found.is_up & found.is_down).any()
    assert not (dearer.is_up & ~found.is_up).any()
    assert not (dearer.is_down & ~found.is_down).any()
    rows = np.searchsorted(candles["ts"].to_physical().to_numpy(), found.ts_us)
    close = candles["close"].to_numpy()
    assert found.moves == pytest.approx((close[rows + horizon] / close[rows] - 1) * 1e4)


def test_both_sides_are_learned_calibrated_and_reported_after_costs(model):
    """Each side has its own probability, within its stated error of what came true; the net figures are those of the unseen candles."""
    report = model.about["report"]
    assert (report["cost_bp"], report["cost_from"], model.about["plan"]["cost_bp"]) == (COST, "given", COST)
    found = examples_of(CANDLES, COSTED.horizon, COST)
    unseen = slice(len(found.is_up) - report["unseen"]["count"], None)
    rows = found.rows[unseen][:, [features.NAMES.index(name) for name in model.features]]
    up, down, moves = model.probabilities(rows), model.falls(rows), found.moves[unseen]
    assert np.abs(up + down - 1).mean() > 0.05  # the third case, that neither earns its costs, is left room
    for name, said, label in (("", up, found.is_up), ("_fall", down, found.is_down)):
        told = report[f"unseen{name}"]
        assert told["gain_low"] > 0
        assert told["up_rate"] == pytest.approx(label[unseen].mean())
        assert told["brier"] == pytest.approx(((said - label[unseen]) ** 2).mean())
        assert abs(said.mean() - label[unseen].mean()) <= report[f"stated_error{name}"] + 0.05
    taken = np.maximum(up, down) > 0.5
    gains = (np.where(up >= down, 1, -1) * moves - COST)[taken]
    net = report["net"]
    assert net["trades"] == len(gains) > 100
    assert net["gain_bp"] == pytest.approx(gains.mean())
    assert net["won"] == pytest.approx((gains > 0).mean())
    assert net["gain_low_bp"] < net["gain_bp"] < net["gain_high_bp"]
    assert net["always_buy_bp"] == pytest.approx(moves.mean() - COST)
    assert model.about["verdict"].startswith("beats the base rate")
    assert "more than costs of 25 bp" in model.about["verdict"]


@pytest.mark.slow
def test_what_is_unseen_decides_nothing_of_a_model():
    """With wild prices, volumes and spreads in its place the model is the same to the last bit: features, costs, trees, calibration, edges."""
    dice = pl.Series(np.random.default_rng(5).uniform(0.5, 1.5, 2_500))
    candles = momentum(2_500).with_columns(spread=pl.col("close") * 2e-4 * dice)
    plan = Plan(horizon=3, folds=2, trees=5)
    true = train(candles, plan, {})
    unseen = pl.col("ts") >= pl.lit(true.about["unseen_from"]).str.to_datetime(time_zone="UTC")
    wild = train(candles.with_columns(
        pl.when(unseen).then(pl.col(name) * (4 * dice if name == "spread" else dice)).otherwise(pl.col(name))
        for name in ("open", "high", "low", "close", "volume", "spread")), plan, {})
    assert wild.about["report"]["unseen"] != true.about["report"]["unseen"]
    assert replace(wild, about={}) == replace(true, about={})


def test_a_walk_that_knows_nothing_is_told_so():
    """On a random walk nothing earns its costs, and the verdict does not say that it does; a cost beyond every move is refused."""
    candles = market(2_500, seed=3)
    model = train(candles, Plan(horizon=3, folds=2, trees=5, cost_bp=40.0), {"series": "test"})
    assert model.about["verdict"].startswith("does NOT beat")
    assert "side earned" not in model.about["verdict"]
    with pytest.raises(InputError, match="a lower cost"):
        train(candles, Plan(horizon=3, folds=2, trees=5, cost_bp=1_000.0), {"series": "test"})
    nothing = net_of(np.full(50, 0.3), np.full(50, 0.4), np.zeros(50), 5.0, 3)
    assert (nothing["trades"], nothing["gain_bp"], nothing["always_buy_bp"]) == (0, None, -5.0)
    assert verdict_of({"unseen": {"gain_low": 1.0, "calibration_error": 0.0}, "stated_error": 0.1, "net": nothing, "cost_bp": 5.0}).endswith(
        "no unseen candle promised more than its costs of 5 bp")


def test_a_file_with_costs_is_read_as_it_was_written(model):
    """Both sides, the cost and the digest survive the file; it says that it is of the newer format."""
    content = model.to_bytes()
    kept = read_model(content, model.digest)
    rows = features.compute(CANDLES.head(400), model.features)[-20:]
    assert orjson.loads(content)["format"] == FORMAT
    assert kept.cost_bp == COST
    assert kept.digest == model.digest
    assert (kept.probabilities(rows) == model.probabilities(rows)).all()
    assert (kept.falls(rows) == model.falls(rows)).all()


def test_models_of_before_keep_loading(plugged):
    """A file without costs is read as ever: who does not rise falls; it is written again byte for byte."""
    content = orjson.dumps(OLD_FILE, option=orjson.OPT_SORT_KEYS)
    kept = read_model(content, digest_of(content))
    assert (kept.fall, kept.cost_bp) == (None, 0.0)
    up = kept.probabilities(np.array([[0.3], [0.7]]))
    assert up == pytest.approx(1 / (1 + np.exp([0.75, -1.25])))
    assert kept.falls(np.array([[0.3], [0.7]])) == pytest.approx(1 - up)
    assert kept.to_bytes() == content
    assert orjson.loads(kept.to_bytes())["format"] == PLAIN
    plugin = plugged(AiConfidence, content)
    buy, sell = (plugin.evaluate(Signal(side), CANDLES.head(300), context()) for side in ("buy", "sell"))
    assert buy + sell == pytest.approx(100)
    later = orjson.dumps(OLD_FILE | {"format": 3})
    with pytest.raises(InputError, match="format 1 or 2"):
        read_model(later, digest_of(later))


def test_plugins_say_each_sides_own_probability(model, plugged):
    """Confidence is the side's probability of earning its costs; a signal is of the likelier side, and says that it is net."""
    content = model.to_bytes()
    confidence, generator = plugged(AiConfidence, content), plugged(AiSignal, content, level=0.6)
    assert isinstance(confidence.parameters, ModelParameters)
    sides = {None: 0, "buy": 0, "sell": 0}
    for start in range(0, 3_600, 150):
        frame = CANDLES.slice(start, 400)
        row = features.compute(frame, model.features)[-1:]
        up, down = float(model.probabilities(row)[0]), float(model.falls(row)[0])
        assert confidence.evaluate(Signal("buy"), frame, context()) == pytest.approx(100 * up)
        assert confidence.evaluate(Signal("sell"), frame, context()) == pytest.approx(100 * down)
        said = generator.generate(frame, context())
        assert (said is None) == (max(up, down) < 0.6)
        if said is not None:
            assert said.side == ("buy" if up >= down else "sell")
            assert said.reason.endswith("likely after 3 candles, net of 25 bp")
        sides[None if said is None else said.side] += 1
    assert all(sides.values()), sides

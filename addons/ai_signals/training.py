"""Trains a model on candles: walk-forward with an embargo, calibrated on what it had not seen, measured on the newest part alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from addons.ai_signals import features
from addons.ai_signals.model import Floats, Model, Tree, logistic
from core.clock import isoformat
from core.errors import InputError, UnsupportedError

Progress = Callable[[int, int], None]
LEAST_ROWS: Final = 1_000
_BINS: Final = 10
_DRAWS: Final = 100
_SEED: Final = 7


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train.

    Attributes:
        horizon: candles ahead at which the close is compared.
        folds: parts of the walk forward.
        holdout: share of the newest candles that training never sees; the report is of them.
        trees: at most so many.
    """

    horizon: int = 12
    folds: int = 5
    holdout: float = 0.2
    trees: int = 60


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows to learn from: features, whether the close is higher `horizon` candles later, and the open times."""

    rows: Floats
    is_up: NDArray[np.bool_]
    ts_us: NDArray[np.int64]


def examples_of(candles: pl.DataFrame, horizon: int) -> Examples:
    """Return the examples of candles (CANDLE_SCHEMA, ascending).

    Left out: rows before the features have settled, rows without a later close, rows whose close did not move, rows that lack a feature.
    """
    rows = features.compute(candles)
    close = candles["close"].to_numpy()
    later = np.full(len(close), np.nan)
    later[:-horizon] = close[horizon:]
    needed = [place for place, name in enumerate(features.NAMES) if name not in features.OPTIONAL]
    good = ~np.isnan(rows[:, needed]).any(axis=1) & ~np.isnan(later) & (later != close)
    good[:features.WARM_UP] = False
    return Examples(rows[good], (later > close)[good], candles["ts"].to_physical().to_numpy()[good])


def splits(count: int, folds: int, embargo: int) -> Iterator[tuple[slice, slice]]:
    """Yield (train, judge) slices that walk forward: what is judged lies after all that was trained on, `embargo` rows apart.

    A label looks `horizon` candles ahead, so the embargo has to be at least that: then no training label knows a judged candle.
    """
    step = count // (folds + 1)
    for fold in range(1, folds + 1):
        first = fold * step
        yield slice(0, max(0, first - embargo)), slice(first, count if fold == folds else first + step)


def train(candles: pl.DataFrame, plan: Plan, about: dict[str, Any], progress: Progress = lambda _done, _total: None) -> Model:
    """Return a model of a series' candles, with an honest report in `about`.

    Raises:
        UnsupportedError: scikit-learn is not installed. InputError: too few candles.
    """
    _sklearn()
    found = examples_of(candles, plan.horizon)
    seen = int(len(found.is_up) * (1 - plan.holdout)) - plan.horizon
    if seen < LEAST_ROWS:
        raise InputError("candles", f"{len(found.is_up)} usable ones", f"{LEAST_ROWS} or more before the newest {plan.holdout:.0%}", "backfill more history")
    # A feature that this series hardly has (volume at some brokers) is left out of its model.
    places = [place for place, column in enumerate(found.rows[:seen].T) if np.isnan(column).mean() < 0.5]
    rows, is_up = found.rows[:seen, places], found.is_up[:seen]
    logits, labels = [], []
    for done, (learn, judge) in enumerate(splits(seen, plan.folds, plan.horizon)):
        progress(done, plan.folds + 1)
        base, trees = _grow(rows[learn], is_up[learn], plan)
        logits.append(_logits(base, trees, rows[judge]))
        labels.append(is_up[judge])
    slope, shift = _calibrate(np.concatenate(logits), np.concatenate(labels))
    out_of_fold = logistic(slope * np.concatenate(logits) + shift)
    progress(plan.folds, plan.folds + 1)
    base, trees = _grow(rows, is_up, plan)
    unseen = slice(seen + plan.horizon, len(found.is_up))
    model = Model(tuple(features.NAMES[place] for place in places), plan.horizon, base, slope, shift, _deciles(rows), trees, about | {
        "trained_from": isoformat(int(found.ts_us[0])), "trained_to": isoformat(int(found.ts_us[seen - 1])),
        "unseen_from": isoformat(int(found.ts_us[unseen.start])), "unseen_to": isoformat(int(found.ts_us[-1])),
        "plan": {"horizon": plan.horizon, "folds": plan.folds, "holdout": plan.holdout, "trees": plan.trees}, "examples": seen})
    base_rate = float(is_up.mean())
    told = report_of(model.probabilities(found.rows[unseen][:, places]), found.is_up[unseen], base_rate, plan.horizon)
    walked = report_of(out_of_fold, np.concatenate(labels), base_rate, plan.horizon)
    model.about["report"] = {"unseen": told, "walk_forward": walked, "base_rate": base_rate, "versions": _versions(),
                             "stated_error": stated_error(out_of_fold, np.concatenate(labels), len(found.is_up) - unseen.start)}
    model.about["verdict"] = _verdict(told, model.about["report"]["stated_error"])
    progress(plan.folds + 1, plan.folds + 1)
    return model


def report_of(probability: Floats, is_up: NDArray[np.bool_], base_rate: float, block: int) -> dict[str, Any]:
    """Return how good probabilities are: losses, calibration, hits, each gain over the base rate with a 95 % interval.

    Intervals are by a bootstrap of blocks: labels that look ahead overlap, so single rows would be counted too often.
    """
    loss, plain = _log_loss(probability, is_up), _log_loss(np.full(len(is_up), base_rate), is_up)
    gain = plain - loss
    random, length = np.random.default_rng(_SEED), max(block, 24)
    starts = np.arange(0, len(is_up), length)
    gains, errors = [], []
    for _ in range(_DRAWS):
        take = np.concatenate([np.arange(start, min(start + length, len(is_up))) for start in random.choice(starts, len(starts))])
        gains.append(float(gain[take].mean()))
        errors.append(calibration_error(probability[take], is_up[take]))
    low, high = np.quantile(gains, [0.025, 0.975])
    return {
        "count": len(is_up), "log_loss": float(loss.mean()), "log_loss_of_base_rate": float(plain.mean()),
        "gain": float(gain.mean()), "gain_low": float(low), "gain_high": float(high), "brier": float(((probability - is_up) ** 2).mean()),
        "calibration_error": calibration_error(probability, is_up), "calibration_error_high": float(np.quantile(errors, 0.975)),
        "hit_rate": float(((probability > 0.5) == is_up).mean()), "up_rate": float(is_up.mean()), "reliability": reliability(probability, is_up)}


def stated_error(probability: Floats, is_up: NDArray[np.bool_], count: int) -> float:
    """Return what a model claims: the largest calibration error that the walk forward had over any stretch of `count` rows."""
    count = min(count, len(is_up))
    starts = range(0, len(is_up) - count + 1, max(1, count // 4))
    return max(calibration_error(probability[start:start + count], is_up[start:start + count]) for start in starts)


def reliability(probability: Floats, is_up: NDArray[np.bool_]) -> list[dict[str, float]]:
    """Return, for tenths of the rows by what was said, how often it came true."""
    order = np.argsort(probability, kind="stable")
    return [{"said": float(probability[part].mean()), "came_true": float(is_up[part].mean()), "count": len(part)}
            for part in np.array_split(order, _BINS) if len(part)]


def calibration_error(probability: Floats, is_up: NDArray[np.bool_]) -> float:
    """Return the mean distance between what was said and what came true, over tenths of the rows."""
    rows = reliability(probability, is_up)
    return float(sum(abs(row["said"] - row["came_true"]) * row["count"] for row in rows) / len(is_up))


def _verdict(told: dict[str, Any], stated: float) -> str:
    calibrated = "calibrated within" if told["calibration_error"] <= stated else "NOT calibrated within"
    if told["gain_low"] > 0:
        return f"beats the base rate on unseen candles; {calibrated} its stated error"
    return f"does NOT beat the base rate on unseen candles (gain {told['gain']:.5f}, 95 % {told['gain_low']:.5f} to {told['gain_high']:.5f}); {calibrated} its stated error"


def _grow(rows: Floats, is_up: NDArray[np.bool_], plan: Plan) -> tuple[float, tuple[Tree, ...]]:
    """Return the base logit and the trees of a boosting on these rows."""
    machine = _sklearn().HistGradientBoostingClassifier(
        max_iter=plan.trees, learning_rate=0.05, max_leaf_nodes=8, min_samples_leaf=max(50, len(rows) // 200), l2_regularization=10.0,
        early_stopping=False, random_state=_SEED)
    machine.fit(rows, is_up)
    trees = []
    for (grown,) in machine._predictors:  # noqa: SLF001  the fitted trees have no public name; a test compares our reading with predict_proba
        nodes = grown.nodes
        trees.append(Tree(
            nodes["feature_idx"].tolist(), nodes["num_threshold"].astype(float).tolist(), nodes["missing_go_to_left"].astype(bool).tolist(),
            nodes["left"].tolist(), nodes["right"].tolist(), nodes["value"].astype(float).tolist(), nodes["is_leaf"].astype(bool).tolist()))
    return float(machine._baseline_prediction.ravel()[0]), tuple(trees)  # noqa: SLF001  as above


def _logits(base: float, trees: tuple[Tree, ...], rows: Floats) -> Floats:
    return Model((), 0, base, 1.0, 0.0, (), trees, {}).logits(rows)


def _calibrate(logits: Floats, is_up: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and shift of Platt's calibration, by Newton's steps; a slope below 0 becomes 0: worse than nothing says nothing."""
    slope, shift = 1.0, 0.0
    matrix = np.column_stack([logits, np.ones(len(logits))])
    for _ in range(50):
        told = logistic(slope * logits + shift)
        gradient = matrix.T @ (told - is_up)
        step = np.linalg.solve(matrix.T @ (matrix * (told * (1 - told))[:, None]) + 1e-9 * np.eye(2), gradient)
        slope, shift = slope - float(step[0]), shift - float(step[1])
        if float(np.abs(step).max()) < 1e-10:
            break
    if slope > 0:
        return slope, shift
    rate = float(np.clip(is_up.mean(), 1e-6, 1 - 1e-6))
    return 0.0, float(np.log(rate / (1 - rate)))


def _deciles(rows: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(sorted(set(np.nanquantile(column, np.linspace(0.1, 0.9, 9)).tolist()))) for column in rows.T)


def _log_loss(probability: Floats, is_up: NDArray[np.bool_]) -> Floats:
    told = np.clip(probability, 1e-9, 1 - 1e-9)
    out: Floats = -np.where(is_up, np.log(told), np.log(1 - told))
    return out


def _versions() -> dict[str, str]:
    import sklearn  # noqa: PLC0415  an extra: only training needs it

    return {"scikit-learn": sklearn.__version__, "numpy": np.__version__}


def _sklearn() -> Any:
    try:
        from sklearn import ensemble  # noqa: PLC0415  as above
    except ImportError:
        raise UnsupportedError("training a model needs the extra `ai`: pip install 'candlelake[ai]'") from None
    return ensemble

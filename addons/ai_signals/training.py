"""Trains a model on candles: walk-forward with an embargo, calibrated on what it had not seen, measured on the newest part alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from addons.ai_signals import features
from addons.ai_signals.model import Fall, Floats, Model, Tree, logistic, logits_of
from core.clock import isoformat
from core.errors import InputError, UnsupportedError

Progress = Callable[[int, int], None]
LEAST_ROWS: Final = 1_000
ASSUMED_COST_BP: Final = 10.0  # where the candles tell no spread: 5 bp each way, as the larger exchanges take
BP: Final = 1e4
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
        cost_bp: what a trade there and back costs, in basis points of the price; a move that does not earn it is right for neither
            side. None: the candles' own median spread, or ASSUMED_COST_BP where they tell none. 0: whatever does not rise falls.
    """

    horizon: int = 12
    folds: int = 5
    holdout: float = 0.2
    trees: int = 60
    cost_bp: float | None = None


@dataclass(frozen=True, slots=True)
class Examples:
    """Rows to learn from: features, whether the close is higher (lower) by more than the costs `horizon` candles later, and the open times.

    `moves` is what the close does until then, in basis points.
    """

    rows: Floats
    is_up: NDArray[np.bool_]
    ts_us: NDArray[np.int64]
    is_down: NDArray[np.bool_]
    moves: Floats


@dataclass(frozen=True, slots=True)
class Learned:
    """One side's trees with their calibration, and what the walk forward said of candles that it had not seen."""

    base: float
    trees: tuple[Tree, ...]
    slope: float
    shift: float
    walked: Floats
    came: NDArray[np.bool_]


def cost_of(candles: pl.DataFrame, plan: Plan) -> tuple[float, str]:
    """Return what a trade there and back costs, in basis points, and where that is from: given, spread (half of the candles have one), assumed.

    Raises:
        InputError: a cost that is none.
    """
    if plan.cost_bp is not None:
        if not 0 <= plan.cost_bp <= 1_000:
            raise InputError("cost_bp", plan.cost_bp, "0 to 1000 basis points", "give what a trade there and back costs")
        return plan.cost_bp, "given"
    spreads = (candles["spread"] / candles["close"] * BP).drop_nulls().drop_nans()
    middle = spreads.median()
    if len(spreads) * 2 >= len(candles) and isinstance(middle, float) and middle > 0:
        return round(middle, 3), "spread"
    return ASSUMED_COST_BP, "assumed"


def examples_of(candles: pl.DataFrame, horizon: int, cost_bp: float = 0.0) -> Examples:
    """Return the examples of candles (CANDLE_SCHEMA, ascending).

    Left out: rows before the features have settled, rows without a later close, rows that lack a feature, and without costs those whose close
    did not move: with costs they are right for neither side.
    """
    rows = features.compute(candles)
    close = candles["close"].to_numpy()
    later = np.full(len(close), np.nan)
    later[:-horizon] = close[horizon:]
    needed = [place for place, name in enumerate(features.NAMES) if name not in features.OPTIONAL]
    good = ~np.isnan(rows[:, needed]).any(axis=1) & ~np.isnan(later)
    if cost_bp == 0:
        good &= later != close
    good[:features.WARM_UP] = False
    moves = (later[good] / close[good] - 1) * BP
    is_up, is_down = (later[good] > close[good], later[good] < close[good]) if cost_bp == 0 else (moves > cost_bp, moves < -cost_bp)
    return Examples(rows[good], is_up, candles["ts"].to_physical().to_numpy()[good], is_down, moves)


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
    cost_bp, cost_from = cost_of(candles.head(int(len(candles) * (1 - plan.holdout))), plan)  # the unseen part decides nothing
    found = examples_of(candles, plan.horizon, cost_bp)
    seen = int(len(found.is_up) * (1 - plan.holdout)) - plan.horizon
    if seen < LEAST_ROWS:
        raise InputError("candles", f"{len(found.is_up)} usable ones", f"{LEAST_ROWS} or more before the newest {plan.holdout:.0%}", "backfill more history")
    unseen = slice(seen + plan.horizon, len(found.is_up))
    labels = [found.is_up] if cost_bp == 0 else [found.is_up, found.is_down]
    for label in labels:
        if not (label[:seen].any() and label[unseen].any()):
            raise InputError("cost_bp", cost_bp, "less than the moves of these candles", "give a lower cost or a longer horizon")
    # A feature that this series hardly has (volume at some brokers) is left out of its model.
    places = [place for place, column in enumerate(found.rows[:seen].T) if np.isnan(column).mean() < 0.5]
    rows, steps = found.rows[:seen, places], len(labels) * (plan.folds + 1)
    sides = [_learn(rows, label[:seen], plan, _part_of(progress, place * (plan.folds + 1), steps)) for place, label in enumerate(labels)]
    up = sides[0]
    fall = None if cost_bp == 0 else Fall(sides[1].base, sides[1].slope, sides[1].shift, sides[1].trees)
    model = Model(tuple(features.NAMES[place] for place in places), plan.horizon, up.base, up.slope, up.shift, _deciles(rows), up.trees, about | {
        "trained_from": isoformat(int(found.ts_us[0])), "trained_to": isoformat(int(found.ts_us[seen - 1])),
        "unseen_from": isoformat(int(found.ts_us[unseen.start])), "unseen_to": isoformat(int(found.ts_us[-1])),
        "plan": {"horizon": plan.horizon, "folds": plan.folds, "holdout": plan.holdout, "trees": plan.trees, "cost_bp": cost_bp},
        "examples": seen}, fall, cost_bp)
    fresh = found.rows[unseen][:, places]
    said = [model.probabilities(fresh), model.falls(fresh)]
    report: dict[str, Any] = {"versions": _versions(), "cost_bp": cost_bp, "cost_from": cost_from,
                              "net": net_of(said[0], said[1], found.moves[unseen], cost_bp, plan.horizon)}
    for name, side, label, judged in zip(("", "_fall"), sides, labels, said, strict=False):
        base_rate = float(label[:seen].mean())
        report |= {
            f"unseen{name}": report_of(judged, label[unseen], base_rate, plan.horizon),
            f"walk_forward{name}": report_of(side.walked, side.came, base_rate, plan.horizon),
            f"base_rate{name}": base_rate, f"stated_error{name}": stated_error(side.walked, side.came, len(found.is_up) - unseen.start)}
    model.about["report"] = report
    model.about["verdict"] = verdict_of(report)
    progress(steps, steps)
    return model


def _part_of(progress: Progress, first: int, steps: int) -> Callable[[int], None]:
    return lambda done: progress(first + done, steps)


def _learn(rows: Floats, label: NDArray[np.bool_], plan: Plan, progress: Callable[[int], None]) -> Learned:
    """Walk forward, calibrate on what came of it, and grow the trees that are kept on all rows."""
    logits, labels = [], []
    for done, (learn, judge) in enumerate(splits(len(label), plan.folds, plan.horizon)):
        progress(done)
        base, trees = _grow(rows[learn], label[learn], plan)
        logits.append(logits_of(base, trees, rows[judge]))
        labels.append(label[judge])
    came = np.concatenate(labels)
    slope, shift = _calibrate(np.concatenate(logits), came)
    progress(plan.folds)
    base, trees = _grow(rows, label, plan)
    return Learned(base, trees, slope, shift, logistic(slope * np.concatenate(logits) + shift), came)


def net_of(up: Floats, down: Floats, moves: Floats, cost_bp: float, block: int) -> dict[str, Any]:
    """Return what trading the surer side would have earned, in basis points a trade with the costs taken off.

    A trade is a candle at which one side is likelier than not to earn its costs; `always_buy_bp` is a buy at each candle. The 95 % interval is
    a bootstrap of blocks, as in `report_of`; None where there was no trade.
    """
    taken = np.maximum(up, down) > 0.5
    gains = np.where(up >= down, moves, -moves) - cost_bp
    out: dict[str, Any] = {"trades": int(taken.sum()), "always_buy_bp": float(moves.mean() - cost_bp),
                           "gain_bp": None, "gain_low_bp": None, "gain_high_bp": None, "won": None}
    if not taken.any():
        return out
    means = [float(gains[take][taken[take]].mean()) for take in _blocks(len(moves), block) if taken[take].any()]
    low, high = np.quantile(means, [0.025, 0.975])
    return out | {"gain_bp": float(gains[taken].mean()), "gain_low_bp": float(low), "gain_high_bp": float(high),
                  "won": float((gains[taken] > 0).mean())}


def _blocks(count: int, block: int) -> Iterator[NDArray[np.int64]]:
    """Yield draws of whole blocks of rows, with the same seed each time."""
    random, length = np.random.default_rng(_SEED), max(block, 24)
    starts = np.arange(0, count, length)
    for _ in range(_DRAWS):
        yield np.concatenate([np.arange(start, min(start + length, count)) for start in random.choice(starts, len(starts))])


def report_of(probability: Floats, is_up: NDArray[np.bool_], base_rate: float, block: int) -> dict[str, Any]:
    """Return how good probabilities are: losses, calibration, hits, each gain over the base rate with a 95 % interval.

    Intervals are by a bootstrap of blocks: labels that look ahead overlap, so single rows would be counted too often.
    """
    loss, plain = _log_loss(probability, is_up), _log_loss(np.full(len(is_up), base_rate), is_up)
    gain = plain - loss
    gains, errors = [], []
    for take in _blocks(len(is_up), block):
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


def verdict_of(report: dict[str, Any]) -> str:
    """Return one line for a person: whether it beats the base rate on unseen candles, its calibration, and what is left after costs."""
    sides = [(report[f"unseen{name}"], report[f"stated_error{name}"]) for name in ("", "_fall") if f"unseen{name}" in report]
    good = all(told["calibration_error"] <= stated for told, stated in sides)
    calibrated = f"{'calibrated' if good else 'NOT calibrated'} within its stated error"
    weakest = min((told for told, _ in sides), key=lambda told: float(told["gain_low"]))
    if weakest["gain_low"] > 0:
        said = f"beats the base rate on unseen candles; {calibrated}"
    else:
        said = (f"does NOT beat the base rate on unseen candles (gain {weakest['gain']:.5f}, 95 % {weakest['gain_low']:.5f} to"
                f" {weakest['gain_high']:.5f}); {calibrated}")
    return f"{said}; {_net_line(report['net'], report['cost_bp'])}"


def _net_line(net: dict[str, Any], cost_bp: float) -> str:
    if not net["trades"]:
        return f"no unseen candle promised more than its costs of {cost_bp:g} bp"
    earned = "earned" if net["gain_low_bp"] > 0 else "did NOT surely earn"
    return (f"its surer side {earned} more than costs of {cost_bp:g} bp: {net['gain_bp']:.2f} bp a trade net"
            f" (95 % {net['gain_low_bp']:.2f} to {net['gain_high_bp']:.2f}, {net['trades']} trades)")


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

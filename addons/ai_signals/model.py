"""A trained model as plain numbers: trees, calibration, and the distribution of what it was trained on.

The file is JSON and nothing in it is run, so that a model from elsewhere can do no more than be wrong. Its name is its SHA-256.
Using a model takes numpy alone; only training needs scikit-learn.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from core.errors import InputError

FORMAT: Final = 2
PLAIN: Final = 1  # a model without costs: who does not rise falls; all files of before are of it
_FIELDS: Final = ("feature", "threshold", "missing_left", "left", "right", "value", "is_leaf")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tree:
    """A decision tree as columns, one row for each node; node 0 is the root. Rows at or below `threshold` go left."""

    feature: list[int]
    threshold: list[float]
    missing_left: list[bool]
    left: list[int]
    right: list[int]
    value: list[float]
    is_leaf: list[bool]

    def predict(self, rows: Floats) -> Floats:
        """Return the value of the leaf that each row of features ends in."""
        feature, threshold = np.array(self.feature), np.array(self.threshold)
        missing_left, left, right = np.array(self.missing_left), np.array(self.left), np.array(self.right)
        is_leaf, node = np.array(self.is_leaf), np.zeros(len(rows), dtype=np.int64)
        while not (done := is_leaf[node]).all():
            at = np.flatnonzero(~done)
            here = node[at]
            value = rows[at, feature[here]]
            goes_left = np.where(np.isnan(value), missing_left[here], value <= threshold[here])
            node[at] = np.where(goes_left, left[here], right[here])
        out: Floats = np.array(self.value)[node]
        return out


@dataclass(frozen=True, slots=True)
class Fall:
    """What says how likely the close is lower by more than the costs; fields as in `Model`."""

    base: float
    slope: float
    shift: float
    trees: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What says how likely the close is higher `horizon` candles later, by more than a trade costs, and how likely lower.

    Attributes:
        features: names, in the order of the columns.
        horizon: candles ahead.
        base: the logit before any tree.
        slope, shift: the calibration: probability = logistic(slope * logit + shift).
        edges: for each feature the deciles of its training values, without the ends.
        trees: their values add up.
        about: series, range, versions, and the report of its training.
        fall: the other side's trees; None where nothing is costed: then whatever does not rise falls.
        cost_bp: what a trade there and back costs, in basis points of the price.
    """

    features: tuple[str, ...]
    horizon: int
    base: float
    slope: float
    shift: float
    edges: tuple[tuple[float, ...], ...]
    trees: tuple[Tree, ...]
    about: dict[str, Any]
    fall: Fall | None = None
    cost_bp: float = 0.0

    def logits(self, rows: Floats) -> Floats:
        """Return what the trees say, before calibration."""
        return logits_of(self.base, self.trees, rows)

    def probabilities(self, rows: Floats) -> Floats:
        """Return the calibrated probability, 0..1, of a close that is higher by more than the costs, for each row of features."""
        return logistic(self.slope * self.logits(rows) + self.shift)

    def falls(self, rows: Floats) -> Floats:
        """Return the calibrated probability, 0..1, of a close that is lower by more than the costs, for each row of features."""
        if self.fall is None:
            return 1.0 - self.probabilities(rows)
        return logistic(self.fall.slope * logits_of(self.fall.base, self.fall.trees, rows) + self.fall.shift)

    def drift(self, rows: Floats) -> dict[str, float]:
        """Return the population stability index of each feature: 0 as in training, above 0.25 another world."""
        return {name: stability(rows[:, place], self.edges[place]) for place, name in enumerate(self.features)}

    def to_bytes(self) -> bytes:
        """Return the file's content; the same model gives the same bytes."""
        values = asdict(self)
        if self.fall is None:
            del values["fall"], values["cost_bp"]
        return orjson.dumps({"format": PLAIN if self.fall is None else FORMAT, **values}, option=orjson.OPT_SORT_KEYS)

    @property
    def digest(self) -> str:
        """The SHA-256 of the file: the model's name."""
        return digest_of(self.to_bytes())


def logits_of(base: float, trees: tuple[Tree, ...], rows: Floats) -> Floats:
    """Return what trees say of rows of features, before calibration."""
    out = np.full(len(rows), base)
    for tree in trees:
        out += tree.predict(rows)
    return out


def digest_of(content: bytes) -> str:
    """Return the SHA-256 under which a model file is known."""
    return hashlib.sha256(content).hexdigest()


def read_model(content: bytes, digest: str) -> Model:
    """Return the model of a file.

    Raises:
        InputError: its content is not that of the digest, or no model that this version can read.
    """
    if digest_of(content) != digest:
        raise InputError("model file", digest_of(content)[:12], f"the file of digest {digest[:12]}", "restore it, or train the model again")
    values = orjson.loads(content)
    if values.pop("format", None) not in {PLAIN, FORMAT}:
        raise InputError("model file", "another format", f"format {PLAIN} or {FORMAT}", "train the model again with this version")
    fall = values.pop("fall", None)
    if fall is not None:
        fall = Fall(fall["base"], fall["slope"], fall["shift"], _trees(fall["trees"]))
    return Model(trees=_trees(values.pop("trees")), fall=fall, features=tuple(values.pop("features")), edges=tuple(tuple(row) for row in values.pop("edges")), **values)


def _trees(values: list[dict[str, Any]]) -> tuple[Tree, ...]:
    return tuple(Tree(**{name: tree[name] for name in _FIELDS}) for tree in values)


def logistic(value: Floats) -> Floats:
    """Return 1 / (1 + exp(-value))."""
    out: Floats = 1.0 / (1.0 + np.exp(-np.clip(value, -40.0, 40.0)))
    return out


def stability(values: Floats, edges: tuple[float, ...]) -> float:
    """Return the population stability index of values against deciles of a training set; NaN values are left out."""
    known = values[~np.isnan(values)]
    if not len(known) or len(edges) < 2:
        return 0.0
    counts = np.bincount(np.searchsorted(np.array(edges), known, side="left"), minlength=len(edges) + 1)
    share = np.maximum(counts / len(known), 1e-3)
    expected = 1.0 / (len(edges) + 1)
    return float(np.sum((share - expected) * np.log(share / expected)))

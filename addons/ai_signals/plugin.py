"""The confidence evaluator `ai_confidence` and the signal generator `ai_signal`: what a trained model says of the newest candle."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Final

import orjson
import polars as pl
from pydantic import Field

from addons.ai_signals import features
from addons.ai_signals.model import Model, read_model
from core.errors import InputError
from core.settings import settings
from pipeline.stages import CONFIDENCE_MAX, Context, Kind, Resources, Signal
from pipeline.stages import Parameters as Base

RESOURCE: Final = "ai_model"


class ModelParameters(Base):
    """Which model. `version` and `digest` are filled in when the definition is saved: the version keeps what it ran."""

    model: str = Field(min_length=1, max_length=63, description="Name of a trained model; `candlelake models list` shows them.")
    version: int | None = Field(None, ge=1, description="Its version; the newest when empty.")
    digest: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="Its file; filled in.")
    drift_window: int = Field(500, ge=100, le=10_000, description="So many candles up to this one are compared with those of the training.")
    drift_limit: float = Field(0.5, gt=0, le=100, description="Population stability index above which a feature has drifted.")
    drift_features: int = Field(4, ge=1, le=100, description="So many drifted features are too many.")


class _Modelled:
    """What both plug-ins share: the model, and when it refuses to speak."""

    is_causal: ClassVar[bool] = True

    def __init__(self, parameters: ModelParameters) -> None:
        if parameters.digest is None:
            raise InputError("model", parameters.model, "a definition that was stored", "its stored version names the file")
        self.parameters = parameters
        self.model: Model = load_model(settings().home, parameters.digest)

    @classmethod
    def freeze(cls, parameters: dict[str, Any], owner: str, resources: Resources) -> dict[str, Any]:
        """Return the parameters with version and digest of the model as it is now."""
        name, version = parameters.get("model"), parameters.get("version")
        if not isinstance(name, str):
            return parameters
        found = orjson.loads(resources.read(RESOURCE, owner, name if version is None else f"{name}@{version}"))
        return {**parameters, "version": found["version"], "digest": found["digest"]}

    def sides(self, frame: pl.DataFrame) -> tuple[float, float]:
        """Return the calibrated probabilities that the close is higher and that it is lower after the model's horizon, by more than costs.

        Raises:
            InputError: features are missing or have drifted; they are named.
        """
        rows = features.compute(frame, self.model.features)
        newest = rows[-1]
        missing = [name for name, value in zip(self.model.features, newest, strict=True) if value != value and name not in features.OPTIONAL]  # noqa: PLR0124  NaN
        if missing:
            raise InputError("features", f"no value for {', '.join(missing)}", "candles with all of them",
                             f"give the pipeline a lookback of {features.WARM_UP} or more, and look at the candles")
        wanted = self.parameters
        drifted = {name: value for name, value in self.model.drift(rows[-wanted.drift_window:]).items()
                   if value > wanted.drift_limit and not name.startswith("hour_")}
        if len(drifted) >= wanted.drift_features:
            named = ", ".join(f"{name} {value:.2f}" for name, value in sorted(drifted.items()))
            raise InputError("features", f"drifted: {named}", f"fewer than {wanted.drift_features} above {wanted.drift_limit:g}", "train the model again")
        return float(self.model.probabilities(rows[-1:])[0]), float(self.model.falls(rows[-1:])[0])


class AiConfidence(_Modelled):
    """How likely the signal's side earns more than it costs, in percent: the model's calibrated probability."""

    kind: ClassVar[Kind] = "confidence"
    Parameters: ClassVar[type[ModelParameters]] = ModelParameters

    def evaluate(self, signal: Signal, frame: pl.DataFrame, context: Context) -> float:  # noqa: ARG002  the protocol's
        """Return the probability of the signal's side, 0..100; 0 while the series is too young for the features to have settled."""
        if len(frame) < features.WARM_UP:
            return 0.0
        up, down = self.sides(frame)
        return CONFIDENCE_MAX * (up if signal.side == "buy" else down)


class AiSignal(_Modelled):
    """A buy where a close that is higher by more than the costs is likely enough, a sell where a lower one is."""

    kind: ClassVar[Kind] = "signal"

    class Parameters(ModelParameters):
        """Which model, and how sure it has to be."""

        level: float = Field(0.55, gt=0.5, lt=1, description="Probability from which on it speaks.")

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._level = parameters.level

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:  # noqa: ARG002  the protocol's
        """Return a signal when the probability of a side reaches the level."""
        if len(frame) < features.WARM_UP:
            return None
        up, down = self.sides(frame)
        if max(up, down) < self._level:
            return None
        net = f", net of {self.model.cost_bp:g} bp" if self.model.cost_bp else ""
        return Signal("buy" if up >= down else "sell", f"{max(up, down):.1%} likely after {self.model.horizon} candles{net}")


def model_path(home: Path, digest: str) -> Path:
    """Return where a model's file lies."""
    return home / "models" / f"{digest}.json"


def load_model(home: Path, digest: str) -> Model:
    """Return a model by its digest.

    Raises:
        InputError: there is no such file, or its content is another.
    """
    try:
        content = model_path(home, digest).read_bytes()
    except FileNotFoundError:
        raise InputError("model file", digest[:12], "one that is there", "restore it, or train the model again") from None
    return read_model(content, digest)

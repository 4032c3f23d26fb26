"""The filter plug-in `filter_strategy`: passes candles on which a person's expression holds."""

from __future__ import annotations

from typing import Any, ClassVar

import polars as pl
from pydantic import Field, field_validator, model_validator

from addons.filter_strategy.compiler import CompiledFilter
from core.errors import InputError
from pipeline.stages import Context, Kind, Resources
from pipeline.stages import Parameters as Base


class FilterStrategy:
    """Passes candles on which its expression holds."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """The expression itself, or the name of a stored one; the version that is stored has both."""

        expression: str | None = Field(None, max_length=2_000, description="A condition, e.g. rsi(14) < 30.")
        strategy: str | None = Field(None, max_length=63, description="Name of a stored filter of the pipeline's owner.")

        @field_validator("expression")
        @classmethod
        def _compiles(cls, value: str | None) -> str | None:
            try:
                return value if value is None else CompiledFilter(value).text
            except InputError as error:
                raise ValueError(str(error)) from None

        @model_validator(mode="after")
        def _has_one(self) -> FilterStrategy.Parameters:
            if self.expression is None and self.strategy is None:
                raise ValueError("expression or strategy: give one of them")
            return self

    def __init__(self, parameters: Parameters) -> None:
        if parameters.expression is None:
            raise InputError("expression", parameters.strategy, "a definition that was stored", "its stored version has the text")
        self.parameters = parameters
        self._compiled = CompiledFilter(parameters.expression)

    @classmethod
    def freeze(cls, parameters: dict[str, Any], owner: str, resources: Resources) -> dict[str, Any]:
        """Return the parameters with the stored filter's text, so that a version keeps what it ran."""
        name = parameters.get("strategy")
        if not isinstance(name, str):
            return parameters
        return {**parameters, "expression": resources.read("filter_strategy", owner, name)}

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return which rows the expression holds on."""
        return self._compiled.run(frame)

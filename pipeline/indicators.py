"""The indicators that come with the house: every function of TA-Lib, by its name."""

from __future__ import annotations

from typing import ClassVar, Self

import polars as pl
from pydantic import Field, model_validator

from core.errors import InputError
from pipeline import talib_call
from pipeline.stages import Context, Kind
from pipeline.stages import Parameters as Base


class TaLib:
    """A TA-Lib function. Its column is the name it has in the definition; of several outputs each is NAME_OUTPUT."""

    kind: ClassVar[Kind] = "indicator"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """Which function, on which columns, with which parameters of its own."""

        function: str = Field(description="TA-Lib's name, e.g. EMA, RSI, BBANDS, CDLDOJI.")
        inputs: tuple[str, ...] = Field(
            default=(), max_length=5,
            description="Columns to work on, also of indicators before it; empty: TA-Lib's own (close; high, low, close; ...).")
        options: dict[str, float] = Field(default_factory=dict, description="TA-Lib's parameters, e.g. timeperiod: 14.")

        @model_validator(mode="after")
        def _fits(self) -> TaLib.Parameters:
            try:
                expected = talib_call.default_inputs(self.function)
                talib_call.checked(self.function, self.options)
            except InputError as error:
                raise ValueError(str(error)) from None
            wanted = self.inputs or expected
            if len(wanted) != len(expected) or not all(wanted):
                raise ValueError(f"{self.function} takes {len(expected)} inputs; name a column for each")
            return self

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._inputs = parameters.inputs or talib_call.default_inputs(parameters.function)
        self._options = talib_call.checked(parameters.function, parameters.options)
        self._outputs = talib_call.output_names(parameters.function)
        self._label = parameters.function.lower()

    def bind(self, label: str) -> Self:
        """Take the name that the definition gives it."""
        self._label = label
        return self

    @property
    def columns(self) -> list[str]:
        """The names of its columns."""
        if len(self._outputs) == 1:
            return [self._label]
        return [f"{self._label}_{name}" for name in self._outputs]

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return the function's outputs; null where it has no value yet, or where an input is missing."""
        for name in self._inputs:
            if name not in frame.columns:
                raise InputError(f"input of {self._label}", name, frame.columns, "put the indicator that makes it before this one")
        outputs = talib_call.call(self.parameters.function, frame, self._inputs, self._options)
        return pl.DataFrame([series.alias(name) for series, name in zip(outputs, self.columns, strict=True)])

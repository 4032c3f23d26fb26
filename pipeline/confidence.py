"""The confidence evaluator that comes with the house: a weighted mean of what columns say."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, model_validator

from core.errors import InputError
from pipeline.stages import CONFIDENCE_MAX, FOUND_SCHEMA, NUMBERS, Context, Kind, Signal
from pipeline.stages import Parameters as Base


class Component(Base):
    """One column's say: a value at `low` gives 0, at `high` 100, between them in proportion; `high` may lie below `low`."""

    column: str = Field(min_length=1, description="An indicator's column, or one of the candles'.")
    low: float = Field(description="The value that gives 0.")
    high: float = Field(description="The value that gives 100.")
    weight: float = Field(1.0, gt=0, le=1_000, description="Its share in the mean.")
    sell: Literal["mirror", "same"] = Field("mirror", description="For a sell: 100 minus it, or the same as for a buy.")

    @model_validator(mode="after")
    def _spans(self) -> Component:
        if self.low == self.high:
            raise ValueError("low and high must differ")
        return self


class Weighted:
    """The weighted mean of its components' scores; a column without a value scores 0, for either side."""

    kind: ClassVar[Kind] = "confidence"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """What is weighed."""

        components: tuple[Component, ...] = Field(min_length=1, max_length=64, description="The columns, each with its scale and weight.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def evaluate(self, signal: Signal, frame: pl.DataFrame, context: Context) -> float:
        """Return the confidence in a signal on the last row."""
        found = pl.DataFrame({"row": [0], "side": [NUMBERS[signal.side]], "reason": [signal.reason]}, schema=FOUND_SCHEMA)
        return float(self.evaluate_all(found, frame.tail(1), context)[0])

    def evaluate_all(self, found: pl.DataFrame, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return the confidence in each found signal."""
        total = sum(part.weight for part in self.parameters.components)
        is_sell = found["side"] < 0
        out = pl.repeat(0.0, len(found), dtype=pl.Float64, eager=True)
        for part in self.parameters.components:
            if part.column not in frame.columns:
                raise InputError("column", part.column, frame.columns, "add an indicator of that name")
            value = frame[part.column].cast(pl.Float64).gather(found["row"])
            score = ((value - part.low) / (part.high - part.low) * CONFIDENCE_MAX).clip(0.0, CONFIDENCE_MAX)
            if part.sell == "mirror":
                score = pl.select(pl.when(is_sell).then(CONFIDENCE_MAX - score).otherwise(score)).to_series()
            known = value.is_finite().fill_null(value=False)
            score = pl.select(pl.when(known).then(score).otherwise(0.0)).to_series()
            out += score * part.weight
        return (out / total).clip(0.0, CONFIDENCE_MAX).alias("confidence")

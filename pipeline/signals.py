"""Signal generators that come with the house: one line crosses another, a price leaves its range."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from core.errors import InputError
from pipeline.stages import SIDES, Context, Kind, Signal
from pipeline.stages import Parameters as Base

_NONE: Final = np.empty(0, dtype=np.int64)


class Crossover:
    """A buy when `fast` rises above `slow`, a sell when it falls below."""

    kind: ClassVar[Kind] = "signal"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """Which lines."""

        fast: str = Field(min_length=1, description="A column: an indicator's, or one of the candles'.")
        slow: str | float = Field(description="The column or the level that it crosses.")
        buy: bool = Field(True, description="Whether rising above is a buy.")
        sell: bool = Field(True, description="Whether falling below is a sell.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._up = f"{parameters.fast} rose above {parameters.slow}"
        self._down = f"{parameters.fast} fell below {parameters.slow}"

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:
        """Return what the last row did against the row before it."""
        return _last(self.generate_all(frame.tail(2), context), min(len(frame), 2))

    def generate_all(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return every crossing."""
        wanted = self.parameters
        _need(frame, [wanted.fast, wanted.slow])
        slow = frame[wanted.slow].to_numpy() if isinstance(wanted.slow, str) else wanted.slow
        difference = frame[wanted.fast].to_numpy() - slow  # a missing value is NaN, and compares as untrue
        now, before = difference[1:], difference[:-1]
        up = np.flatnonzero((now > 0) & (before <= 0)) + 1 if wanted.buy else _NONE
        down = np.flatnonzero((now < 0) & (before >= 0)) + 1 if wanted.sell else _NONE
        return _found(up, down, self._up, self._down)


class Breakout:
    """A buy when a candle closes above the highest high of the candles before it, a sell when below their lowest low."""

    kind: ClassVar[Kind] = "signal"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """Out of which range."""

        window: int = Field(20, ge=1, le=10_000, description="How many candles before it make the range.")
        buffer: float = Field(0.0, ge=0, le=1, description="How far beyond, as a share of the bound.")
        fresh: bool = Field(True, description="Only the first candle that closes outside, not those that stay there.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._up = f"closed above the high of {parameters.window} candles"
        self._down = f"closed below the low of {parameters.window} candles"

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:
        """Return what the last row did against the rows before it."""
        count = min(len(frame), self.parameters.window + 2)
        return _last(self.generate_all(frame.tail(count), context), count)

    def generate_all(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return every breakout."""
        wanted = self.parameters
        upper = pl.col("high").shift(1).rolling_max(wanted.window) * (1 + wanted.buffer)
        lower = pl.col("low").shift(1).rolling_min(wanted.window) * (1 - wanted.buffer)
        outside = frame.select(up=pl.col("close") > upper, down=pl.col("close") < lower)
        up, down = outside["up"], outside["down"]
        if wanted.fresh:
            up &= ~up.shift(1).fill_null(value=False)
            down &= ~down.shift(1).fill_null(value=False)
        return _found(up.fill_null(value=False).to_numpy().nonzero()[0], down.fill_null(value=False).to_numpy().nonzero()[0], self._up, self._down)


def _need(frame: pl.DataFrame, names: list[str | float]) -> None:
    for name in names:
        if isinstance(name, str) and name not in frame.columns:
            raise InputError("column", name, frame.columns, "add an indicator of that name")


def _found(up: NDArray[np.int64], down: NDArray[np.int64], rose: str, fell: str) -> pl.DataFrame:
    rows = np.concatenate([up, down])
    order = np.argsort(rows, kind="stable")
    is_up = (np.arange(len(rows)) < len(up))[order]
    return pl.DataFrame({
        "row": pl.Series(rows[order].astype(np.uint32)), "side": pl.Series(np.where(is_up, 1, -1).astype(np.int8)),
        "reason": pl.Series([rose if one else fell for one in is_up.tolist()], dtype=pl.String)})


def _last(found: pl.DataFrame, height: int) -> Signal | None:
    if not len(found) or found["row"][-1] != height - 1:
        return None
    _, side, reason = found.row(-1)
    return Signal(SIDES[side], reason)

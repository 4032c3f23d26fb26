"""Signal generators that come with the house: one line crosses another, a price leaves its range."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from core.errors import InputError
from pipeline.stages import FOUND_SCHEMA, SIDES, Context, Kind, Signal
from pipeline.stages import Parameters as Base


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
        slow = parameters.slow
        self._difference = pl.col(parameters.fast) - (pl.col(slow) if isinstance(slow, str) else slow)
        self._up, self._down = f"{parameters.fast} rose above {slow}", f"{parameters.fast} fell below {slow}"

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:
        """Return what the last row did against the row before it."""
        return _last(self.generate_all(frame.tail(2), context), min(len(frame), 2))

    def generate_all(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return every crossing."""
        wanted = self.parameters
        _need(frame, [wanted.fast, wanted.slow])
        now = frame.select(value=self._difference)["value"]
        before = now.shift(1)
        up = (now > 0) & (before <= 0) if wanted.buy else None
        down = (now < 0) & (before >= 0) if wanted.sell else None
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
        return _found(up, down, self._up, self._down)


def _need(frame: pl.DataFrame, names: list[str | float]) -> None:
    for name in names:
        if isinstance(name, str) and name not in frame.columns:
            raise InputError("column", name, frame.columns, "add an indicator of that name")


def _found(up: pl.Series | None, down: pl.Series | None, rose: str, fell: str) -> pl.DataFrame:
    parts = [
        pl.DataFrame({"row": rows}, schema={"row": pl.UInt32}).with_columns(
            pl.lit(side, pl.Int8).alias("side"), pl.lit(reason, pl.String).alias("reason"))
        for rows, side, reason in (
            (None if up is None else up.fill_null(value=False).arg_true(), 1, rose),
            (None if down is None else down.fill_null(value=False).arg_true(), -1, fell)) if rows is not None]
    if not parts:
        return pl.DataFrame(schema=FOUND_SCHEMA)
    return pl.concat(parts).sort("row")


def _last(found: pl.DataFrame, height: int) -> Signal | None:
    if not len(found) or found["row"][-1] != height - 1:
        return None
    _, side, reason = found.row(-1)
    return Signal(SIDES[side], reason)

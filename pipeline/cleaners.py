"""Cleaners that come with the house. They leave candles out of what the pipeline sees; the store keeps every one."""

from __future__ import annotations

from typing import ClassVar

import polars as pl
from pydantic import Field

from pipeline.stages import Context, Kind
from pipeline.stages import Parameters as Base

MAD_TO_SIGMA = 1.4826  # of a normal distribution
_PRICES = ("open", "high", "low", "close")


class OhlcSanity:
    """Leaves out candles whose values contradict each other, or whose range cannot be true."""

    kind: ClassVar[Kind] = "cleaner"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """What counts as sane."""

        max_range: float | None = Field(None, gt=0, le=100, description="Greatest high minus low, as a share of the close.")
        keep_zero_volume: bool = Field(True, description="Keep candles without volume: a provider may count none.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def clean(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return the sane rows."""
        sane = pl.all_horizontal(pl.col(name).is_finite() & (pl.col(name) > 0) for name in _PRICES)
        sane &= (pl.col("high") >= pl.max_horizontal("open", "close", "low")) & (pl.col("low") <= pl.min_horizontal("open", "close"))
        sane &= pl.col("volume") >= 0 if self.parameters.keep_zero_volume else pl.col("volume") > 0
        if self.parameters.max_range is not None:
            sane &= (pl.col("high") - pl.col("low")) <= self.parameters.max_range * pl.col("close")
        return frame.filter(sane)


class Outliers:
    """Leaves out candles that lie far from the candles before them: ticks that never traded.

    A candle is compared with the median of the `window` candles before it, in units of their median deviation. A price that
    stays at its new level is no outlier: after `confirm` candles on the same side the level is taken as true.
    """

    kind: ClassVar[Kind] = "cleaner"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """How far is too far."""

        window: int = Field(60, ge=5, le=10_000, description="How many candles before it a candle is compared with.")
        limit: float = Field(12.0, gt=0, le=1_000, description="Greatest distance from their median, in standard deviations.")
        least_move: float = Field(
            0.002, ge=0, le=1, description="Distances below this share of the price are never outliers: a quiet market has no scale.")
        confirm: int = Field(3, ge=1, le=100, description="After so many outliers in a row on one side they are kept.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._least = max(5, parameters.window // 2)  # fewer candles have no scale to judge by

    def clean(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:  # noqa: ARG002  the protocol's
        """Return the rows that are no outliers."""
        wanted = self.parameters
        before = pl.col("close").shift(1)
        middle = before.rolling_median(wanted.window, min_samples=self._least)
        judged = frame.select("high", "low", middle=middle, deviation=(before - middle).abs())
        spread = pl.col("deviation").rolling_median(wanted.window, min_samples=self._least) * MAD_TO_SIGMA
        least = pl.col("middle") * wanted.least_move
        allowed = pl.when(spread.is_not_null()).then(pl.max_horizontal(spread * wanted.limit, least))
        side = (
            pl.when(pl.col("high") > pl.col("middle") + allowed).then(1)
            .when(pl.col("low") < pl.col("middle") - allowed).then(-1).otherwise(0).fill_null(0))
        sides = judged.select(side=side)["side"]
        place = sides.rle_id()
        nth = pl.DataFrame([place.alias("run")]).select(pl.int_range(1, pl.len() + 1).over("run"))["literal"]
        return frame.filter((sides == 0) | (nth > wanted.confirm))

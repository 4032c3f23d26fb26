"""Plug-ins that know more than their candles, each by another way; and one that looks at all it gets, and may."""

from typing import ClassVar

import polars as pl

from pipeline.stages import Context, Parameters, Signal
from storage import open_lake


class _Indicator:
    kind: ClassVar = "indicator"
    is_causal: ClassVar[bool] = True
    Parameters = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters


class Centred(_Indicator):
    """Averages over candles on both sides."""

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.select(x=pl.col("close").rolling_mean(5, center=True) - pl.col("close"))


class Counting(_Indicator):
    """Turns with the number of its rows."""

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.select(x=pl.col("close").pct_change() * (1.0 if len(frame) % 2 else -1.0))


class Fitted(_Indicator):
    """Scales by the first frame that it ever got."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self.mean: float | None = None

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        self.mean = self.mean or frame["close"].mean()
        return frame.select(x=pl.col("close") - self.mean)


class Remembering(_Indicator):
    """Keeps in its class what it once saw after a candle."""

    known: ClassVar[dict] = {}

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        seen = frame.select("ts", x=(pl.col("close").shift(-1) - pl.col("close")).fill_null(0.0))
        for ts, value in seen.iter_rows():
            self.known.setdefault(ts, value)
        return pl.DataFrame({"x": [self.known[ts] for ts in frame["ts"]]})


class Reading(_Indicator):
    """Reads the next close in the lake."""

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        lake = open_lake()
        stored = lake.candles(context.series.connection, context.series.symbol, context.series.timeframe)
        lake.close()
        later = stored.select("ts", x=pl.col("close").shift(-1) - pl.col("close"))
        return frame.select("ts").join(later, on="ts", how="left").select("x")


class Dropping(_Indicator):
    """A cleaner that leaves out candles after which the price falls."""

    kind: ClassVar = "cleaner"

    def clean(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.filter((pl.col("close").shift(-1) >= pl.col("close")).fill_null(value=True))


class Sure(_Indicator):
    """Confident where it sees that the price will rise."""

    kind: ClassVar = "confidence"

    def evaluate(self, signal: Signal, frame: pl.DataFrame, context: Context) -> float:
        return 50.0

    def evaluate_all(self, found: pl.DataFrame, frame: pl.DataFrame, context: Context) -> pl.Series:
        rises = frame.select(rises=pl.col("close").shift(-1) > pl.col("close"))["rises"].gather(found["row"])
        return rises.cast(pl.Float64).fill_null(0.5) * 100


class Whole(_Indicator):
    """Scales by all that it gets, and says that it must not get more."""

    is_causal: ClassVar[bool] = False

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.select(x=(pl.col("close") - pl.col("close").mean()) / pl.col("close").std())


CHEATS = {name: f"tests.pipeline.cheats:{name}" for name in (
    "Centred", "Counting", "Fitted", "Remembering", "Reading", "Dropping", "Sure", "Whole")}

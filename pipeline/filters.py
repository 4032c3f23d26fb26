"""Filters that come with the house: on which candles a signal may arise."""

from __future__ import annotations

from typing import ClassVar, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl
from pydantic import Field, field_validator, model_validator

from core.errors import InputError
from core.timeframe import Timeframe
from pipeline.stages import Context, Kind
from pipeline.stages import Parameters as Base
from pipeline.talib_call import call

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIME = r"^([01]\d|2[0-3]):[0-5]\d$"


class Session:
    """Passes candles that open within a session: hours of a place on days of the week."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """When the session is."""

        start: str = Field("00:00", pattern=_TIME, description="First minute, HH:MM on the wall clock of `timezone`.")
        end: str = Field("00:00", pattern=_TIME, description="Where it ends (exclusive); the same as start is the whole day.")
        timezone: str = Field("UTC", description="Name of a time zone, e.g. Europe/London.")
        days: tuple[Day, ...] = Field(DAYS, min_length=1, description="Days on which the session begins.")

        @field_validator("timezone")
        @classmethod
        def _is_known(cls, value: str) -> str:
            try:
                ZoneInfo(value)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                raise ValueError("a time zone of the IANA database, e.g. Europe/London") from None
            return value

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self._start, self._end = (60 * int(text[:2]) + int(text[3:]) for text in (parameters.start, parameters.end))
        self._days = [DAYS.index(day) + 1 for day in parameters.days]

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return which rows open in the session."""
        local = pl.col("ts").dt.convert_time_zone(self.parameters.timezone)
        minute = local.dt.hour().cast(pl.Int32) * 60 + local.dt.minute().cast(pl.Int32)
        since = (minute - self._start) % 1440
        length = (self._end - self._start) % 1440 or 1440
        # What began yesterday evening and runs past midnight belongs to yesterday's session.
        began = pl.when(minute < self._start).then((local.dt.weekday() + 5) % 7 + 1).otherwise(local.dt.weekday())
        return frame.select(passed=(since < length) & began.is_in(self._days))["passed"]


class Spread:
    """Passes candles whose spread is small enough."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """How wide a spread may be; at least one bound."""

        max: float | None = Field(None, gt=0, description="Greatest spread in price units.")
        max_share: float | None = Field(None, gt=0, le=1, description="Greatest spread as a share of the close, e.g. 0.0002.")
        missing: Literal["pass", "refuse"] = Field("refuse", description="What happens to candles without a spread.")

        @model_validator(mode="after")
        def _has_a_bound(self) -> Spread.Parameters:
            if self.max is None and self.max_share is None:
                raise ValueError("max or max_share: give at least one of them")
            return self

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return which rows have a small enough spread."""
        passed = pl.lit(value=True)
        if self.parameters.max is not None:
            passed &= pl.col("spread") <= self.parameters.max
        if self.parameters.max_share is not None:
            passed &= pl.col("spread") <= self.parameters.max_share * pl.col("close")
        return frame.select(passed=passed.fill_null(value=self.parameters.missing == "pass"))["passed"]


class Volatility:
    """Passes candles while the market moves neither too little nor too much: average true range as a share of the close."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """Between which bounds."""

        window: int = Field(14, ge=1, le=10_000, description="Candles of the average.")
        min: float = Field(0.0, ge=0, le=10, description="Least average true range, as a share of the close.")
        max: float = Field(10.0, gt=0, le=10, description="Greatest one.")

        @model_validator(mode="after")
        def _is_a_range(self) -> Volatility.Parameters:
            if self.min >= self.max:
                raise ValueError("min must lie below max")
            return self

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return which rows lie between the bounds; rows before the first average do not pass."""
        (natr,) = call("NATR", frame, ("high", "low", "close"), {"timeperiod": self.parameters.window})
        return (natr / 100.0).is_between(self.parameters.min, self.parameters.max).fill_null(value=False)


class TimeframeFilter:
    """Passes candles of some timeframes only: one definition may name series of many."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """Which ones."""

        allowed: tuple[str, ...] = Field(min_length=1, description="Timeframes, e.g. 1m, 1h.")

        @field_validator("allowed")
        @classmethod
        def _are_timeframes(cls, value: tuple[str, ...]) -> tuple[str, ...]:
            try:
                return tuple(Timeframe.parse(item).name for item in value)
            except InputError as error:
                raise ValueError(str(error)) from None

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:
        """Return True for all rows, or for none."""
        return pl.repeat(context.series.timeframe.name in self.parameters.allowed, len(frame), dtype=pl.Boolean, eager=True)


class Volume:
    """Passes candles with enough volume, absolutely or against the candles before them."""

    kind: ClassVar[Kind] = "filter"
    is_causal: ClassVar[bool] = True

    class Parameters(Base):
        """How much is enough."""

        min: float = Field(0.0, ge=0, description="Least volume, in the provider's unit.")
        min_ratio: float | None = Field(None, gt=0, description="Least volume as a multiple of the mean of the candles before it.")
        window: int = Field(20, ge=1, le=10_000, description="How many candles that mean is taken over.")

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:  # noqa: ARG002  the protocol's
        """Return which rows have enough volume."""
        passed = frame["volume"] >= self.parameters.min
        if self.parameters.min_ratio is None:
            return passed
        (mean,) = call("SMA", frame, ("volume",), {"timeperiod": self.parameters.window}) if self.parameters.window > 1 else (
            frame["volume"],)
        return passed & (frame["volume"] >= self.parameters.min_ratio * mean.shift(1)).fill_null(value=False)

"""What a model looks at: scale-free numbers made of candles up to the row itself, by TA-Lib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.errors import InputError
from pipeline import talib_call

WARM_UP: Final = 200  # rows before the first value that counts: indicators with a memory have settled by then
_RETURNS: Final = (1, 3, 6, 12, 24)


def _outputs(frame: pl.DataFrame, function: str, inputs: Sequence[str], **options: float) -> tuple[pl.Series, ...]:
    return talib_call.call(function, frame, inputs, options)


def _make(frame: pl.DataFrame) -> Mapping[str, pl.Series]:
    close, volume = frame["close"], frame["volume"].cast(pl.Float64)
    (rsi,) = _outputs(frame, "RSI", ["close"], timeperiod=14)
    (adx,) = _outputs(frame, "ADX", ["high", "low", "close"], timeperiod=14)
    (atr,) = _outputs(frame, "ATR", ["high", "low", "close"], timeperiod=14)
    (cci,) = _outputs(frame, "CCI", ["high", "low", "close"], timeperiod=20)
    slow_k, _ = _outputs(frame, "STOCH", ["high", "low", "close"])
    _, _, histogram = _outputs(frame, "MACD", ["close"])
    upper, middle, lower = _outputs(frame, "BBANDS", ["close"], timeperiod=20)
    mean_volume = volume.rolling_mean(20)
    hour = frame["ts"].dt.hour().cast(pl.Float64) * (2 * np.pi / 24)
    width = frame["high"] - frame["low"]
    made = {
        **{f"return_{n}": (close / close.shift(n)).log() / (atr / close) for n in _RETURNS},
        "rsi": rsi / 100, "adx": adx / 100, "cci": cci / 100, "stochastic": slow_k / 100, "range": atr / close,
        "macd": histogram / close, "band": (close - middle) / (upper - lower),
        "volume": volume / mean_volume, "body": (close - frame["open"]) / width, "hour_sin": hour.sin(), "hour_cos": hour.cos(),
    }
    return {name: pl.select(pl.when(values.is_finite()).then(values)).to_series() for name, values in made.items()}


NAMES: Final = (*(f"return_{n}" for n in _RETURNS), "rsi", "adx", "cci", "stochastic", "range", "macd", "band", "volume", "body",
                "hour_sin", "hour_cos")
OPTIONAL: Final = frozenset({"volume", "body"})  # no volume at some brokers, no body in a candle without a range: the trees know both


def compute(frame: pl.DataFrame, names: Sequence[str] = NAMES) -> NDArray[np.float64]:
    """Return features of candles: one row for each candle, one column for each name; NaN where there is none.

    Row i depends on candles 0..i alone.

    Raises:
        InputError: a feature that is not known here.
    """
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise InputError("feature", unknown[0], NAMES, "train the model anew with this version")
    made = _make(frame)
    return np.column_stack([made[name].fill_null(float("nan")).to_numpy() for name in names])

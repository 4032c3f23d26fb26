"""One call of a TA-Lib function on columns of a frame, with nulls and NaN handled right.

TA-Lib knows no missing values: one NaN inside spoils everything after it. Rows in which an input is missing are therefore
left out of the call and null in its answer; so are rows before the function's lookback, for which TA-Lib gives NaN, or 0
for candle patterns, which would read as "no pattern".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Final

import numpy as np
import polars as pl
import talib
from numpy.typing import NDArray
from talib import abstract

from core.errors import InputError

FUNCTIONS: Final[tuple[str, ...]] = tuple(sorted(getattr(talib, "get_functions")()))  # noqa: B009  its stubs are not typed
_PRICES: Final = ("open", "high", "low", "close", "volume")
_abstract: Final[Any] = getattr(abstract, "Function")  # noqa: B009  its stubs leave it out
_arrow: Final[Any] = import_module("pyarrow")  # not typed
_TRIAL_ROWS: Final = 32  # enough for TA-Lib to judge parameters: it looks at them before it counts rows


@cache
def describe(function: str) -> Mapping[str, Any]:
    """Return TA-Lib's own description of a function: inputs, parameters with defaults, outputs.

    Raises:
        InputError: TA-Lib has no such function.
    """
    if function not in FUNCTIONS:
        near = [name for name in FUNCTIONS if name.startswith(function[:2].upper())] or list(FUNCTIONS)
        raise InputError("function", function, near, f"one of TA-Lib's {len(FUNCTIONS)} functions, in capitals")
    info: Mapping[str, Any] = _abstract(function).info
    return info


def default_inputs(function: str) -> tuple[str, ...]:
    """Return the columns that a function takes when nobody says otherwise; an unnamed one is empty text."""
    out: list[str] = []
    for name, column in describe(function)["input_names"].items():
        if isinstance(column, str):
            out.append(column if column in _PRICES else "")
        elif name.startswith("price"):
            out.extend(column)
    return tuple(out)


def output_names(function: str) -> tuple[str, ...]:
    """Return the names of a function's outputs, in order."""
    return tuple(describe(function)["output_names"])


def checked(function: str, parameters: Mapping[str, float]) -> dict[str, float]:
    """Return a function's parameters as it takes them.

    Raises:
        InputError: a name that it does not have, a value of the wrong kind, or one that TA-Lib refuses.
    """
    known = describe(function)["parameters"]
    out: dict[str, float] = {}
    for name, value in parameters.items():
        if name not in known:
            raise InputError(f"{function} parameter", name, list(known) or "none", "rename or remove it")
        if isinstance(known[name], int):
            if not float(value).is_integer():
                raise InputError(f"{function} {name}", value, "a whole number", "round it")
            out[name] = int(value)
        else:
            out[name] = float(value)
    count = len(default_inputs(function))
    trial = np.linspace(1.0, 2.0, _TRIAL_ROWS)
    try:
        getattr(talib, function)(*([trial] * count), **out)
    except Exception as error:  # noqa: BLE001  TA-Lib raises bare Exception for a parameter out of its bounds
        given = ", ".join(f"{name}={value}" for name, value in out.items())
        raise InputError(
            f"{function} parameters", given, f"what TA-Lib takes; defaults: {dict(known)}", " ".join(str(error).split())) from None
    return out


@cache
def _lookback(function: str, parameters: tuple[tuple[str, float], ...]) -> int:
    return int(_abstract(function, **dict(parameters)).lookback)


def call(
    function: str, frame: pl.DataFrame, inputs: Sequence[str], parameters: Mapping[str, float],
) -> tuple[pl.Series, ...]:
    """Return a function's outputs as Float64 Series, one row for each row of `frame`."""
    arrays = [_numbers(frame[name]) for name in inputs]
    missing = np.zeros(len(frame), dtype=bool)
    for array in arrays:
        missing |= np.isnan(array)
    rows = None if not missing.any() else np.flatnonzero(~missing)
    if rows is not None:
        arrays = [np.ascontiguousarray(array[rows]) for array in arrays]
    names = output_names(function)
    if not len(arrays[0]):
        return tuple(pl.Series(name, [None] * len(frame), pl.Float64) for name in names)
    made = getattr(talib, function)(*arrays, **parameters)
    outputs = made if isinstance(made, (tuple, list)) else (made,)
    before = _lookback(function, tuple(parameters.items())) if any(array.dtype != np.float64 for array in outputs) else 0
    return tuple(_series(name, output, len(frame), rows, before) for name, output in zip(names, outputs, strict=True))


def _numbers(column: pl.Series) -> NDArray[np.float64]:
    wide = column if column.dtype == pl.Float64 else column.cast(pl.Float64)
    return np.ascontiguousarray(wide.to_numpy())  # a null becomes NaN


def _series(name: str, output: NDArray[Any], height: int, rows: NDArray[np.int64] | None, lookback: int) -> pl.Series:
    values = output
    if output.dtype != np.float64:  # a pattern, or an index: zeros before the lookback mean nothing
        values = output.astype(np.float64)
        values[:lookback] = np.nan
    if rows is not None:
        whole = np.full(height, np.nan)
        whole[rows] = values
        values = whole
    made = pl.Series(name, _arrow.array(values, from_pandas=True))  # NaN becomes null; much cheaper than Polars' own way
    return made if made.dtype == pl.Float64 else made.cast(pl.Float64)

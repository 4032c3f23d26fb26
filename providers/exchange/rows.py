"""Rows of candles as exchanges send them, read without ccxt's slow parser and with its very result.

The order of columns is learned, not written down: ccxt's own `parse_ohlcv` reads a probe of distinct numbers shaped like the
first row, and where each number comes out tells which column it is. Rows it cannot learn go through `parse_ohlcv` one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from core.candles import CANDLE_SCHEMA, TS, empty_candles
from core.clock import LATEST_US
from core.errors import BadPayloadError

_COLUMNS: Final = ("ts", "open", "high", "low", "close", "volume")
_SECONDS_BELOW: Final = 10_000_000_000  # a time stamp below it is in seconds, as ccxt's kucoin tells them apart
Parse = Callable[[Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Where ccxt takes time, open, high, low, close and volume from in a row, and what it multiplies the time by."""

    keys: tuple[Any, ...]
    time_factor: int


def read_rows(rows: Sequence[Any], parse: Parse) -> pl.DataFrame:
    """Return raw rows as a frame of CANDLE_SCHEMA, in the rows' order; spread is null.

    Args:
        rows: lists or dicts, all of one shape, as the exchange sent them.
        parse: ccxt's parse_ohlcv for the market the rows belong to.

    Raises:
        BadPayloadError: rows of different shapes, a value that is missing or no number, a time outside 1970 to 2100.
    """
    if not rows:
        return empty_candles()
    shape = _shape(rows[0])
    if any(_shape(row) != shape for row in rows):
        raise BadPayloadError(f"{len(rows)} candle rows of different shapes came; nothing of them is used")
    columns = learn(rows[0], parse)
    frame = _fast(rows, columns) if columns is not None else None
    return _finish(frame if frame is not None else _slow(rows, parse))


def learn(row: Any, parse: Parse) -> ColumnMap | None:
    """Return the column map for rows shaped like `row`; None when ccxt does more than pick columns."""
    keys = list(row) if isinstance(row, dict) else list(range(len(row)))
    probe = {key: _probe(row[key], position) for position, key in enumerate(keys)}
    typed = {key: _like(row[key], number) for key, number in probe.items()}
    try:
        out = list(parse(typed if isinstance(row, dict) else [typed[key] for key in keys]))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    if len(out) != len(_COLUMNS) or any(not isinstance(value, int | float) for value in out):
        return None
    owner = {number: key for key, number in probe.items()}
    factor = next((factor for factor in (1, 1000) if out[0] % factor == 0 and out[0] // factor in owner), None)
    if factor is None or any(value not in owner for value in out[1:]):
        return None
    return ColumnMap((owner[out[0] // factor], *(owner[value] for value in out[1:])), factor)


def _shape(row: Any) -> object:
    if isinstance(row, dict):
        return frozenset(row)
    if isinstance(row, list | tuple):
        return len(row)
    raise BadPayloadError(f"a candle row is a {type(row).__name__}; a list or an object was promised")


def _probe(value: Any, position: int) -> int:
    """Return a number like no other in the row, with as many digits as tells seconds from milliseconds."""
    number = _number(value)
    base = 1_000_000_000 if number is None or number < _SECONDS_BELOW else 1_000_000_000_000
    return base + position


def _like(value: Any, number: int) -> str | int:
    return str(number) if isinstance(value, str) else number


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _fast(rows: Sequence[Any], columns: ColumnMap) -> pl.DataFrame | None:
    """Return the rows cast column by column, None when a column is not plainly numbers."""
    series = []
    for name, key in zip(_COLUMNS, columns.keys, strict=True):
        values = [row[key] for row in rows]
        kinds = set(map(type, values))
        if not (kinds == {str} or kinds <= {int, float}):
            return None
        try:
            column = pl.Series(name, values, dtype=pl.String if kinds == {str} else pl.Float64).cast(pl.Float64)
        except (pl.exceptions.InvalidOperationError, TypeError, OverflowError):
            return None  # ccxt reads some spellings that Polars does not, such as spaces around a number
        series.append(column)
    stamps = series[0]
    if not stamps.is_finite().all():
        return None
    is_seconds = stamps < _SECONDS_BELOW
    if is_seconds.any() and not is_seconds.all():
        return None  # the map was learned on the first row's unit
    series[0] = stamps * columns.time_factor
    return pl.DataFrame(series)


def _slow(rows: Sequence[Any], parse: Parse) -> pl.DataFrame:
    parsed = [list(parse(row)) for row in rows]
    if any(len(row) != len(_COLUMNS) or any(_number(value) is None for value in row) for row in parsed):
        raise BadPayloadError(f"a value is missing or no number in {len(rows)} candle rows; nothing of them is used")
    columns = ([float(row[index]) for row in parsed] for index in range(len(_COLUMNS)))
    return pl.DataFrame([pl.Series(name, values, pl.Float64) for name, values in zip(_COLUMNS, columns, strict=True)])


def _finish(frame: pl.DataFrame) -> pl.DataFrame:
    stamps = frame["ts"]
    if not (stamps.is_finite().all() and stamps.is_between(0, LATEST_US // 1000).all()):
        raise BadPayloadError(f"a time outside 1970 to 2100 came in {len(frame)} candle rows; nothing of them is used")
    return frame.select(
        (pl.col("ts").cast(pl.Int64) * 1000).cast(TS).alias("ts"),
        *_COLUMNS[1:],
        pl.lit(None, pl.Float64).alias("spread"),
    ).cast(CANDLE_SCHEMA)


def market_identity(market: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return what names a ccxt market at its exchange, and when it was listed (UTC microseconds); None: unknown."""
    number, created = market.get("numericId") or market.get("id"), market.get("created")
    listed = None
    if isinstance(created, int | float) and math.isfinite(created) and created > 0:
        listed = int(created) * 1000
    return None if number is None else str(number)[:200], listed

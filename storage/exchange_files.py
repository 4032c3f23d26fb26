"""People's own files: candles out as Parquet, CSV or JSON, and in from them; and filled views of a frame."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import polars as pl

from core.candles import CANDLE_SCHEMA, TS
from core.clock import EARLIEST_US, LATEST_US, to_datetime, to_us
from core.errors import InputError
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from core.unreadable import UNREADABLE, first_line
from storage.lake.place import translated

FORMATS = ("parquet", "csv", "json")
_TIME_NAMES = ("ts", "time", "timestamp", "date", "datetime", "open_time")
_NEEDED = ("open", "high", "low", "close")
# A number is seconds, milliseconds or microseconds by its size: the three ranges from 1973 to 2100 do not meet.
_EPOCH_UNITS = ((4_102_444_800, 1_000_000), (4_102_444_800_000, 1_000), (LATEST_US, 1))


def write_candle_file(frame: pl.DataFrame, path: Path, format: str) -> int:  # noqa: A002  the public name
    """Write candles to `path` and return how many; times in CSV and JSON are ISO 8601 with Z.

    Raises:
        InputError: no such format. StoreUnwritableError, StoreFullError: the file cannot be written.
    """
    if format not in FORMATS:
        raise InputError("format", format, FORMATS, "choose one of them")
    text = frame.with_columns(pl.col(TS).dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"))
    part = path.with_name(f"{path.name}.part")  # a file of that name is whole, or it is not there
    with translated(path):
        try:
            if format == "parquet":
                frame.write_parquet(part, compression="zstd")
            elif format == "csv":
                text.write_csv(part)
            else:
                text.write_json(part)
            part.replace(path)
        except pl.exceptions.ComputeError as error:  # so Polars says that it could not write
            raise OSError(str(error)) from error
        finally:
            with suppress(OSError):  # the first error is the one to be told
                part.unlink(missing_ok=True)
    return frame.height


def read_candle_file(path: str | Path) -> pl.DataFrame:
    """Read a person's Parquet, CSV or JSON file of candles, by its ending.

    The time column is called ts, time, timestamp, date, datetime or open_time (case does not count) and holds ISO 8601,
    or seconds, milliseconds or microseconds since 1970 UTC. Volume and spread may be missing.

    Returns:
        A frame of CANDLE_SCHEMA as the file gives it: unsorted and unchecked; pass it through core.candles.check.

    Raises:
        InputError: not such a file; says what is wrong with it.
    """
    file = Path(path)
    raw = _read(file)
    by_name = {name.strip().lower(): name for name in raw.columns}
    time = next((by_name[name] for name in _TIME_NAMES if name in by_name), None)
    if time is None:
        raise InputError(f"{file.name}: columns", ", ".join(raw.columns), f"one of {', '.join(_TIME_NAMES)} for the time",
                         "rename the column of open times")
    missing = [name for name in _NEEDED if name not in by_name]
    if missing:
        raise InputError(f"{file.name}: columns", ", ".join(raw.columns), f"open, high, low and close ({missing[0]} is missing)",
                         "rename or add them")
    columns = [_times(raw[time], file.name).alias("ts")]
    for name in list(CANDLE_SCHEMA)[1:]:
        if name in by_name:
            columns.append(_numbers(raw[by_name[name]], file.name).alias(name))
        else:
            columns.append(pl.Series(name, [None if name == "spread" else 0.0] * raw.height, dtype=pl.Float64))
    return pl.DataFrame(columns).select(list(CANDLE_SCHEMA))


def check_spacing(frame: pl.DataFrame, timeframe: Timeframe) -> None:
    """Refuse candles that follow each other faster than the timeframe: those on its grid would be stored as longer ones than they are.

    Raises:
        InputError: says how far apart the candles are.
    """
    apart = frame["ts"].drop_nulls().unique().sort().diff().dt.total_microseconds().median()
    if isinstance(apart, int | float) and apart * 1.25 <= timeframe.length_us:  # a month may be shorter than its usual length
        raise InputError("timeframe", timeframe.name, f"that of the file, whose candles are mostly {timedelta(microseconds=apart)} apart",
                         "name that one; longer candles are made when read: candlelake candles --derive-from")


def filled(frame: pl.DataFrame, grid: Grid) -> pl.DataFrame:
    """Add a row for each slot missing between the first and the last: prices are the last close, volume is 0."""
    marked = frame.with_columns(is_filled=pl.lit(value=False))
    if frame.height < 2:
        return marked
    first, last = to_us(frame["ts"][0]), to_us(frame["ts"][-1])
    if grid.is_on(first):
        slots = grid.slots(Interval(first, last + 1))
    else:  # a broker's days whose clock is not known: count from the first one
        slots = list(range(first, last + 1, grid.timeframe.length_us))
    wanted = pl.DataFrame({"ts": pl.Series(slots, dtype=pl.Int64).cast(TS)})
    missing = wanted.join(frame.select("ts"), on="ts", how="anti")
    if missing.is_empty():
        return marked
    closes = frame.select("ts", "close").sort("ts")
    added = missing.sort("ts").join_asof(closes, on="ts").with_columns(
        *(pl.col("close").alias(name) for name in ("open", "high", "low")), volume=pl.lit(0.0), is_filled=pl.lit(value=True))
    return pl.concat([marked, added.select(list(added.columns))], how="diagonal").sort("ts")


def _read(file: Path) -> pl.DataFrame:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet, ".csv": _read_csv, ".json": pl.read_json, ".ndjson": pl.read_ndjson}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise InputError("file", file.name, f"a name that ends in {', '.join(readers)}", "rename or convert it")
    try:
        raw = reader(file)
    except FileNotFoundError:
        raise InputError("file", str(file), "a file that exists", "check the path") from None
    except UNREADABLE as error:
        raise InputError("file", file.name, f"readable {file.suffix[1:]}", first_line(error)) from error
    return raw


def _read_csv(file: Path) -> pl.DataFrame:
    return pl.read_csv(file, infer_schema=False, encoding="utf8")


def _times(raw: pl.Series, name: str) -> pl.Series:
    if isinstance(raw.dtype, pl.Datetime):
        aware = raw if raw.dtype.time_zone else raw.dt.replace_time_zone("UTC")
        return aware.dt.convert_time_zone("UTC").cast(TS)
    if raw.dtype == pl.Date:
        return raw.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if raw.dtype == pl.String:
        stripped = raw.str.strip_chars()
        number = stripped.cast(pl.Float64, strict=False)
        if number.null_count() > raw.null_count():
            return _iso(stripped, name)
        raw = number
    if not raw.dtype.is_numeric():
        raise _bad_time(name, raw.dtype)
    return _epoch(raw, name)


def _epoch(raw: pl.Series, name: str) -> pl.Series:
    top = raw.max()
    if not isinstance(top, int | float) or top < 0:
        if raw.len() == raw.null_count():
            return pl.Series(raw.name, [None] * raw.len(), dtype=TS)
        raise _bad_time(name, top)
    factor = next((factor for limit, factor in _EPOCH_UNITS if top <= limit), None)
    if factor is None:
        raise _bad_time(name, top)
    whole = raw.cast(pl.Int64) * factor if raw.dtype.is_integer() else (raw * factor).round().cast(pl.Int64)
    return whole.cast(TS)


def _iso(text: pl.Series, name: str) -> pl.Series:
    plain = text.str.replace(" ", "T", literal=True).str.replace(r"Z$", "+00:00")
    has_offset = plain.str.contains(r"T.*[+-]\d{2}:?\d{2}$")
    plain = pl.select(pl.when(plain.str.len_chars() == 10).then(plain + "T00:00:00").otherwise(plain)).to_series()  # date only
    plain = pl.select(pl.when(has_offset).then(plain).otherwise(plain + "+00:00")).to_series()
    try:
        parsed = plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False)
        short = plain.str.to_datetime("%Y-%m-%dT%H:%M%z", time_unit="us", strict=False)
    except pl.exceptions.PolarsError as error:
        raise _bad_time(name, text[0]) from error
    out = pl.select(pl.coalesce(parsed, short)).to_series().cast(TS)
    bad = text.filter(out.is_null() & text.is_not_null())
    if bad.len():
        raise _bad_time(name, bad[0])
    return out


def _numbers(raw: pl.Series, name: str) -> pl.Series:
    if raw.dtype == pl.String:
        stripped = raw.str.strip_chars()
        stripped = pl.select(pl.when(stripped == "").then(None).otherwise(stripped)).to_series()
        out = stripped.cast(pl.Float64, strict=False)
        bad = stripped.filter(out.is_null() & stripped.is_not_null())
        if bad.len():
            raise InputError(f"{name}: {raw.name}", bad[0], "numbers with a decimal point", "correct the file")
        return out
    if not raw.dtype.is_numeric() and raw.dtype != pl.Null:
        raise InputError(f"{name}: {raw.name}", str(raw.dtype), "numbers", "correct the file")
    return raw.cast(pl.Float64)


def _bad_time(name: str, received: object) -> InputError:
    first, last = (to_datetime(us).date() for us in (EARLIEST_US, LATEST_US))
    return InputError(f"{name}: time", str(received), f"ISO 8601, or s, ms or us since 1970 UTC, from {first} to {last}",
                      "correct the column of open times")

"""What Polars raises at bytes that are no Parquet, to be caught where a file that may be damaged is read."""

from __future__ import annotations

from typing import Final

import polars as pl

# Polars panics at some bytes, which is no Exception.
UNREADABLE: Final = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its name when it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]

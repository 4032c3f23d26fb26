"""Coverage as a table: what `Lake.coverage` returns and what SQL's `coverage` reads."""

from __future__ import annotations

from typing import Final

import polars as pl

from core.candles import TS
from storage.coverage import StoredSlots, coverage

COVERAGE_SCHEMA: Final = pl.Schema({
    "connection": pl.String(), "symbol": pl.String(), "timeframe": pl.String(), "first": TS, "last": TS,
    "expected": pl.Int64(), "stored": pl.Int64(), "explained": pl.Int64(), "unexplained": pl.Int64()})


def coverage_table(lake: StoredSlots) -> pl.DataFrame:
    """Return one row for each series, COVERAGE_SCHEMA: what is expected of it, stored, explained and not, in slots."""
    rows = [(row.series.connection, row.series.symbol, row.series.timeframe.name, row.first_us, row.last_us,
             row.expected, row.stored, row.explained, row.unexplained) for row in coverage(lake)]
    plain = {name: pl.Int64() if kind == TS else kind for name, kind in COVERAGE_SCHEMA.items()}
    return pl.DataFrame(rows, schema=plain, orient="row").cast(COVERAGE_SCHEMA)

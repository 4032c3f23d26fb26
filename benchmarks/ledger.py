"""Ledger, coverage and summary of a lake of 100 million candles: `python -m benchmarks.ledger [--rows N]`.

The lake is built quickly: a year of months is written once, and every series' partitions are hard links to those twelve
files, each with its own row in the manifest. Counting reads manifest, head and ledger, so that shared bytes change
nothing in what is measured. Everything lies in a temporary folder that is gone at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from core.candles import CANDLE_SCHEMA, STORED_SCHEMA
from core.clock import HOUR_US, MINUTE_US, parse_instant, to_datetime, to_us
from core.interval import Interval
from core.series import Series
from storage import Batch, Lake, open_lake
from storage.coverage import coverage
from storage.lake import layout
from storage.lake.flush import by_period
from storage.lake.writer import encode
from storage.ledger import Gap, book_gaps, list_gaps
from storage.metadata.tables import connections
from storage.series import ensure_series

YEAR = 525_600
START = parse_instant("2025-01-01")
GAPS = 300  # of each series: as many booked ranges as a quiet market has
HEAD = 50  # newest candles of each series that are not flushed yet
REPEATS = 7
LIMITS = {"one_series_ms": 100.0, "summary_ms": 2000.0, "peak_mib": 1024.0}


def year() -> pl.DataFrame:
    """Return a year of candles, with a hole of an hour for each gap that is booked."""
    slots = pl.DataFrame({"i": range(YEAR)}).filter(pl.col("i") % (YEAR // GAPS) >= 60)
    price = 100.0 + (pl.col("i") % 997) / 10
    return slots.select(
        ts=pl.from_epoch(START + pl.col("i") * MINUTE_US, time_unit="us").dt.replace_time_zone("UTC"), open=price,
        high=price + 1, low=price - 1, close=price + 0.5, volume=pl.col("i").cast(pl.Float64) % 31, spread=pl.lit(None, pl.Float64),
        known_at=pl.lit(to_datetime(START)), source=pl.lit("import"), run_id=pl.lit("bench")).cast(STORED_SCHEMA)


def build(home: Path, rows: int) -> int:
    """Fill a home with about `rows` candles; return how many they are."""
    frame = year()
    count = max(1, round(rows / frame.height))
    with open_lake(home) as lake:
        parts = []
        for label, part in by_period(Series.parse("bench", "S0", "1m"), frame):
            content = bytes(encode(part))
            source = home / f"{label}.parquet"
            source.write_bytes(content)
            parts.append((label, part, source, hashlib.sha256(content).hexdigest(), len(content)))
        with lake.metadata.write() as tx:
            tx.execute(connections.insert().values(
                slug="bench", name="bench", type="crypto", provider="replay", config={}, settings={}, status="active",
                is_active=True, is_admin_owned=False, created_at_us=0, updated_at_us=0))
            ids = [ensure_series(tx, 1, f"S{number}", "1m", 0).id for number in range(count)]
        for number, series_id in enumerate(ids):
            _link(lake, Series.parse("bench", f"S{number}", "1m"), series_id, parts)
        _head(lake, ids)
        return frame.height * count + HEAD * count


def _link(lake: Lake, series: Series, series_id: int, parts: list) -> None:
    with lake.metadata.write() as tx:
        for label, part, source, digest, size in parts:
            path = layout.new_file(series, label)
            (lake.root / path).parent.mkdir(parents=True)
            os.link(source, lake.root / path)
            tx.exec_driver_sql(
                "INSERT INTO lake_files (dataset, series_id, period, path, rows, first_us, last_us, size_bytes, digest, generation,"
                " created_at_us) VALUES ('candles', ?, ?, ?, ?, ?, ?, ?, ?, 1, 0)",
                (series_id, label, path, part.height, to_us(part["ts"][0]), to_us(part["ts"][-1]), size, digest))
        tx.exec_driver_sql("UPDATE series SET first_us = ?, last_us = ? WHERE id = ?",
                           (to_us(parts[0][1]["ts"][0]), to_us(parts[-1][1]["ts"][-1]), series_id))
        step = YEAR // GAPS * MINUTE_US
        book_gaps(tx, [Gap(series_id, Interval(START + n * step, START + n * step + HOUR_US), "no_trade" if n % 2 else "provider_empty",
                           proof={"n": n}) for n in range(GAPS)], START)


def _head(lake: Lake, ids: list[int]) -> None:
    newest = pl.DataFrame({"i": range(YEAR, YEAR + HEAD)}).select(
        ts=pl.from_epoch(START + pl.col("i") * MINUTE_US, time_unit="us").dt.replace_time_zone("UTC"), open=1.0, high=1.0, low=1.0,
        close=1.0, volume=1.0, spread=pl.lit(None, pl.Float64)).cast(CANDLE_SCHEMA)
    lake.write([Batch(series_id, newest, "rest") for series_id in ids], run_id="bench")


def measure(home: Path) -> dict[str, float]:
    """Time the questions in this process, which has asked nothing before; milliseconds are medians."""
    with open_lake(home) as lake:
        took: dict[str, list[float]] = {"one_series_ms": [], "summary_ms": []}
        answer = {}
        for _ in range(REPEATS):
            begin = time.perf_counter()
            one = coverage(lake, "bench", "S0", "1m")[0]
            with lake.metadata.read() as tx:
                gaps = list_gaps(tx, "bench", "S0", "1m")
            took["one_series_ms"].append(time.perf_counter() - begin)
            begin = time.perf_counter()
            whole = coverage(lake)
            took["summary_ms"].append(time.perf_counter() - begin)
            answer = {"series": len(whole), "stored": sum(row.stored for row in whole), "gaps": len(gaps),
                      "unexplained": sum(row.unexplained for row in whole), "one_unexplained": one.unexplained}
    return {**{name: statistics.median(times) * 1000 for name, times in took.items()}, **answer,
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> int:
    """Build, measure in a fresh process, print; exit 1 when a limit is missed or a count is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return 0
    home = Path(tempfile.mkdtemp(prefix="candlelake-ledger-"))
    try:
        begin = time.perf_counter()
        rows = build(home, options.rows)
        print(f"{rows:,} candles built in {time.perf_counter() - begin:.1f} s", file=sys.stderr)
        child = subprocess.run([sys.executable, "-m", "benchmarks.ledger", "--measure", str(home)], check=True, capture_output=True, text=True)
        found = json.loads(child.stdout)
    finally:
        shutil.rmtree(home)
    is_right = found["stored"] == rows and found["unexplained"] == 0
    for name, limit in LIMITS.items():
        print(f"{name:<14} {found[name]:>10.1f}   limit {limit:g}")
    print(f"{found['series']} series, {found['stored']:,} candles, {found['gaps']} gaps in one series; counts {'right' if is_right else 'WRONG'}")
    return 0 if is_right and all(found[name] < limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    sys.exit(main())

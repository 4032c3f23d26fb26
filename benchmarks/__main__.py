"""Runs the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import download, environments, report, workloads
from benchmarks.bench import Bench, Player

RESULTS = Path(__file__).parent / "results"
GROUPS = {
    "one-series": lambda bench, _: workloads.one_series(bench),
    "many-series": lambda bench, _: workloads.many_series(bench, count=500),
    "bulk": lambda bench, options: workloads.bulk(bench, large=options.large),
    "ten-million": lambda bench, options: workloads.ten_million(bench, series=options.series),
}


def main() -> None:
    """Set up the peers, run all works in one go and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", default=",".join(report.PEERS), help="which, with commas; candlelake always takes part")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats after one warm-up")
    parser.add_argument("--large", type=int, default=5_000_000, help="rows of the large bulk write")
    parser.add_argument("--series", type=int, default=20, help="years of 1m stored for the queries; 20 are 10.5 million rows")
    parser.add_argument("--groups", default=",".join(GROUPS), help="which works, with commas")
    parser.add_argument("--folder", type=Path, help="where the stores lie: the disk that is measured")
    parser.add_argument("--no-freqtrade", action="store_true", help="leave the download against freqtrade out")
    options = parser.parse_args()
    wanted = ["candlelake", *(name for name in options.peers.split(",") if name and name != "candlelake")]
    pythons = {"arcticdb": environments.python_of("arctic")} if "arcticdb" in wanted else {}
    versions = {name: version(name) for name in ("polars", "duckdb", "pyarrow")}
    versions.update({name: environments.version_of(name) for name in ("arcticdb", "freqtrade")})
    folder = Path(tempfile.mkdtemp(prefix="candlelake-bench-", dir=options.folder))
    try:
        bench = Bench([Player(name, pythons.get(name, Path(sys.executable)), folder / name) for name in wanted], options.repeats)
        try:
            for name in options.groups.split(","):
                started = time.monotonic()
                print(name, flush=True)
                GROUPS[name](bench, options)
                print(f"  {name} took {time.monotonic() - started:.0f} s", flush=True)
                text = report.write(RESULTS, bench.works, versions, None)  # a run that is stopped leaves what it has
        finally:
            bench.close()
        if not options.no_freqtrade:
            found = download.compare_downloads(folder, environments.python_of("freqtrade"))
            text = report.write(RESULTS, bench.works, versions, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("\n" + text)


if __name__ == "__main__":
    main()

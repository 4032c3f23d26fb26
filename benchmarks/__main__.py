"""Runs the benchmarks: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks import download, environments, others, report, workloads
from benchmarks.bench import Bench, Player
from benchmarks.report import Report

GROUPS = {
    "one-series": lambda bench, _: workloads.one_series(bench),
    "many-series": lambda bench, _: workloads.many_series(bench, count=500),
    "bulk": lambda bench, options: workloads.bulk(bench, large=options.large),
    "ten-million": lambda bench, options: workloads.ten_million(bench, series=options.series),
}
PARTS = (*GROUPS, "download", *others.PROGRAMS)


def main() -> None:
    """Set up the peers, run all parts in one go and write the report."""
    options = _options()
    parts = options.parts.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise SystemExit(f"--parts: {', '.join(sorted(unknown))} is none; there are {', '.join(PARTS)}")
    wanted = ["candlelake", *(name for name in options.peers.split(",") if name and name != "candlelake")]
    versions = {name: version(name) for name in ("polars", "duckdb", "pyarrow")}
    versions.update({name: environments.version_of(name) for name in ("arcticdb", "freqtrade", "cryptofeed")})
    found = Report(versions, options.repeats)
    folder = Path(tempfile.mkdtemp(prefix="candlelake-bench-", dir=options.folder))
    started = time.monotonic()
    try:
        groups = [name for name in parts if name in GROUPS]
        if groups:
            _run_groups(found, groups, wanted, folder, options)
        if "download" in parts:
            python = environments.python_of("freqtrade")
            _say(parts, "download", found)
            found.download = download.compare_downloads(folder, python)
            found.write(keep=options.keep)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in (part for part in parts if part in others.PROGRAMS):
        _say(parts, name, found)
        found.sections.append(others.run(name))
        found.write(keep=options.keep)
    is_whole = set(parts) == set(PARTS) and set(wanted) == set(report.PEERS)
    print("\n" + found.write(keep=is_whole or options.keep))
    print(f"took {(time.monotonic() - started) / 60:.1f} minutes; benchmarks/results/latest.md"
          + (" and benchmarks/RESULTS.md" if is_whole or options.keep else "; RESULTS.md is written by a whole run"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--peers", default=",".join(report.PEERS), help="which, with commas; candlelake always takes part")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats after one warm-up")
    parser.add_argument("--large", type=int, default=5_000_000, help="rows of the large bulk write")
    parser.add_argument("--series", type=int, default=20, help="years of 1m stored for the queries; 20 are 10.5 million rows")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, with commas; all of them by default")
    parser.add_argument("--folder", type=Path, help="where the stores lie: the disk that is measured")
    parser.add_argument("--keep", action="store_true", help="write RESULTS.md though not all parts or peers took part")
    return parser.parse_args()


def _run_groups(found: Report, groups: list[str], wanted: list[str], folder: Path, options: argparse.Namespace) -> None:
    """Run the works of the table, all peers in turn; a run that is stopped leaves what it has."""
    pythons = {"arcticdb": environments.python_of("arctic")} if "arcticdb" in wanted else {}
    bench = Bench([Player(name, pythons.get(name, Path(sys.executable)), folder / name) for name in wanted], options.repeats)
    found.works = bench.works
    try:
        for name in groups:
            begin = time.monotonic()
            _say(options.parts.split(","), name, found)
            GROUPS[name](bench, options)
            print(f"  {name} took {time.monotonic() - begin:.0f} s", flush=True)
            found.write(keep=options.keep)
    finally:
        bench.close()


def _say(parts: list[str], name: str, found: Report) -> None:
    found.begin(name)
    print(f"[{parts.index(name) + 1}/{len(parts)}] {name} (load average {found.loads[name]})", flush=True)


if __name__ == "__main__":
    main()

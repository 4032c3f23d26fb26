"""How many planted errors of a server's clock are found: `python -m benchmarks.clock_trials [--places N]`.

Recorded hours of three pairs of one MetaTrader server (of the sandbox and of the tests) are written an hour earlier or later
for one, two or five days, at places drawn by a fixed seed. They are judged by the rhythm of their own ticks, by their returns
beside another broker's EURUSD, and by both. Prints a row for each way: found, found whole, and how many right days were
doubted elsewhere (the server's own odd days of autumn 2017 left out).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

import sandbox
from core.clock import DAY_US, HOUR_US, parse_instant
from core.clock_days import Doubt, Hourly, Hours, judge_days
from core.interval import Interval
from core.server_clock import ServerClock

SANDBOX = Path(sandbox.__file__).parent / "data"
TESTS = Path(__file__).parent.parent / "tests" / "core" / "data"
PAIRS = {"GBPUSD": SANDBOX, "AUDUSD": TESTS, "USDJPY": TESTS}
RULES = ServerClock.from_config({"server_clock": {"offset_minutes": 120, "dst": "eu"}})  # from November 2014 on
ODD = Interval.parse("2017-10-25", "2017-11-08")  # its clock did stand elsewhere
AROUND_US = 120 * DAY_US
DAYS = (1, 2, 5)
LEAST_HOURS = 20  # of a planted error in open time


def hours_of(path: Path, clock: ServerClock | None = None) -> Hours:
    """Return a file's hours on UTC, from 2014-11-22 on."""
    frame = pl.read_parquet(path).sort("ts").filter(pl.col("ts").dt.date() > pl.date(2014, 11, 22))
    us = frame["ts"].cast(pl.Datetime("us")).dt.epoch("us").to_numpy()
    if clock is not None:
        us = np.array([clock.to_utc_us(value) for value in us.tolist()], dtype=np.int64)
    us, first = np.unique(us, return_index=True)
    return Hours(us, frame["close"].to_numpy()[first], frame["volume"].cast(pl.Float64).to_numpy()[first])


def planted(series: Hours, part: Interval, by_us: int) -> Hours:
    """Return the hours around `part`, those in it written `by_us` later."""
    near = (series.times >= part.start - AROUND_US) & (series.times < part.end + AROUND_US)
    times, close = series.times[near], series.close[near]
    volume = series.volume[near] if series.volume is not None else np.zeros(len(times))
    inside = (times >= part.start) & (times < part.end)
    moved, order = np.unique(np.where(inside, times + by_us, times), return_index=True)
    return Hours(moved, close[order], volume[order])


def places(series: Hours, days: int, count: int, dice: np.random.Generator) -> Iterator[tuple[Interval, int]]:
    """Yield `count` stretches of open time in 2015 to 2018, and how far each is moved."""
    while count:
        first = parse_instant(f"{dice.integers(2015, 2019)}-01-01") + int(dice.integers(30 * 24, 330 * 24)) * HOUR_US
        part = Interval(first, first + days * DAY_US)
        if ((series.times >= part.start) & (series.times < part.end)).sum() >= LEAST_HOURS * min(days, 3):
            count -= 1
            yield part, int(dice.choice([-1, 1])) * HOUR_US


def told(doubts: Sequence[Doubt], part: Interval, by_us: int) -> tuple[bool, bool, int]:
    """Return whether a planted error was found, whether all of it, and how many others were told of right days."""
    hits = [doubt for doubt in doubts if doubt.interval.intersect(part) is not None]
    written = Interval(part.start + by_us, part.end + by_us)
    others = [doubt for doubt in doubts if doubt not in hits and doubt.interval.intersect(ODD) is None]
    return bool(hits), any(doubt.interval.intersect(written) == written for doubt in hits), len(others)


def main() -> None:
    """Plant, judge, and print the counts."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--places", type=int, default=40, help="planted errors of each length")
    count = asked.parse_args().places
    if RULES is None:
        raise SystemExit("no rules")
    pairs = [hours_of(folder / f"mt5_{name}_H1_brokertime.parquet", RULES) for name, folder in PAIRS.items()]
    reference: Hourly = hours_of(SANDBOX / "oanda_EURUSD_H1.parquet")[:2]
    dice = np.random.default_rng(7)
    print(f"{'days':>4}  {'judged by':<34} {'found':>8} {'whole':>6} {'right days doubted':>19}")
    for days in DAYS:
        tried = [(part, by, [planted(pair, part, by) for pair in pairs]) for part, by in places(pairs[0], days, count, dice)]
        for name, number, has_ticks, against in (
                ("one pair's rhythm", 1, True, None), ("three pairs' rhythm", 3, True, None),
                ("three pairs beside a reference", 3, False, reference), ("one pair, rhythm and reference", 1, True, reference),
                ("three pairs, rhythm and reference", 3, True, reference)):
            rows = [told(judge_days(RULES, [one if has_ticks else one._replace(volume=None) for one in series[:number]], against).doubts,
                         part, by) for part, by, series in tried]
            found, whole, others = (sum(row[at] for row in rows) for at in range(3))
            print(f"{days:>4}  {name:<34} {found:>3} / {count:<3} {whole:>5} {others:>19}")


if __name__ == "__main__":
    main()

"""The work of the table: what is stored and read, how often, and the target of each line."""

from __future__ import annotations

from benchmarks.bench import Bench, Step, Work, read_all, totals
from benchmarks.market import candles

YEAR = 525_600
DAY, MONTH = 1_440, 43_200
OURS, ARCTIC = "candlelake", "arcticdb"


def below(seconds: float):
    """Return the rule: ours takes less than `seconds`."""
    return lambda medians: medians[OURS] < seconds


def times(share: float, peer: str):
    """Return the rule: ours takes at most `share` of the peer's time; None when the peer did not run."""
    return lambda medians: medians[OURS] <= share * medians[peer] if peer in medians else None


def bulk(bench: Bench, large: int) -> None:
    """New series written whole."""
    for rows, only, repeats in ((YEAR, (), None), (large, (OURS, ARCTIC, "parquet"), min(3, bench.repeats))):
        names = [f"bulk{rows}-{turn}" for turn in range(bench.repeats + 1)]
        bench.all({"op": "declare", "names": names})

        def step(turn: int, rows: int = rows, names: list[str] = names) -> Step:
            return {"op": "bulk", "name": names[turn], "seed": 1, "first": 0, "rows": rows}

        bench.measure(
            Work(f"bulk write of {rows:,} 1m candles", rows=rows, target="above ArcticDB", is_met=times(1.0, ARCTIC)),
            step, lambda turn, rows=rows, names=names: read_all(names[turn], 1, 0, rows), only=only, repeats=repeats)


def one_series(bench: Bench) -> None:
    """A year of one series: read, extended, corrected."""
    names = ["year", "live", *(f"ten-{turn}" for turn in range(bench.repeats + 1))]
    bench.all({"op": "declare", "names": names})
    for name in ("year", "live"):
        bench.all({"op": "bulk", "name": name, "seed": 2, "first": 0, "rows": YEAR})
    whole, whole_digest = read_all("year", 2, 0, YEAR)
    bench.measure(Work("one year of 1m of one series read", target="within 1.2x of bare Parquet", is_met=times(1.2, "parquet")),
                  lambda _: {**whole, "expected": whole_digest})
    bench.measure(Work("the same with all columns of ours (spread, known_at, source, run_id too)"),
                  lambda _: {**whole, "op": "whole", "expected": whole_digest}, only=(OURS, "parquet"))
    last = candles(2, YEAR - 100, 100).digest()
    bench.measure(Work("latest 100 candles, all flushed", target="a third of ArcticDB", is_met=times(1 / 3, ARCTIC)),
                  lambda _: {"op": "latest", "name": "year", "count": 100, "expected": last})
    bench.measure(
        Work("durable upsert of 1,000 candles at the end (100 known, 900 new)", target="half of ArcticDB",
             is_met=times(0.5, ARCTIC)),
        lambda turn: {"op": "upsert", "name": "live", "seed": 2, "first": YEAR - 100 + 900 * turn, "rows": 1000},
        lambda turn: read_all("live", 2, YEAR - 1000, 1900 + 900 * turn))
    end = YEAR - 100 + 900 * bench.repeats + 1000
    fresh = candles(2, end - 100, 100).digest()
    bench.measure(Work("latest 100 candles, just fetched", target="a third of ArcticDB", is_met=times(1 / 3, ARCTIC)),
                  lambda _: {"op": "latest", "name": "live", "count": 100, "expected": fresh})
    bench.measure(
        Work("durable correction of 1,000 candles in mid-year (ours keeps each old value)"),
        lambda turn: {"op": "upsert", "name": "live", "seed": 2, "first": 100_000 + 2000 * turn, "rows": 1000, "raised": 1.0},
        lambda turn: read_all("live", 2, 100_000 + 2000 * turn, 1000, 1.0))
    bench.measure(
        Work("10,000 candles stored, durable, new series", rows=10_000, target="below 5 s", is_met=below(5)),
        lambda turn: {"op": "upsert", "name": f"ten-{turn}", "seed": 3, "first": 0, "rows": 10_000},
        lambda turn: read_all(f"ten-{turn}", 3, 0, 10_000))


def many_series(bench: Bench, count: int) -> None:
    """One new candle in each of many series, each with a day stored."""
    names = [f"s{number:03}" for number in range(count)]
    bench.all({"op": "declare", "names": names})
    for name in names:
        bench.all({"op": "bulk", "name": name, "seed": 4, "first": 0, "rows": DAY})
    bench.measure(
        Work(f"one new candle in each of {count} series, durable", target="below 10 ms", is_met=below(0.010)),
        lambda turn: {"op": "round", "names": names, "seed": 4, "first": DAY + turn, "rows": 1},
        lambda turn: read_all(names[(turn * 37) % count], 4, 0, DAY + turn + 1))


def ten_million(bench: Bench, series: int) -> None:
    """Queries with ten million rows in the store."""
    names = [f"m{number:02}" for number in range(series)]
    bench.all({"op": "declare", "names": names})
    for number, name in enumerate(names):
        bench.all({"op": "bulk", "name": name, "seed": 10 + number % 4, "first": 0, "rows": YEAR})
    name, seed, what = names[series // 2], 10 + (series // 2) % 4, f"{series * YEAR / 1e6:.1f} M rows"
    day, day_digest = read_all(name, seed, 200_000, DAY)
    bench.measure(Work(f"the candles of a day, {what} stored", target="below 100 ms", is_met=below(0.1)),
                  lambda _: {**day, "expected": day_digest})
    bench.measure(
        Work(f"latest 100 candles, each time of another series, {what} stored", target="below 100 ms", is_met=below(0.1)),
        lambda turn: {"op": "latest", "name": names[turn % series], "count": 100,
                      "expected": candles(10 + (turn % series) % 4, YEAR - 100, 100).digest()})
    answer = totals(candles(seed, 200_000, MONTH))
    bench.measure(Work(f"count, low and high of a month (ours: lake.sql), {what} stored", target="below 100 ms", is_met=below(0.1)),
                  lambda _: {"op": "total", "name": name, "first": 200_000, "rows": MONTH, "expected": answer})

"""Replays against vectorbt and backtesting.py: `python -m benchmarks.replay`; the same candles and indicators, as ratios.

The peers run in `.venv-bench-backtests`, from `requirements-bench-backtests.lock`. Each peer is a process; one after the
other, round after round. All of them compute with TA-Lib. Ours also digests every input and judges a sample of candles
again one by one; backtesting.py also simulates orders.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks import environments

WORKER = Path(__file__).parent / "replay_worker.py"
RESULT = Path(__file__).parent / "results" / "replay.md"
PEERS = ("candlelake", "vectorbt", "backtesting")
CLOSE_ENOUGH = 0.001  # windows of ours begin anew with each chapter: an EMA that has just begun may cross a candle off


def main() -> None:
    """Run the replays and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="candles")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each peer")
    parser.add_argument("--repeats", type=int, default=3, help="timed repeats in each process, after one warm-up")
    options = parser.parse_args()
    python = environments.python_of("backtests")
    times: dict[str, list[float]] = {peer: [] for peer in PEERS}
    crossings: dict[str, int] = {}
    for turn in range(options.rounds):
        for peer in PEERS:
            slow = peer == "backtesting"  # a Python call for each candle: once is enough
            if slow and turn:
                continue
            words = [str(sys.executable if peer == "candlelake" else python), str(WORKER), peer, str(options.rows)]
            done = subprocess.run([*words, "0" if slow else str(options.repeats)], capture_output=True, text=True, check=True)
            answer = json.loads(done.stdout.splitlines()[-1])
            times[peer] += answer["seconds"]
            crossings[peer] = answer["crossings"]
            print(f"{peer}: {median(answer['seconds']):.3f} s, {answer['crossings']} crossings", flush=True)
    for peer in PEERS[1:]:
        if abs(crossings[peer] - crossings["candlelake"]) > CLOSE_ENOUGH * crossings["candlelake"]:
            raise SystemExit(f"{peer} finds {crossings[peer]} crossings, candlelake {crossings['candlelake']}: not the same work")
    ours = median(times["candlelake"])
    lines = [f"# Replay of {options.rows:,} candles through ten indicators and a crossover", "",
             "| peer | median | multiple of ours | crossings |", "|---|---|---|---|"]
    lines += [f"| {peer} | {median(times[peer]):.3f} s | {median(times[peer]) / ours:.2f}x | {crossings[peer]} |" for peer in PEERS]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()

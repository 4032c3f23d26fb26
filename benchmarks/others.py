"""The benchmarks that are programs of their own - replay, ledger, stream, console - run for the one report."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.environments import ROOT

PROGRAMS = {
    "replay": ("Replay beside vectorbt and backtesting.py", ["--rounds", "1", "--repeats", "2"]),
    "ledger": ("Ledger and coverage of a large lake", []),
    "stream": ("Ticks of a stream beside cryptofeed", []),
    "console": ("Console over a large home", []),
}


@dataclass(frozen=True)
class Section:
    """What one program said: Markdown, its exit code, and how long it took."""

    name: str
    title: str
    text: str
    code: int
    seconds: float


def run(name: str) -> Section:
    """Run one program; one that ends with an error is part of the report, not the end of it."""
    title, words = PROGRAMS[name]
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-W", "ignore", "-m", f"benchmarks.{name}", *words], cwd=ROOT, capture_output=True,
                          text=True, check=False)
    took = time.monotonic() - begin
    text = _markdown(name, done.stdout)
    if done.returncode:
        text += f"\n\nIt ended with {done.returncode}: a limit was missed, or it failed. {' '.join(done.stderr.split())[-400:]}"
    print(text + f"\n  {name} took {took:.0f} s", flush=True)
    return Section(name, title, text, done.returncode, took)


def _markdown(name: str, said: str) -> str:
    lines = said.strip().splitlines()
    if name == "replay":
        return "\n".join(line for line in lines if line.startswith("|"))
    if name == "stream":
        return _streams(json.loads(lines[-1])) if lines and lines[-1].startswith("{") else "It said nothing."
    if name == "console":
        begin = next((at for at, line in enumerate(lines) if line == "{"), None)
        return "It said nothing." if begin is None else _console(json.loads("\n".join(lines[begin:])))
    return "\n".join(["```text", *lines, "```"])


def _streams(found: dict[str, Any]) -> str:
    """Return the figures of a stream, ours beside the peer's, with the peer's as a multiple of ours."""
    ours, theirs = found["candlelake"], found.get("cryptofeed", {})
    lines = [f"A feed of {found['rate']:.0f} trades a second, {found['seconds']:.0f} s for each; load average before ours "
             f"{found['load_before']:.2f}" + (f", before cryptofeed's {found['load_before_peer']:.2f}." if theirs else "; without the peer."),
             "", "| figure | candlelake | cryptofeed | multiple of ours |", "|---|---|---|---|"]
    for key, value in ours.items():
        other = theirs.get(key)
        ratio = f"{other / value:.2f}x" if other is not None and value else "-"
        lines.append(f"| {key.replace('_', ' ')} | {value} | {'-' if other is None else other} | {ratio} |")
    return "\n".join([*lines, "", *(f"* {name.replace('_', ' ')}: {said if said == 'met' else '**missed**'}" for name, said in found["targets"].items())])


def _console(found: dict[str, Any]) -> str:
    """Return the figures of the console, and each target with whether it is met; without a browser the chart is not compared."""
    painted = found["chart_painted_ms"]
    figures = {key: value for key, value in found.items() if key != "p95_by_path_ms"}
    lines = ["| figure | value |", "|---|---|", *(f"| {key.replace('_', ' ')} | {'-' if value is None else value} |" for key, value in figures.items())]
    slowest = [f"`{path}` {value}" for path, value in list(found["p95_by_path_ms"].items())[:5]]
    lines += ["", f"The slowest, p95 in ms: {', '.join(slowest)}.", ""]
    targets: dict[str, bool | None] = {
        "95 % of reads below 50 ms": found["share_under_50_ms"] >= 0.95,
        "chart of 10,000 candles below 150 ms": None if painted is None or found["chart_candles"] < 10_000 else painted < 150,
        "200 live viewers served": None if found["viewers"] < 200 else found["viewers_served"] >= found["viewers"]}
    words = {True: "met", False: "**missed**", None: "not compared"}
    return "\n".join([*lines, *(f"* {target}: {words[met]}" for target, met in targets.items())])

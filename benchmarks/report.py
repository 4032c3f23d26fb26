"""The tables: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.bench import Work

PEERS = ("candlelake", "arcticdb", "sqlite", "duckdb", "parquet")


def shown(seconds: float) -> str:
    """Return a duration with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def verdict(work: Work) -> str:
    """Return whether the target is met; a missed one is said, never an error."""
    if work.is_met is None:
        return ""
    met = work.is_met(work.medians)
    return "not compared" if met is None else "met" if met else "**missed**"


def cell(work: Work, peer: str) -> str:
    """Return a peer's median, and how many times ours it is."""
    if peer not in work.medians:
        return "-"
    seconds, ours = work.medians[peer], work.medians["candlelake"]
    text = f"{work.rows / seconds / 1e6:.2f} M rows/s" if work.rows else shown(seconds)
    return text if peer == "candlelake" else f"{text} ({seconds / ours:.3g}x)"


def table(works: list[Work]) -> str:
    """Return the works as a Markdown table; in brackets the peer's time as a multiple of ours."""
    lines = ["| work | " + " | ".join(PEERS) + " | target | |", "|" + "---|" * (len(PEERS) + 3)]
    lines += [f"| {work.title} | " + " | ".join(cell(work, peer) for peer in PEERS) + f" | {work.target} | {verdict(work)} |"
              for work in works]
    return "\n".join(lines)


def write(folder: Path, works: list[Work], versions: dict[str, str], download: dict[str, Any] | None) -> str:
    """Write latest.md and latest.json and return the Markdown."""
    folder.mkdir(exist_ok=True)
    parts = ["Median of the repeats; in brackets the peer's time as a multiple of ours, so above 1x ours is faster.",
             ", ".join(f"{name} {version}" for name, version in versions.items()), table(works)]
    if download is not None:
        parts.append(download["text"])
    text = "\n\n".join(parts) + "\n"
    (folder / "latest.md").write_text(text)
    rows = [{"work": work.title, "rows": work.rows, "median_seconds": work.medians, "seconds": work.seconds,
             "target": work.target, "verdict": verdict(work).strip("*")} for work in works]
    (folder / "latest.json").write_text(json.dumps({"versions": versions, "works": rows, "download": download}, indent=1) + "\n")
    return text

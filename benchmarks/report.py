"""The report: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bench import Work
from benchmarks.others import Section

PEERS = ("candlelake", "arcticdb", "sqlite", "duckdb", "parquet")
RESULTS = Path(__file__).parent / "results"
KEPT = Path(__file__).parent / "RESULTS.md"
REASONS = Path(__file__).parent / "REASONS.md"
QUIET = 1.5  # load average at the start of a group: the benchmark itself keeps about one core busy


@dataclass
class Report:
    """All that a run has found so far. `loads` is the load average when each part began, by its name."""

    versions: dict[str, str]
    repeats: int
    works: list[Work] = field(default_factory=list)
    download: dict[str, Any] | None = None
    sections: list[Section] = field(default_factory=list)
    loads: dict[str, float] = field(default_factory=dict)

    def begin(self, part: str) -> None:
        """Note the load under which a part is measured."""
        self.loads[part] = round(os.getloadavg()[0], 2)

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = ["# Measured", "\n".join(self._conditions()), "## The peers side by side", table(self.works), counted(self.works)]
        if self.download is not None:
            parts += ["## Download", self.download["text"]]
        for section in self.sections:
            parts += [f"## {section.title}", section.text]
        if REASONS.exists():
            parts.append(REASONS.read_text().strip())
        return "\n\n".join(parts) + "\n"

    def write(self, *, keep: bool = False) -> str:
        """Write results/latest.md and latest.json, with `keep` RESULTS.md too, and return the Markdown."""
        RESULTS.mkdir(exist_ok=True)
        text = self.markdown()
        (RESULTS / "latest.md").write_text(text)
        rows = [{"work": work.title, "rows": work.rows, "median_seconds": work.medians, "seconds": work.seconds,
                 "target": work.target, "verdict": verdict(work).strip("*")} for work in self.works]
        whole = {"versions": self.versions, "repeats": self.repeats, "load_averages": self.loads, "works": rows,
                 "download": self.download, "sections": [asdict(section) for section in self.sections]}
        (RESULTS / "latest.json").write_text(json.dumps(whole, indent=1) + "\n")
        if keep:
            KEPT.write_text(text)
        return text

    def _conditions(self) -> list[str]:
        highest = max(self.loads.values(), default=0.0)
        machine = "a machine at rest" if highest <= QUIET * 2 else "**a machine busy with other work: ratios may be off by half**"
        loads = ", ".join(f"{name} {load}" for name, load in self.loads.items())
        return ["Written by `make bench`; what stands below the tables is `REASONS.md`.",
                f"{os.cpu_count()} cores, {machine}: load average when each part began: {loads}.",
                f"Medians of {self.repeats} repeats after a warm-up, peer after peer in turn.",
                "In brackets the peer's time as a multiple of ours: above 1x ours is faster.",
                ", ".join(f"{name} {version}" for name, version in self.versions.items()) + "."]


def shown(seconds: float) -> str:
    """Return a duration with three digits."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def verdict(work: Work) -> str:
    """Return whether the target is met; a missed one is said, never an error."""
    if work.is_met is None:
        return ""
    met = work.is_met(work.medians)
    return "not compared" if met is None else "met" if met else "**missed**"


def counted(works: list[Work]) -> str:
    """Return how many targets are met."""
    found = [verdict(work).strip("*") for work in works if work.is_met is not None]
    return f"Targets: {found.count('met')} met, {found.count('missed')} missed, {found.count('not compared')} not compared."


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

"""Runs the same steps on every peer in turn, compares what they read back, and keeps the times."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.market import Columns, candles

ROOT = Path(__file__).parent.parent
Step = dict[str, Any]


class WrongAnswerError(Exception):
    """Raised when a peer reads back other candles than were stored: its time would mean nothing."""


@dataclass
class Work:
    """One line of the table: seconds by peer, the median of the repeats."""

    title: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    rows: int = 0  # above 0: shown as rows/s
    target: str = ""
    is_met: Callable[[dict[str, float]], bool] | None = None

    @property
    def medians(self) -> dict[str, float]:
        """Return the median seconds of each peer."""
        return {name: statistics.median(values) for name, values in self.seconds.items()}


class Player:
    """A peer's worker process."""

    def __init__(self, name: str, python: Path, folder: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [str(python), "-W", "ignore", "-m", "benchmarks.worker", name, str(folder)], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._answer()

    def run(self, step: Step) -> dict[str, Any]:
        """Run one step and return its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(step) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries may greet on stdout
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended with {self._process.wait()}; what it said stands above")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


class Bench:
    """All peers of a run."""

    def __init__(self, players: list[Player], repeats: int) -> None:
        self.players = players
        self.repeats = repeats
        self.works: list[Work] = []

    def all(self, step: Step) -> None:
        """Run an untimed step on every peer."""
        for player in self.players:
            player.run(step)

    def measure(self, work: Work, step_of: Callable[[int], Step], check_of: Callable[[int], tuple[Step, Any]] | None = None,
                *, only: tuple[str, ...] = (), repeats: int | None = None) -> None:
        """Time a step: one warm-up, then the repeats, peer after peer in turning order.

        Args:
            work: gets the times.
            step_of: the step of repeat n (0 is the warm-up).
            check_of: what to read back after repeat n, not timed, and what must come; without it `step_of` is a read
                and brings its own `expected`.
            only: peers that take part.
            repeats: instead of the run's.
        """
        players = [player for player in self.players if not only or player.name in only]
        for turn in range((repeats or self.repeats) + 1):
            step = step_of(turn)
            expected = step.pop("expected", None)
            for player in players[turn % len(players):] + players[:turn % len(players)]:
                answer = player.run(step)
                if check_of is not None:
                    check, expected = check_of(turn)
                    compare(player.name, work.title, player.run(check)["digest"], expected)
                else:
                    compare(player.name, work.title, answer["digest"], expected)
                if turn:
                    work.seconds.setdefault(player.name, []).append(answer["seconds"])
        self.works.append(work)
        print(f"  {work.title}: " + ", ".join(f"{name} {1000 * value:.4g} ms" for name, value in work.medians.items()), flush=True)

    def close(self) -> None:
        """End all peers."""
        for player in self.players:
            player.close()


def compare(peer: str, title: str, found: str, expected: Any) -> None:
    """Refuse an answer that is not the one that was stored."""
    if found != expected:
        raise WrongAnswerError(f"{title}: {peer} read {found}, stored was {expected}")


def read_all(name: str, seed: int, first: int, rows: int, raised: float = 0.0) -> tuple[Step, str]:
    """Return the step that reads a range back, and what must come."""
    return ({"op": "between", "name": name, "first": first, "rows": rows}, candles(seed, first, rows, raised).digest())


def totals(columns: Columns) -> str:
    """Return what a `total` over these candles must answer."""
    return str((len(columns.ts), float(columns.values["low"].min()), float(columns.values["high"].max())))

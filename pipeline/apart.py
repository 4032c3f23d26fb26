"""Judges candles in a process of its own that has no home: what a pipeline says there, it says of its candles alone.

Whatever a plug-in kept of later candles, in itself, its class or its module, is not there; nor is the store, where it could
read them. The plug-ins are made before the home is taken away, so that they may load what their definition names.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from core.errors import CandlelakeError, PluginError
from core.interval import Interval
from core.settings import settings
from pipeline.definition import PipelineDefinition
from pipeline.engine import Engine, records
from pipeline.registry import Registry
from pipeline.stages import Context

_READS: Final = ("open", "os.listdir", "os.scandir", "glob.glob", "glob.glob/2")  # of interest below the home only
_REACHES: Final = ("sqlite3.connect", "socket.connect", "socket.getaddrinfo", "subprocess.Popen")


@dataclass(frozen=True, slots=True)
class Told:
    """What a pipeline says of one candle, the last one of its window: its signal as a line, and what the indicators are there."""

    line: bytes
    values: dict[str, float | None]
    passed: bool
    error: str | None = None

    def difference(self, other: Told) -> str | None:
        """Return what `other` says otherwise, None when it says the same."""
        if self.error != other.error:
            return f"an error: {other.error or self.error}"
        for name in self.values | other.values:
            mine, theirs = (repr(told.values.get(name)) for told in (self, other))  # by their digits: NaN is like NaN
            if mine != theirs:
                return f"{theirs} instead of {mine} in the column {name}"
        if self.passed != other.passed:
            return "another answer of the filters"
        return None if self.line == other.line else "another signal, or another confidence"


@dataclass(frozen=True, slots=True)
class Apart:
    """What was said in the other process, candle by candle, and what a plug-in reached for meanwhile."""

    told: list[Told]
    reached: list[str]


def tell(engine: Engine, context: Context, window: pl.DataFrame) -> Told:
    """Judge the last candle of a window as a live run does; what a plug-in raises is told, too."""
    newest = window["ts"][-1]
    ts_us = int(window["ts"].dt.epoch("us")[-1])
    try:
        frame, passed = engine.columns(window, context, "indicator")
        is_there = len(frame) > 0 and frame["ts"][-1] == newest
        values = frame.row(-1, named=True) if is_there else {}
        found = engine.scan(window, Interval(ts_us, ts_us + 1), context, singly=True).signals
    except CandlelakeError as error:
        return Told(b"", {}, passed=False, error=str(error))
    line = b"".join(record.as_line() for record in records(found, engine.definition, context))
    return Told(line, {name: value for name, value in values.items() if name != "ts"}, passed=is_there and (passed is None or bool(passed[-1])))


def judge_apart(engine: Engine, context: Context, windows: Sequence[pl.DataFrame], home: Path) -> Apart:
    """Judge the last candle of each window, in their order, in a new process without `home`.

    Raises:
        PluginError: the process died of a plug-in, or its plug-ins could not be made there.
    """
    work = pickle.dumps((engine.definition, engine.registry, context, list(windows), home.resolve()))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}
    done = subprocess.run([sys.executable, "-c", "from pipeline.apart import main; main()"], input=work, stdout=subprocess.PIPE, env=environment, check=False)
    if done.returncode != 0:
        raise PluginError(
            f"pipeline {engine.definition.name}: a process of its own that judged it ended with {done.returncode}; correct the plug-ins")
    answer = pickle.loads(done.stdout)  # noqa: S301  our own process's words
    if isinstance(answer, str):
        raise PluginError(answer)
    found: Apart = answer
    return found


class _Watch:
    """Notes what is reached for while it is on: files of the home, databases, the network, other processes."""

    def __init__(self, home: Path) -> None:
        self.reached: list[str] = []
        self.is_on = False
        self._home = home

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or event not in (*_READS, *_REACHES):
            return
        what = str(arguments[1] if event == "socket.connect" else arguments[0])
        if event in _REACHES or Path(what).resolve().is_relative_to(self._home):
            self.reached.append(f"{event} {what}"[:200])


def _judge(
    definition: PipelineDefinition, registry: Registry, context: Context, windows: Sequence[pl.DataFrame], home: Path,
) -> Apart | str:
    try:
        engine = Engine(definition, registry)
    except CandlelakeError as error:
        return str(error)
    watch = _Watch(home)
    sys.addaudithook(watch)  # stays until the process ends, which is soon
    with tempfile.TemporaryDirectory() as empty:
        for name in [name for name in os.environ if name.startswith("CANDLELAKE_")]:
            del os.environ[name]
        os.environ["CANDLELAKE_HOME"] = empty
        settings.cache_clear()
        os.chdir(empty)
        watch.is_on = True
        told = [tell(engine, context, window) for window in windows]
        watch.is_on = False
    return Apart(told, sorted(set(watch.reached)))


def main() -> None:
    """Judge what stdin holds and write the answer to stdout; what plug-ins print goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    work = pickle.load(sys.stdin.buffer)  # noqa: S301  our own parent's words
    answers.write(pickle.dumps(_judge(*work)))
    answers.close()


"""Plug-ins of the tests: one that looks ahead, one that raises, one that is slow to see, executors that are told to fail."""

import builtins
import threading
from typing import ClassVar

import polars as pl

from pipeline.stages import Context, ExecutionReport, Parameters, Services, Signal, SignalRecord


class Peeking:
    """An indicator that knows the next close."""

    kind: ClassVar = "indicator"
    is_causal: ClassVar[bool] = True
    Parameters = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.select(peek=pl.col("close").shift(-1) - pl.col("close"))


class Hanging:
    """An indicator that does not come back before `release` is set; with `spins` it burns its time, without it sleeps."""

    kind: ClassVar = "indicator"
    is_causal: ClassVar[bool] = True
    release: ClassVar[threading.Event] = threading.Event()
    calls: ClassVar[list[str]] = []

    class Parameters(Parameters):
        """How it hangs."""

        spins: bool = False

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        self.calls.append(context.pipeline)
        while not self.release.wait(0 if self.parameters.spins else 60):
            continue
        return frame.select(slow=pl.col("close"))


class Unborn:
    """An indicator whose constructor does not come back before `release` is set, or raises what it is told to."""

    kind: ClassVar = "indicator"
    is_causal: ClassVar[bool] = True
    release: ClassVar[threading.Event] = threading.Event()
    fails: ClassVar[str] = ""
    hangs: ClassVar[bool] = False
    made: ClassVar[list[str]] = []
    look: ClassVar[staticmethod] = staticmethod(lambda: None)
    Parameters = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.made.append(self.fails or "made")
        self.look()
        if self.fails:
            raise getattr(builtins, self.fails, StrangeError)("a plug-in's own mistake")
        while self.hangs and not self.release.wait(60):
            continue

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        return frame.select(born=pl.col("close"))


class StrangeError(BaseException):
    """What is no Exception."""


class Raising:
    """An indicator that fails, with what it is told to."""

    kind: ClassVar = "indicator"
    is_causal: ClassVar[bool] = True

    class Parameters(Parameters):
        """What it raises."""

        what: str = "ZeroDivisionError"

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        kind = getattr(builtins, self.parameters.what, StrangeError)
        raise kind("a plug-in's own mistake")


class Scribbling:
    """A filter that writes into what it was given, and passes everything."""

    kind: ClassVar = "filter"
    is_causal: ClassVar[bool] = True
    Parameters = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:
        frame.insert_column(0, pl.lit(0.0).alias("scribble"))
        frame.replace_column(frame.get_column_index("close"), pl.repeat(1.0, len(frame), eager=True).alias("close"))
        return pl.repeat(True, len(frame), dtype=pl.Boolean, eager=True)


class Alone:
    """A generator without a vectorised path, not causal: it counts its rows."""

    kind: ClassVar = "signal"
    is_causal: ClassVar[bool] = False
    Parameters = Parameters

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:
        return Signal("buy", f"row {len(frame)}") if len(frame) % 5 == 0 else None


class Noting:
    """An executor that notes what it was asked, and fails while it is told to."""

    kind: ClassVar = "executor"
    is_causal: ClassVar[bool] = True
    Parameters = Parameters
    asked: ClassVar[list[str]] = []
    fails: ClassVar[bool] = False

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters

    async def execute(self, record: SignalRecord, services: Services) -> ExecutionReport:
        self.asked.append(record.key)
        if type(self).fails:
            raise ConnectionError("the broker does not answer")
        return ExecutionReport("done", "noted", record.key)


PLUGINS = {name: f"tests.pipeline.plugins:{name}" for name in ("Peeking", "Raising", "Hanging", "Unborn", "Scribbling", "Alone", "Noting")}

"""The stages of a pipeline: what each gets, what it gives back, and what it may rely on.

A pipeline runs `clean -> filter -> calculate -> generate -> evaluate -> execute`; each stage holds any number of plug-ins, in order.

**Frames** are Polars frames with the columns of `core.candles.CANDLE_SCHEMA` (`ts` is the open time, prices in the quote
currency, volume in the provider's unit, `spread` in price units and null where there is none), ascending and unique on
`ts`; from the third stage on with one column for each indicator. Every row is a closed candle at or before the frontier.

**Causal plug-ins.** A live run hands a plug-in the window up to one candle and looks at its last row. A replay hands a
plug-in with `is_causal = True` a longer window once and looks at many rows, so row i of its answer may depend on rows 0..i
alone. Replays re-run a sample of candles one by one and `candlelake pipelines check` does so against changed futures; a
plug-in that breaks the promise is named with the candle. One with `is_causal = False` is run candle by candle.

**Errors.** Whatever a plug-in raises ends this pipeline's run of this candle, is stored with the stage and the plug-in,
and touches no other pipeline. An `InputError` (bad parameters) belongs into the constructor: then the definition is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol, runtime_checkable

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict

from core.clock import isoformat
from core.series import Series
from core.timeframe import Grid
from pipeline.ports import Resources, Services

Kind = Literal["cleaner", "filter", "indicator", "signal", "confidence", "executor"]
Side = Literal["buy", "sell"]
KINDS: Final[tuple[Kind, ...]] = ("cleaner", "filter", "indicator", "signal", "confidence", "executor")  # in running order
SIDES: Final[Mapping[int, Side]] = {1: "buy", -1: "sell"}
NUMBERS: Final[Mapping[Side, int]] = {"buy": 1, "sell": -1}
CONFIDENCE_MAX: Final = 100.0

# What a vectorised signal generator gives: `row` counts rows of the frame from 0, `side` is 1 (buy) or -1 (sell).
FOUND_SCHEMA: Final = pl.Schema({"row": pl.UInt32(), "side": pl.Int8(), "reason": pl.String()})


class Parameters(BaseModel):
    """Base of a plug-in's parameters: unknown names are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Context:
    """What a plug-in may know besides the candles; it is the same for every candle of a series."""

    pipeline: str
    version: int
    series: Series
    grid: Grid  # open times of the series
    market_type: str  # fx | crypto


@dataclass(frozen=True, slots=True)
class Signal:
    """What a generator sees in the last row: a side, and why in a few words."""

    side: Side
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SignalRecord:
    """A signal with everything it was made of. `as_of_us` is when it was decided: it differs between live and replay."""

    pipeline: str
    version: int
    series: Series
    ts_us: int  # open time of the candle
    close_us: int  # its close: the frontier
    side: Side
    price: float  # the candle's close
    confidence: float  # 0..100
    threshold: float  # an executor acts at or above it
    reason: str
    values: Mapping[str, float | None]  # every indicator at this candle
    input_digest: str  # of the candles the stages saw
    as_of_us: int = field(compare=False, default=0)

    @property
    def key(self) -> str:
        """Name of the decision: pipeline, version, series, candle. An executor acts once for each."""
        return f"{self.pipeline}@{self.version} {self.series} {isoformat(self.ts_us)}"

    @property
    def is_actionable(self) -> bool:
        """Whether the confidence reaches the pipeline's threshold."""
        return self.confidence >= self.threshold

    def as_dict(self) -> dict[str, Any]:
        """Return the decision as JSON-ready values, without when it was made."""
        return {
            "pipeline": self.pipeline, "version": self.version, "connection": self.series.connection,
            "symbol": self.series.symbol, "timeframe": self.series.timeframe.name, "ts": isoformat(self.ts_us),
            "close_time": isoformat(self.close_us), "side": self.side, "price": self.price, "confidence": self.confidence,
            "threshold": self.threshold, "is_actionable": self.is_actionable, "reason": self.reason,
            "values": dict(self.values), "input_digest": self.input_digest,
        }

    def as_line(self) -> bytes:
        """Return the decision as one line of JSON: a live run and its replay give the same bytes."""
        return orjson.dumps(self.as_dict(), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class ExecutionReport:
    """What an executor did with a signal: `done`, `refused` (a limit, a switch), or `pending` (ask it again later)."""

    status: Literal["done", "refused", "pending"]
    message: str
    order_key: str | None = None


class Plugin(Protocol):
    """What every plug-in class has. It is made with its checked parameters: `MyFilter(MyFilter.Parameters(...))`.

    A class may also have `freeze(parameters, owner, resources) -> dict`, a classmethod that is called once when a
    definition is saved: what it names elsewhere (a stored expression, a model file) becomes part of that version.
    """

    kind: ClassVar[Kind]
    is_causal: ClassVar[bool]
    Parameters: ClassVar[type[BaseModel]]

    def __init__(self, parameters: Any) -> None: ...


@runtime_checkable
class DataCleaner(Protocol):
    """Takes out candles that cannot be true."""

    def clean(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """Return the rows to go on with, in their order, with the columns of CANDLE_SCHEMA.

        Rows may be left out, never added or invented. When the newest candle is left out there is no signal for it.
        """


@runtime_checkable
class DataFilter(Protocol):
    """Says on which candles a signal may arise; all rows stay, so that indicators run over unbroken candles."""

    def filter(self, frame: pl.DataFrame, context: Context) -> pl.Series:
        """Return a Boolean for each row; null counts as False. A signal needs True from every filter."""


@runtime_checkable
class IndicatorCalculator(Protocol):
    """Adds columns."""

    def calculate(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """Return the new columns only, Float64, one row for each row of `frame`; null where there is no value yet.

        `frame` also has the columns of the indicators before this one. Names that exist already are an error. Where the
        definition gives a name, a single column is called by it, and several NAME_COLUMN; a class with `bind(label)` names its own.
        """


@runtime_checkable
class SignalGenerator(Protocol):
    """Looks at the newest candle."""

    def generate(self, frame: pl.DataFrame, context: Context) -> Signal | None:
        """Return a signal for the last row, or None. Of several generators the first one with a signal decides."""


@runtime_checkable
class VectorisedSignals(Protocol):
    """What a generator may have besides `generate`, for fast replays; replays check one against the other."""

    def generate_all(self, frame: pl.DataFrame, context: Context) -> pl.DataFrame:
        """Return FOUND_SCHEMA rows, ascending: what `generate` would say of each prefix of `frame`."""


@runtime_checkable
class ConfidenceEvaluator(Protocol):
    """Says how far a signal can be trusted."""

    def evaluate(self, signal: Signal, frame: pl.DataFrame, context: Context) -> float:
        """Return 0..100 for a signal on the last row. Of several evaluators the lowest answer counts; without any it is 0."""


@runtime_checkable
class VectorisedConfidence(Protocol):
    """What an evaluator may have besides `evaluate`, for fast replays."""

    def evaluate_all(self, found: pl.DataFrame, frame: pl.DataFrame, context: Context) -> pl.Series:
        """Return a Float64 for each row of `found` (FOUND_SCHEMA): what `evaluate` would say of that prefix of `frame`."""


@runtime_checkable
class SignalExecutor(Protocol):
    """Acts on a stored signal. It is never called in a replay, nor for a challenger in a shadow comparison."""

    async def execute(self, record: SignalRecord, services: Services) -> ExecutionReport:
        """Act on `record` at most once for its `key`, however often this is called with it.

        It is called for every signal of the pipeline, after the signal is durable, and again as long as it answers
        `pending`, raises, or its process dies. It must itself refuse what is not `is_actionable`.
        """


METHODS: Final[Mapping[Kind, str]] = {
    "cleaner": "clean", "filter": "filter", "indicator": "calculate", "signal": "generate", "confidence": "evaluate",
    "executor": "execute",
}

__all__ = [
    "CONFIDENCE_MAX", "FOUND_SCHEMA", "KINDS", "METHODS", "NUMBERS", "SIDES", "ConfidenceEvaluator", "Context", "DataCleaner",
    "DataFilter", "ExecutionReport", "IndicatorCalculator", "Kind", "Parameters", "Plugin", "Resources", "Services", "Side",
    "Signal", "SignalExecutor", "SignalGenerator", "SignalRecord", "VectorisedConfidence", "VectorisedSignals",
]

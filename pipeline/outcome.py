"""What a run of a pipeline over one candle, or a scan over many, has found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from core.candles import TS
from core.errors import CandlelakeError
from pipeline.stages import Kind, SignalRecord

Status = Literal["ok", "stopped", "error"]

# A scan's signals: one row each. `values` is a struct of the indicators at the candle.
SCAN_COLUMNS: Final = ("ts", "side", "price", "confidence", "reason", "input_digest", "values")
SIGNAL_SCHEMA: Final = pl.Schema({
    "ts": TS, "side": pl.Int8(), "price": pl.Float64(), "confidence": pl.Float64(), "reason": pl.String(),
    "input_digest": pl.String(),
})


@dataclass(frozen=True, slots=True)
class Part:
    """One plug-in's share of a stage."""

    name: str
    plugin: str
    ms: float

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON-ready values."""
        return {"name": self.name, "plugin": self.plugin, "ms": round(self.ms, 3)}


@dataclass(frozen=True, slots=True)
class StageRun:
    """One stage of a run. `stopped` means: it ran well and left nothing to go on with."""

    kind: Kind
    status: Status
    rows_in: int
    rows_out: int | None
    input_digest: str
    output_digest: str | None
    ms: float
    parts: Sequence[Part] = ()
    error: str | None = None
    note: str = ""  # why it stopped


@dataclass(slots=True)
class Outcome:
    """What came of one candle: the stages that ran, and the signal when there is one."""

    ts_us: int
    stages: list[StageRun] = field(default_factory=list)
    signal: SignalRecord | None = None
    error: CandlelakeError | None = None

    @property
    def status(self) -> Status:
        """How the last stage ended."""
        return "ok" if not self.stages else self.stages[-1].status


@dataclass(slots=True)
class Scan:
    """What came of many candles of one chapter: the signals, and the time of each stage."""

    signals: pl.DataFrame  # SIGNAL_SCHEMA, and `values`
    candles: int  # how many were judged
    stages: list[StageRun] = field(default_factory=list)

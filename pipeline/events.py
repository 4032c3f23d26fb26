"""The pipeline's events: typed, for subscribers in this process and, through tasks/, for Prefect.

An event is a hint, delivered at most once to each subscriber, after what it tells of is durable. It names candles and never
carries them: whoever needs every candle reads the lake from a watermark of their own.

Other packages subscribe by entry points in the group `candlelake.pipeline.events`; each names a function that takes one event:

    [project.entry-points."candlelake.pipeline.events"]
    my_listener = "my_package:on_event"
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final

from core.clock import isoformat
from core.interval import Interval
from core.secrets import redact
from core.series import Series

GROUP: Final = "candlelake.pipeline.events"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineEvent:
    """What all events have. `name` is the event's name in Prefect."""

    name: ClassVar[str] = ""

    series: Series
    run_id: str

    def payload(self) -> dict[str, Any]:
        """Return the event as JSON-ready values: connection, symbol, timeframe, instants as ISO 8601 with Z, and its own fields."""
        out: dict[str, Any] = {
            "connection": self.series.connection, "symbol": self.series.symbol, "timeframe": self.series.timeframe.name}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Interval):
                out |= {"start": isoformat(value.start), "end": isoformat(value.end)}
            elif item.name == "ts_us":
                out["ts"] = isoformat(value)
            elif item.name != "series":
                out[item.name] = value
        return out


@dataclass(frozen=True, slots=True)
class DataReceived(PipelineEvent):
    """A series has grown or was corrected; what is new lies in `interval`: `stored` new candles, `revised` changed ones."""

    name: ClassVar[str] = "candlelake.data-received"

    interval: Interval
    stored: int
    revised: int


@dataclass(frozen=True, slots=True)
class _Judged(PipelineEvent):
    """An event about one candle of one pipeline."""

    pipeline: str
    version: int
    ts_us: int  # open time of the candle


@dataclass(frozen=True, slots=True)
class DataCleaned(_Judged):
    """The cleaners have run: of `rows_in` candles of the window `rows_out` are left."""

    name: ClassVar[str] = "candlelake.data-cleaned"

    rows_in: int
    rows_out: int


@dataclass(frozen=True, slots=True)
class DataFiltered(_Judged):
    """The filters have run; `passed` says whether a signal may arise on this candle."""

    name: ClassVar[str] = "candlelake.data-filtered"

    passed: bool


@dataclass(frozen=True, slots=True)
class SignalGenerated(_Judged):
    """A signal was stored. `confidence` is 0 to 100; `is_shadow` means that nobody acts on it."""

    name: ClassVar[str] = "candlelake.signal-generated"

    side: str
    price: float
    confidence: float
    is_actionable: bool
    is_shadow: bool


@dataclass(frozen=True, slots=True)
class PipelineStageCompleted(_Judged):
    """A stage has run: `status` ok, stopped or error, with its time and, for an error, one line.

    The executor's comes after the others, whenever it was asked: once for each time.
    """

    name: ClassVar[str] = "candlelake.pipeline-stage-completed"

    stage: str
    status: str
    execution_time_ms: float
    error: str | None


Subscriber = Callable[[PipelineEvent], None]


def publish(events: Iterable[PipelineEvent], extra: Iterable[Subscriber] = ()) -> None:
    """Hand events to every subscriber in order; one that raises is logged and harms nobody else."""
    everyone = [*subscribers(), *extra]
    for event in events:
        for subscriber in everyone:
            try:
                subscriber(event)
            except (Exception, SystemExit) as failure:  # noqa: BLE001  a foreign subscriber's failure is its own
                log.warning("a subscriber of %s raised %s: %s", event.name, type(failure).__name__, redact(str(failure)))


@cache
def subscribers() -> tuple[Subscriber, ...]:
    """Return the subscribers of installed packages; one that does not import is logged and left out."""
    out: list[Subscriber] = []
    for point in entry_points(group=GROUP):
        try:
            out.append(point.load())
        except (Exception, SystemExit) as failure:  # noqa: BLE001  a foreign package's failure is its own
            log.warning("the subscriber %s does not import: %s: %s", point.name, type(failure).__name__, redact(str(failure)))
    return tuple(out)

"""How a stream behaves, what it did when it ended, and who wants to hear of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

from core.ticks import Tick
from storage.head import Batch


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream behaves.

    Attributes:
        ticks: keep ticks and build candles from them; else the venue's own candles are taken where it has them.
        commit_seconds: how long ticks wait at most before they are written.
        lateness_seconds: how long after its end a candle waits for ticks.
        grace_seconds: how long a silence may last beyond one timeframe.
        allowance_seconds: by how much a lost range is booked wider on both sides, for what was on its way.
        beat_seconds: how often the state is written.
        confirm_seconds: how often REST is asked at most.
        backoff_seconds: before the second try to reconnect; doubles, a minute at most.
        lease_seconds: how long after its last word another run may take the stream over.
        while_marked: end when the connection's setting `stream` is switched off.
        skew_seconds: how often the venue's clock is measured again while a session goes on.
    """

    ticks: bool = True
    commit_seconds: float = 0.2
    lateness_seconds: float = 1.0
    grace_seconds: float = 10.0
    allowance_seconds: float = 2.0
    beat_seconds: float = 2.0
    confirm_seconds: float = 1.0
    backoff_seconds: float = 0.5
    skew_seconds: float = 300.0
    lease_seconds: float = 60.0
    while_marked: bool = False


@dataclass(slots=True)
class StreamResult:
    """How a stream ended, and what it did."""

    run_id: str
    connection: str
    ticks: int = 0
    repeats: int = 0
    late: int = 0
    candles: int = 0
    agreed: int = 0
    contradicted: int = 0
    reconnects: int = 0
    losses: int = 0
    message: str = ""

    def plus(self, later: StreamResult) -> StreamResult:
        """Return both parts of one run as one."""
        counted = {item.name: getattr(self, item.name) + getattr(later, item.name) for item in fields(self) if item.type == "int"}
        return replace(self, **counted, message=later.message)


@dataclass(slots=True)
class Subscribers:
    """Who in this process wants to see what comes: called with each list of new ticks, and with stored candles.

    `durable` is called with each list of ticks that is on disk now, in the thread that has written it.
    """

    ticks: Callable[[Sequence[Tick]], None] = lambda _ticks: None
    candles: Callable[[Sequence[Batch]], None] = lambda _batches: None
    durable: Callable[[Sequence[Tick]], None] = lambda _ticks: None


__all__ = ["StreamOptions", "StreamResult", "Subscribers"]

"""Metrics of streams, in Prometheus' own registry: whoever serves `/metrics` in the process shows them.

A stream runs in a process of its own; its state in the metadata store carries the histograms to the console's `/metrics`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
from prometheus_client import Counter, Histogram

from core.clock import SECOND_US
from core.ticks import Tick

SAMPLES: Final = 4096  # of the newest, for quantiles
PER_SAMPLE: Final = 100  # ticks of one batch, of which one is a sample of delays
PACE_US: Final = 60 * SECOND_US
CLOCKS_AGREE_US: Final = SECOND_US  # a venue's clock this near to ours is taken for ours: measuring errs by the answer's way
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 60.0)

DURABLE: Final = Histogram("candlelake_tick_receipt_to_disk_seconds", "From a tick's receipt until it is on disk.", ["connection"],
                           buckets=_SECONDS)
EVENT_TO_DURABLE: Final = Histogram("candlelake_tick_event_to_disk_seconds", "From a tick's event until it is on disk.", ["connection"],
                                    buckets=_SECONDS)
EVENT_TO_SUBSCRIBER: Final = Histogram(
    "candlelake_tick_event_to_subscriber_seconds", "From a tick's event until subscribers of the process have it.", ["connection"],
    buckets=_SECONDS)
RECEIPT_TO_SUBSCRIBER: Final = Histogram(
    "candlelake_tick_receipt_to_subscriber_seconds", "From a tick's receipt until subscribers of the process have it.", ["connection"],
    buckets=_SECONDS)
HISTOGRAMS: Final = (DURABLE, EVENT_TO_DURABLE, EVENT_TO_SUBSCRIBER, RECEIPT_TO_SUBSCRIBER)
TICKS: Final = Counter("candlelake_ticks_stored", "Ticks that were written to disk.", ["connection"])
RECONNECTS: Final = Counter("candlelake_stream_reconnects", "Sessions that ended with an error.", ["connection", "cause"])
SILENT: Final = Counter("candlelake_stream_silent_symbols", "Symbols that fell silent while others of the connection spoke.",
                        ["connection"])
CANDLES: Final = Counter("candlelake_stream_candles", "Candles that a stream gave out.", ["connection"])


def histograms(connection: str) -> dict[str, dict[str, object]]:
    """Return the histograms of a connection in this process by metric: `buckets` as pairs of upper bound and count below it, `sum`."""
    out: dict[str, dict[str, object]] = {}
    for metric in HISTOGRAMS:
        for family in metric.collect():
            mine = [sample for sample in family.samples if sample.labels.get("connection") == connection]
            buckets = [[sample.labels["le"], sample.value] for sample in mine if sample.name.endswith("_bucket")]
            total = next((sample.value for sample in mine if sample.name.endswith("_sum")), 0.0)
            if buckets:
                out[family.name] = {"buckets": buckets, "sum": total}
    return out


class Pace:
    """How many came a second in the last minute."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()  # when, and how many had come until then

    def mark(self, now_us: int, count: int) -> float | None:
        """Take note of how many have come until now and return the pace since a minute ago; None before there are two marks."""
        self._marks.append((now_us, count))
        while len(self._marks) > 2 and self._marks[1][0] <= now_us - PACE_US:
            self._marks.popleft()
        (since, before) = self._marks[0]
        return (count - before) * SECOND_US / (now_us - since) if now_us > since else None


class Delays:
    """How long ticks took to reach subscribers of the process, as histograms and as the newest samples."""

    def __init__(self, connection: str) -> None:
        self._receipt = RECEIPT_TO_SUBSCRIBER.labels(connection)
        self._event = EVENT_TO_SUBSCRIBER.labels(connection)
        self.samples: deque[float] = deque(maxlen=SAMPLES)  # seconds from receipt

    def add(self, ticks: Sequence[Tick], now_us: int, ahead_us: int) -> None:
        """Take note that subscribers have `ticks` now; `ahead_us` is how far the venue's clock is ahead of ours."""
        for tick in ticks[::PER_SAMPLE]:
            wait = max(0, now_us - tick.received_us) / SECOND_US
            self.samples.append(wait)
            self._receipt.observe(wait)
            self._event.observe(max(0, now_us + ahead_us - tick.ts_us) / SECOND_US)


def quantiles(name: str, seconds: Collection[float]) -> dict[str, float]:
    """Return p50 and p99 of delays as milliseconds by `name_p50_ms` and `name_p99_ms`; nothing when there are none."""
    if not seconds:
        return {}
    low, high = np.quantile(np.array(list(seconds)), [0.5, 0.99])
    return {f"{name}_p50_ms": round(float(low) * 1000, 1), f"{name}_p99_ms": round(float(high) * 1000, 1)}


def ahead_us(skew_us: int) -> int:
    """Return how far a venue's clock is to be taken as ahead of ours when the age of its ticks is told."""
    return skew_us if abs(skew_us) > CLOCKS_AGREE_US else 0

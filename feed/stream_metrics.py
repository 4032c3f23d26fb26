"""Metrics of streams, in Prometheus' own registry: whoever serves `/metrics` in the process shows them.

A stream runs in a process of its own; its state in the metadata store carries the histograms to the console's `/metrics`.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0, 60.0)

DURABLE: Final = Histogram("candlelake_tick_receipt_to_disk_seconds", "From a tick's receipt until it is on disk.", ["connection"],
                           buckets=_SECONDS)
EVENT_TO_DURABLE: Final = Histogram("candlelake_tick_event_to_disk_seconds", "From a tick's event until it is on disk.", ["connection"],
                                    buckets=_SECONDS)
EVENT_TO_SUBSCRIBER: Final = Histogram(
    "candlelake_tick_event_to_subscriber_seconds", "From a tick's event until subscribers of the process have it.", ["connection"],
    buckets=_SECONDS)
HISTOGRAMS: Final = (DURABLE, EVENT_TO_DURABLE, EVENT_TO_SUBSCRIBER)
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

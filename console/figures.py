"""The console's figures for Prometheus: every connection's health, and its stream's as its own process last told it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from connections.health import HealthRow, read_health
from feed import Feed
from feed.stream_metrics import HISTOGRAMS
from storage.ticks.states import ALIVE

LABELS: Final = ["connection"]
GAUGES: Final = {
    "recent_ticks_per_second": ("ticks_per_second_last_minute", "Ticks a second in the last minute"),
    "clock_skew_seconds": ("clock_skew_seconds", "How far the venue's clock is ahead of ours"),
}
COUNTERS: Final = {"ticks": "Ticks stored by the stream's run", "candles": "Candles that the stream gave out",
                   "reconnects": "Sessions that ended with an error", "losses": "Ranges booked as lost"}


def exposition(feed: Feed) -> bytes:
    """Return the figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Figures(read_health(feed.lake, feed.clock.now_us()), feed.clock.now_us()))
    return generate_latest(registry)


class Figures(Collector):
    """What was read once, as metric families."""

    def __init__(self, rows: list[HealthRow], now_us: int) -> None:
        self._rows, self._now_us = rows, now_us

    def collect(self) -> Iterator[Metric]:
        """Give each family with a sample for each connection that has the figure."""
        yield self._gauge("ok", "1 when the connection delivers", ((row, float(row.status == "ok")) for row in self._rows))
        yield self._gauge("gaps", "Entries of the gap ledger", ((row, row.gaps) for row in self._rows))
        yield self._gauge("lag_seconds", "Open-market seconds since the last candle", ((row, row.lag_seconds) for row in self._rows))
        streams = [(row, row.stream) for row in self._rows if row.stream is not None]
        yield self._gauge("up", "1 when the stream's run is alive",
                          ((row, float(stream.at(self._now_us) in ALIVE)) for row, stream in streams), "stream")
        yield self._gauge("lag_seconds", "From the newest tick's event to its receipt",
                          ((row, stream.lag_seconds) for row, stream in streams), "stream")
        yield self._gauge("ticks_per_second", "Ticks a second since the stream's run began",
                          ((row, stream.ticks_per_second) for row, stream in streams), "stream")
        for name, (figure, meaning) in GAUGES.items():
            yield self._gauge(name, meaning, ((row, stream.counts.get(figure)) for row, stream in streams), "stream")
        yield self._gauge("silent", "Symbols that say nothing while others tick and their market trades",
                          ((row, len(stream.counts.get("silent", ()))) for row, stream in streams), "stream")
        for name, meaning in COUNTERS.items():
            counter = CounterMetricFamily(f"candlelake_stream_{name}", meaning, labels=LABELS)
            for row, stream in streams:
                counter.add_metric([row.slug], float(stream.counts.get(name, 0)))
            yield counter
        for told_as in (family for metric in HISTOGRAMS for family in metric.describe()):
            family = HistogramMetricFamily(told_as.name, told_as.documentation, labels=LABELS)
            for row, stream in streams:
                told = stream.counts.get("histograms", {}).get(told_as.name)
                if told:
                    family.add_metric([row.slug], buckets=[(bound, count) for bound, count in told["buckets"]], sum_value=told["sum"])
            yield family

    @staticmethod
    def _gauge(name: str, meaning: str, values: Iterable[tuple[HealthRow, float | None]], of: str = "connection") -> Metric:
        family = GaugeMetricFamily(f"candlelake_{of}_{name}", meaning, labels=LABELS)
        for row, value in values:
            if value is not None:
                family.add_metric([row.slug], value)
        return family

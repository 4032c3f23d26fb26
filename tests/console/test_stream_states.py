"""What a stream's own process last told of itself is what monitoring, the page and Prometheus show."""

from datetime import timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from storage.ticks.states import StreamState, write_state

WAITS = {"buckets": [["0.5", 90.0], ["1.0", 99.0], ["+Inf", 100.0]], "sum": 31.5}


@pytest.fixture
def streamed(feed, clock):
    """A stream of Ann's connection that lives: 100 ticks, 2 losses."""
    now = clock.now_us()
    counts = {"ticks": 100, "candles": 3, "contradicted": 1, "reconnects": 4, "losses": 2, "silent": {"ETH/USD": "2024-01-01T00:00:00Z"},
              "ticks_per_second_last_minute": 20.0, "clock_skew_seconds": -2.5, "receipt_to_subscriber_p99_ms": 7.5,
              "histograms": {"candlelake_tick_receipt_to_disk_seconds": WAITS}}
    with feed.lake.metadata.write() as tx:
        write_state(tx, feed.connections.get("anns").id, StreamState(
            "anns", "r", "live", None, now - 9_000_000, now, now - 250_000, 0.25, 12.5, counts))


async def _health(http):
    return {row["connection"]: row["stream"] for row in (await http.get("/api/data-connections/health")).json()}


@pytest.mark.usefixtures("streamed")
async def test_health_tells_the_stream_and_its_silence(browser, clock):
    """State, pace, lag and counts of the stream, none where there never was one; a minute without a sign of life is `killed`."""
    http = browser().http
    told = await _health(http)
    assert told["house"] is None
    assert (told["anns"]["silent"], told["anns"]["ticks_per_second_last_minute"], told["anns"]["receipt_to_subscriber_p99_ms"]) == (1, 20.0, 7.5)
    shown = {name: told["anns"][name] for name in ("state", "lag_seconds", "ticks_per_second", "ticks", "reconnects", "losses")}
    assert shown == {"state": "live", "lag_seconds": 0.25, "ticks_per_second": 12.5, "ticks": 100, "reconnects": 4, "losses": 2}
    clock.advance(timedelta(seconds=61))
    assert (await _health(http))["anns"]["state"] == "killed"


@pytest.mark.usefixtures("streamed")
async def test_the_connections_page_has_a_line_of_it(browser):
    """The status page of a connection says how fast its stream is and how far behind."""
    one = browser()
    await one.sign_in("ann")
    assert "live: 20.0 ticks/s in the last minute, 12.5 since it began, 0.25 s from event to receipt; 1 silent: ETH/USD" in (await one.get("/connections/anns")).text


@pytest.mark.usefixtures("streamed")
async def test_prometheus_reads_the_histograms_of_another_process(browser, token):
    """Gauges, counters and histograms of the stream are in Prometheus' format, value for value."""
    text = (await browser().http.get("/metrics", headers=token("root"))).text
    samples = {(sample.name, sample.labels["connection"], sample.labels.get("le")): sample.value
               for family in text_string_to_metric_families(text) for sample in family.samples}
    name = "candlelake_tick_receipt_to_disk_seconds"
    assert [samples[f"{name}_bucket", "anns", bound] for bound in ("0.5", "1.0", "+Inf")] == [90, 99, 100]
    assert (samples[f"{name}_count", "anns", None], samples[f"{name}_sum", "anns", None]) == (100, 31.5)
    assert samples["candlelake_stream_losses_total", "anns", None] == 2
    assert samples["candlelake_stream_up", "anns", None] == 1
    assert samples["candlelake_stream_ticks_per_second", "anns", None] == 12.5
    assert samples["candlelake_stream_silent", "anns", None] == 1
    assert samples["candlelake_stream_recent_ticks_per_second", "anns", None] == 20.0
    assert samples["candlelake_stream_clock_skew_seconds", "anns", None] == -2.5
    assert ("candlelake_stream_up", "house", None) not in samples

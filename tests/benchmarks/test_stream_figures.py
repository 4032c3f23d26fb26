"""The stream's benchmark: every tick counts, and the report says what was missed."""

import json

from benchmarks.delays import Delays
from benchmarks.others import _markdown
from benchmarks.stream import verdicts

OURS = {"sent_per_second": 20_000, "stored_per_second": 19_990, "receipt_to_disk_p99_ms": 300.0, "receipt_to_subscriber_p99_ms": 80.0,
        "memory_mb_middle": 300, "memory_mb_end": 302}


def test_each_tick_counts_not_each_batch():
    """A run of ticks that came late together weighs as many ticks as it has."""
    delays = Delays()
    delays.add(1.0, ticks=50)
    delays.add_all([0.001] * 50)
    assert delays.count == 100
    assert (delays.ms(0.5), delays.ms(0.51), delays.ms(0.99)) == (1.0, 1000.0, 1000.0)


def test_a_slow_sender_is_not_counted_against_the_reader_nor_for_it():
    """What the feed did not send makes no target met; a reader that stores less than was sent misses it too."""
    assert verdicts(OURS, 20_000.0)["20000 ticks/s stored"] == "met"
    assert verdicts({**OURS, "sent_per_second": 12_000, "stored_per_second": 12_000}, 20_000.0)["20000 ticks/s stored"] == "missed"
    assert verdicts({**OURS, "stored_per_second": 15_000}, 20_000.0)["20000 ticks/s stored"] == "missed"


def test_the_report_shows_the_peer_as_a_multiple_and_each_missed_target():
    """The table holds both, the ratio where both have a figure, and the targets below."""
    said = json.dumps({"rate": 20_000.0, "seconds": 30.0, "load_before": 1.0, "load_before_peer": 1.5, "candlelake": OURS,
                       "cryptofeed": {"stored_per_second": 9_995}, "targets": verdicts(OURS, 20_000.0)})
    text = _markdown("stream", said)
    assert "| stored per second | 19990 | 9995 | 0.50x |" in text
    assert "* receipt to subscriber p99 ms below 50: **missed**" in text

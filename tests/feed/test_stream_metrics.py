"""What a stream tells of its pace, its delays and the venue's clock."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core.clock import SECOND_US
from core.ticks import Tick
from feed.stream_metrics import PER_SAMPLE, Delays, Pace, ahead_us, histograms, quantiles
from tests.feed.streaming import home
from tests.feed.test_stream import OPTIONS, Running


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 1000)), min_size=1, max_size=80))
def test_the_pace_is_of_the_last_minute(marks):
    """Whatever the pace was, the one told is that since the newest mark that is a minute old, or since the first one."""
    pace, now, count, all_marks = Pace(), 0, 0, [(0, 0)]
    assert pace.mark(0, 0) is None
    for seconds, ticks in marks:
        now, count = now + seconds * SECOND_US, count + ticks
        all_marks.append((now, count))
        told = pace.mark(now, count)
        since, before = max((mark for mark in all_marks if mark[0] <= now - 60 * SECOND_US), default=all_marks[0])
        assert told == (count - before) * SECOND_US / (now - since)


def test_delays_are_split_in_ours_and_the_rest():
    """From receipt it is ours; from the event the venue's and the network's part comes on top, by the venue's own clock when it is off."""
    delays = Delays("split")
    ticks = [Tick("A", 1_000_000, 3_000_000, None, None, 1.0, 1.0, "buy", str(number)) for number in range(PER_SAMPLE + 1)]
    delays.add(ticks, 3_010_000, -1_500_000)
    told = histograms("split")
    assert list(delays.samples) == [0.01, 0.01]
    assert told["candlelake_tick_receipt_to_subscriber_seconds"]["sum"] == 0.02
    assert abs(told["candlelake_tick_event_to_subscriber_seconds"]["sum"] - 2 * 0.51) < 1e-9
    assert quantiles("x", delays.samples) == {"x_p50_ms": 10.0, "x_p99_ms": 10.0}
    assert quantiles("x", []) == {}
    assert (ahead_us(SECOND_US), ahead_us(-2 * SECOND_US)) == (0, -2 * SECOND_US)


async def test_a_venues_clock_that_moves_is_noticed_within_the_session(tmp_path):
    """The venue's clock is measured again while the session goes on: state and lag tell it, and nothing reconnects."""
    with home(tmp_path, "binance") as place:
        run = Running(place, replace(OPTIONS, skew_seconds=0.1))
        await run.until(lambda: run.ticks > 0)
        place.box.faults.add("clock_skew", "/api.binance.com/*time*", seconds=-600)
        await run.until(lambda: (run.state().counts["clock_skew_seconds"] or 0) < -500)
        assert run.state().counts["ticks_per_second_last_minute"] > 0
        assert "receipt_to_subscriber_p99_ms" in run.state().as_dict(place.box.clock.now_us())
        result = await run.end()
        assert result.reconnects == 0

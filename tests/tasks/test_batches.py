"""Grouping connections into tasks."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.candles import batches
from tasks.progress import Meter, shown_progress


@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 250)), st.integers(1, 120))
def test_every_connection_with_due_series_is_in_one_batch(due, most):
    """Nobody is lost or doubled, idle ones are left out, and a batch is too big only when it is one connection."""
    made = batches(due, most)
    assert sorted(slug for batch in made for slug in batch) == sorted(slug for slug, count in due.items() if count)
    for batch in made:
        assert len(batch) == 1 or sum(due[slug] for slug in batch) <= most


async def test_progress_is_a_log_line(caplog):
    """The last state is always told in the log, whatever the pace."""
    caplog.set_level("INFO")
    async with shown_progress("k", "d", "candles") as meter:
        meter(5000, 50000, "kraken BTC/USD 1m")
    assert "kraken BTC/USD 1m: 5000/50000 candles" in caplog.text


def test_percent_stays_between_0_and_100():
    """Nothing to do is all done."""
    assert Meter().percent == 100.0
    assert Meter(5, 10).percent == 50.0
    assert Meter(11, 10).percent == 100.0

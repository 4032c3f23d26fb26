"""The end of a run as Prefect shows it."""

import pytest

from core.errors import LeaseHeldError, NetworkError
from feed.result import SeriesResult, conclude
from tasks.artifacts import artifact_key, summary_markdown
from tasks.outcome import join_results, state_of


@pytest.mark.parametrize(("item", "kind", "name"), [
    (SeriesResult("a", stored=3), "COMPLETED", "Completed"),
    (SeriesResult("a", gaps=2), "COMPLETED", "CompletedWithGaps"),
    (SeriesResult("a", skipped="held by x"), "COMPLETED", "Skipped"),
    (SeriesResult("a", skipped="held by x", error=LeaseHeldError("held by x")), "COMPLETED", "Skipped"),
    (SeriesResult("a", error=NetworkError("refused")), "FAILED", "Failed"),
])
def test_states(item, kind, name):
    """Failed is failed with the run's line, gaps and skips are said by name, all else is Completed."""
    result = conclude("r", "fetch", [item])
    state = state_of(result)
    assert (state.type.value, state.name, state.message) == (kind, name, result.message)


def test_gaps_are_counted_in_the_message():
    """A person reads how many gaps were booked."""
    assert "2 booked gaps" in state_of(conclude("r", "fetch", [SeriesResult("a", gaps=2)])).message


def test_joining_keeps_every_series():
    """One failed batch makes the run failed; the others' candles still count."""
    good, bad = conclude("r", "fetch", [SeriesResult("a", stored=3)]), conclude("r", "fetch", [SeriesResult("b", error=NetworkError("x"))])
    joined = join_results("r", "fetch", [good, bad])
    assert (joined.status, joined.stored, len(joined.series)) == ("failed", 3, 2)


def test_summary_is_one_table_whatever_the_names_hold():
    """Pipes and line ends in names and errors do not break the table."""
    text = summary_markdown(conclude("r", "fetch", [SeriesResult("a|b", error=NetworkError("x\ny|z"))]))
    assert "a\\|b" in text
    assert "x y\\|z" in text


def test_artifact_keys_are_what_prefect_takes():
    """Any symbol gives a key of lower-case letters, digits and dashes."""
    assert artifact_key("backfill", "kraken BTC/USD 1m") == "backfill-kraken-btc-usd-1m"

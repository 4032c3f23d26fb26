"""`candlelake pipelines check` finds whoever knows more than the candles up to the present, and nobody else."""

import pytest

from core.interval import Interval
from feed.pipelines import create
from feed.replaying import check_pipeline, replay_pipeline
from pipeline.registry import SHIPPED, Registry
from tests.pipeline.cheats import CHEATS
from tests.pipeline.conftest import START, definition, market

REGISTRY = Registry({**SHIPPED, **CHEATS}, extra=[])
ON_X = [{"plugin": "crossover", "parameters": {"fast": "x", "slow": 0}}]


def checked(feed, **changes):
    """Return the check's report of a pipeline with that plug-in in it."""
    create(feed, definition(confidence=[], **changes), "me", REGISTRY)
    (report,) = check_pipeline(feed, "trend", frontiers=4, registry=REGISTRY)
    return report


@pytest.mark.slow
@pytest.mark.parametrize(("plugin", "told"), [
    ("Centred", ["a true future changes the column x after the indicator stage of the past"]),
    ("Counting", ["changes the column x after the indicator stage of the past"]),
    ("Fitted", ["a true future changes the column x after the indicator stage of the past"]),
    ("Remembering", ["a process of its own without this home gives 0.0 instead of"]),
    ("Reading", ["a process of its own without this home gives an error: indicator Reading (Reading) raised NotFoundError",
                 "a plug-in reaches for more than its candles: sqlite3.connect"]),
])
def test_an_indicator_that_knows_more_is_found(feed, store, plugin, told):
    """By later rows, by how many there are, by what it kept in itself or in its class, by what it reads in the lake."""
    store(market(400))
    report = checked(feed, indicators=[{"plugin": plugin}], signals=ON_X)
    assert not report.is_clean
    for words in told:
        assert any(words in finding for finding in report.findings)


@pytest.mark.slow
def test_cleaners_and_evaluators_that_know_more_are_found(feed, store):
    """Rows left out for what follows, and a confidence that is right too often, though it is given only where a signal is."""
    store(market(400))
    report = checked(feed, cleaners=[{"plugin": "Dropping"}])
    assert "changes the rows after the cleaner stage (Dropping) of the past" in report.findings[0]
    create(feed, definition("sure", confidence=[{"plugin": "Sure"}]), "me", REGISTRY)
    (report,) = check_pipeline(feed, "sure", frontiers=4, registry=REGISTRY)
    assert "the candle judged alone gives another signal or confidence than among later candles" in report.findings[0]


@pytest.mark.slow
def test_who_says_that_it_must_not_see_more_may_look_at_all_it_gets(feed, store):
    """A plug-in that is not causal is never handed later candles: it is clean, and its replay goes through."""
    store(market(300))
    report = checked(feed, indicators=[{"plugin": "Whole"}], signals=ON_X)
    assert report.is_clean
    assert (report.futures, report.apart) == ([], 4)
    (replayed,) = replay_pipeline(feed, "trend", Interval(START, START + 300 * 3_600_000_000), registry=REGISTRY)
    assert replayed.result.candles == 300


@pytest.mark.slow
def test_a_clean_pipeline_is_clean(feed, store):
    """Plug-ins of the house in every stage: no finding, and every candle that was looked at was judged apart, too."""
    store(market(400))
    create(feed, definition(), "me", REGISTRY)
    (report,) = check_pipeline(feed, "trend", frontiers=4, registry=REGISTRY)
    assert report.findings == []
    assert report.apart >= 7
    assert report.signals > 10

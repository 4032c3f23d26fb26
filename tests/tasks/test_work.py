"""The tasks' functions on a real home, without Prefect: batches, upkeep, events."""

import pytest

from core.errors import NotFoundError
from core.interval import Interval
from core.series import Series
from feed.result import SeriesResult, conclude
from tasks.candles import conclude_fetch, fetch_batch, plan_fetch
from tasks.events import received
from tasks.upkeep import check_health, flush_head, health_line, plan_cleanup

MINUTE = 60_000_000


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    """Each test has a home of its own."""
    from core.settings import settings

    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


async def test_an_empty_home_has_nothing_due():
    """No connections: no batches, a complete run, an empty flush, no health rows, no cleanup without a retention."""
    assert await plan_fetch.fn() == []
    assert (await conclude_fetch.fn("r", [])).status == "complete"
    assert (await fetch_batch.fn([], "r")).status == "complete"
    assert (await flush_head.fn()).rows == 0
    assert await check_health.fn() == []
    assert await plan_cleanup.fn() is None
    assert (await plan_cleanup.fn(30)).rows == 0
    assert health_line([]) == "0 of 0 connections ok"


async def test_an_unknown_connection_is_told():
    """A slug that does not exist is an error, not an empty run."""
    with pytest.raises(NotFoundError, match="nobody"):
        await plan_fetch.fn("nobody")


def test_events_name_series_and_range():
    """Only what grew or was corrected is told; the range runs from the watermark before to the one after, or is what was asked."""
    grown, same = Series.parse("a", "X", "1m"), Series.parse("a", "Y", "1m")
    result = conclude("r", "fetch", [SeriesResult(str(grown), stored=2), SeriesResult(str(same))])
    before, after = {grown: 10 * MINUTE, same: 5 * MINUTE}, {grown: 12 * MINUTE, same: 5 * MINUTE}
    (event,) = received(result, before, after)
    assert event.interval == Interval(10 * MINUTE, 13 * MINUTE)
    assert event.payload()["start"] == "1970-01-01T00:10:00Z"
    assert event.resource()["candlelake.symbol"] == "X"
    (asked,) = received(result, before, after, Interval(0, 20 * MINUTE))
    assert asked.interval == Interval(0, 20 * MINUTE)

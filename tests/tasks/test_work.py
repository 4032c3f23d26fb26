"""The tasks' functions on a real home, without Prefect: batches, upkeep, events."""

import pytest

from core.errors import NotFoundError
from core.interval import Interval
from core.series import Series
from pipeline.events import DataReceived
from tasks.candles import conclude_fetch, fetch_batch, plan_fetch
from tasks.events import resource_of
from tasks.upkeep import check_health, flush_head, health_line, plan_cleanup, verify_files, verify_line

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
    assert verify_line(await verify_files.fn()) == "0 files with 0 rows are as they were written"
    assert health_line([]) == "0 of 0 connections ok"


async def test_an_unknown_connection_is_told():
    """A slug that does not exist is an error, not an empty run."""
    with pytest.raises(NotFoundError, match="nobody"):
        await plan_fetch.fn("nobody")


def test_events_name_series_and_range():
    """An event names its series and its range [start, end), never candles."""
    series = Series.parse("a", "X", "1m")
    event = DataReceived(series, "r", Interval(10 * MINUTE, 13 * MINUTE), 2, 0)
    assert event.payload() == {
        "connection": "a", "symbol": "X", "timeframe": "1m", "run_id": "r", "start": "1970-01-01T00:10:00Z",
        "end": "1970-01-01T00:13:00Z", "stored": 2, "revised": 0}
    assert resource_of(series)["candlelake.symbol"] == "X"

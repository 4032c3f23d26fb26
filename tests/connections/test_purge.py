"""Deleting a connection together with its candles, on a real lake."""

import polars as pl
import pytest

from connections.service import ConnectionService
from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, to_datetime
from core.errors import NotFoundError, PermanentError
from storage import open_lake
from storage.head import Batch
from storage.series import list_series
from storage.vault import Vault


@pytest.fixture
def lake(settings, clock):
    with_keys = open_lake(settings.home, clock=clock)
    yield with_keys
    with_keys.close()


@pytest.fixture
def ours(lake, key_ring, settings, clock, service):
    """The service over a whole lake."""
    return ConnectionService(lake, Vault(lake.metadata, key_ring, clock), settings, clock,
                             open_provider=service._open, describe=service._describe)


def test_purge_removes_candles_of_head_and_lake(lake, ours, clock, given):
    """A purge removes one connection with all its candles, says how many, and leaves other connections alone."""
    for slug in ("gone", "kept"):
        ours.create(given(slug=slug))
        with lake.metadata.read() as tx:
            (row,) = list_series(tx, slug)
        start = clock.now_us() - clock.now_us() % MINUTE_US - 100 * MINUTE_US
        frame = pl.DataFrame([(to_datetime(start + n * MINUTE_US), 1.0, 1.0, 1.0, 1.0, 1.0, None) for n in range(60)],
                             schema=CANDLE_SCHEMA, orient="row")
        lake.write([Batch(row.id, frame[:40], "rest")], run_id="r1")
        lake.flush()
        lake.write([Batch(row.id, frame[40:], "rest")], run_id="r2")
    with pytest.raises(PermanentError, match="60 stored candles"):
        ours.delete("gone")
    assert lake.candles("gone", "BTC/USD", "1m").height == 60
    removed = ours.delete("gone", purge=True)
    assert (removed.slug, removed.candles, removed.series) == ("gone", 60, 1)
    with pytest.raises(NotFoundError):
        ours.get("gone")
    assert lake.candles("kept", "BTC/USD", "1m").height == 60
    assert lake.verify().problems == []

"""Shared parts of the storage tests: an open lake with two connections, and frames of candles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, ManualClock, parse_instant
from core.settings import settings
from storage import Lake, open_lake
from storage.metadata.tables import connections
from storage.series import ensure_series

BOTH_STORES = pytest.mark.parametrize("lake", ["sqlite", "postgres"], indirect=True)
START_US = parse_instant("2026-01-31T23:30Z")  # half an hour before a partition's border


def candles(start_us: int, count: int, price: float = 100.0, step_us: int = MINUTE_US, spread: float | None = None) -> pl.DataFrame:
    """Return `count` sound candles from `start_us` on; the n-th closes at price + n."""
    number = pl.int_range(count, dtype=pl.Int64)
    close = price + number.cast(pl.Float64)
    return pl.select(
        ts=(start_us + number * step_us).cast(CANDLE_SCHEMA["ts"]), open=close, high=close + 1, low=close - 1, close=close,
        volume=number.cast(pl.Float64), spread=pl.lit(spread, pl.Float64))


def add_connection(lake: Lake, slug: str) -> int:
    """Add a connection's row and return its id."""
    with lake.metadata.write() as tx:
        made = tx.execute(connections.insert().values(
            slug=slug, name=slug, type="crypto", provider="ccxt:kraken", config={}, settings={}, status="active",
            is_active=True, is_admin_owned=False, created_at_us=0, updated_at_us=0))
        return int(made.inserted_primary_key[0])


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock(parse_instant("2026-03-01"))


@pytest.fixture
def lake(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """An empty lake with one connection, `kraken`; on PostgreSQL where the test is parametrized so."""
    if getattr(request, "param", "sqlite") == "postgres":
        monkeypatch.setenv("CANDLELAKE_METADATA_URL", request.getfixturevalue("postgres_url"))
        settings.cache_clear()
    opened = open_lake(tmp_path / "home", clock)
    add_connection(opened, "kraken")
    yield opened
    opened.close()
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def add_series(lake: Lake) -> Callable[..., int]:
    """Add a series of `kraken` and return its id."""

    def add(symbol: str = "BTC/USDT", timeframe: str = "1m") -> int:
        with lake.metadata.write() as tx:
            return ensure_series(tx, 1, symbol, timeframe, 0).id

    return add

"""Candle files served as a provider."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from core.candles import check
from core.clock import ManualClock
from core.errors import BadPayloadError, InputError, SessionLostError, UnknownSymbolError, UnsupportedError
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from providers.base import ConnectionSpec, Unlimited
from providers.replay import open_replay

START = datetime(2021, 3, 1, tzinfo=UTC)
H1 = Timeframe.parse("1h")
DAY = Interval.parse("2021-03-02", "2021-03-03")


def write(path, hours: int = 24 * 60, skip=None, **columns):
    """Write a file of hourly candles."""
    ts = [START + timedelta(hours=n) for n in range(hours)]
    values = {"open": [1.0 + n / 1e4 for n in range(hours)], "volume": [float(n) for n in range(hours)], **columns}
    frame = pl.DataFrame({"ts": ts, "open": values["open"], "high": values["open"], "low": values["open"], "close": values["open"],
                          "volume": values["volume"]}).with_columns(pl.col("ts").cast(pl.Datetime("ms", "UTC")))
    frame.drop([skip] if skip else []).write_parquet(path)


def provider(path, now="2021-04-01", **config):
    """Return a replay provider over a folder."""
    clock = ManualClock(Interval.parse(now, "2099-01-01").start)
    return open_replay(ConnectionSpec("r", "replay", config={"folder": str(path), **config}, clock=clock), Unlimited())


async def test_closed_candles_alone_are_served(tmp_path):
    """The file holds the future; the provider's clock decides what exists."""
    write(tmp_path / "house_EURUSD_H1.parquet")
    replay = provider(tmp_path, now="2021-03-02T05:30")
    await replay.connect()
    await replay.connect()
    page = await replay.fetch_candles("EURUSD", H1, DAY)
    assert page.candles["ts"].max() == datetime(2021, 3, 2, 4, tzinfo=UTC)
    assert page.candles.height == 5
    assert page.server_us == await replay.server_time_us()
    replay.spec.clock.advance(timedelta(hours=1))
    assert (await replay.fetch_candles("EURUSD", H1, DAY)).candles.height == 6
    assert replay.capabilities.timeframes == ("1h",)
    assert [info.symbol for info in await replay.symbols()] == ["EURUSD"]
    await replay.disconnect()
    assert not replay.is_connected


async def test_broker_time_is_turned_to_utc(tmp_path):
    """Files on a broker's clock need its rule, and come out in UTC across its summer time."""
    write(tmp_path / "mt5_EURUSD_H1_brokertime.parquet", hours=24 * 20)
    lost = provider(tmp_path)
    await lost.connect()
    with pytest.raises(InputError, match="server_clock"):
        await lost.fetch_candles("EURUSD", H1, DAY)
    replay = provider(tmp_path, server_clock={"offset_minutes": 120, "dst": "eu"})
    await replay.connect()
    page = await replay.fetch_candles("EURUSD", H1, DAY)
    assert page.candles["open"][0] == pytest.approx(1.0 + 26 / 1e4)
    assert check(page.candles, Grid(H1), DAY, 2**52).rejected.is_empty()


async def test_two_sources_of_a_symbol_must_be_chosen_between(tmp_path):
    """Nothing is mixed in silence: the config's prefix chooses."""
    write(tmp_path / "a_EURUSD_1h.parquet")
    write(tmp_path / "b_EURUSD_H1.parquet", volume=[None] * 24 * 60)
    with pytest.raises(InputError, match="a, b"):
        await provider(tmp_path).connect()
    replay = provider(tmp_path, prefix="b", market_type="crypto")
    await replay.connect()
    assert replay.capabilities.market_type == "crypto"
    page = await replay.fetch_candles("EURUSD", H1, DAY)
    assert page.candles["volume"].to_list() == [0.0] * 24


async def test_what_is_not_there_is_said(tmp_path):
    """Unknown symbols, other timeframes, accounts and ticks are errors that name what exists."""
    write(tmp_path / "a_EURUSD_1h.parquet")
    replay = provider(tmp_path)
    with pytest.raises(SessionLostError):
        await replay.fetch_candles("EURUSD", H1, DAY)
    await replay.connect()
    with pytest.raises(UnknownSymbolError, match="EURUSD"):
        await replay.fetch_candles("GBPUSD", H1, DAY)
    with pytest.raises(UnsupportedError, match="EURUSD 1h"):
        await replay.fetch_candles("EURUSD", Timeframe.parse("1d"), DAY)
    with pytest.raises(UnsupportedError):
        await replay.account_info()
    with pytest.raises(UnsupportedError):
        await replay.fetch_ticks("EURUSD", DAY)
    empty = await replay.fetch_candles("EURUSD", H1, Interval(DAY.start + 1, DAY.start + 2))
    assert empty.candles.is_empty()


@pytest.mark.parametrize("config", [{"folder": ""}, {"folder": 3}, {"market_type": "stock"}])
def test_bad_config_is_an_input_error(tmp_path, config):
    """The folder must be named, the market one we know."""
    with pytest.raises(InputError):
        provider(tmp_path, **config)


async def test_broken_files_are_bad_payloads(tmp_path):
    """A folder without files, a file that is no Parquet, one without a column: each is said, none is skipped."""
    with pytest.raises(InputError, match="folder"):
        await provider(tmp_path).connect()
    (tmp_path / "a_EURUSD_1h.parquet").write_bytes(b"PAR1 no")
    write(tmp_path / "a_GBPUSD_1h.parquet", skip="close")
    replay = provider(tmp_path)
    await replay.connect()
    for symbol, text in (("EURUSD", "Parquet"), ("GBPUSD", "close")):
        with pytest.raises(BadPayloadError, match=text):
            await replay.fetch_candles(symbol, H1, DAY)

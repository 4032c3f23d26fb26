"""Candles through the real ccxt classes: every value, every gap, one request a page."""

from itertools import pairwise

import polars as pl
import pytest

from core.candles import check
from core.clock import HOUR_US, MINUTE_US, to_datetime
from core.errors import SessionLostError, UnknownSymbolError, UnsupportedError
from core.interval import Interval
from core.timeframe import Grid, Timeframe
from providers.base import MarketDataProvider
from tests.providers.exchange.conftest import GAPS, MINUTES, START_US, SYMBOLS

M1 = Timeframe.parse("1m")
ALL = Interval(START_US, START_US + MINUTES * MINUTE_US)


def truth(venue, interval):
    """Return the venue's candles in `interval` as a frame."""
    rows = [(ms * 1000, *map(float, values)) for ms, values in sorted(venue.candles.items()) if ms * 1000 in interval]
    names = ["ts", "open", "high", "low", "close", "volume"]
    return pl.DataFrame(rows, schema=names, orient="row").with_columns(pl.from_epoch("ts", "us").dt.replace_time_zone("UTC"))


async def read(provider, symbol, interval):
    """Page through `interval` as feed does, and return the pages."""
    pages, start = [], interval.start
    while start < interval.end:
        page = await provider.fetch_candles(symbol, M1, Interval(start, interval.end))
        assert page.asked.start == start
        assert page.asked.end > start
        pages.append(page)
        start = page.asked.end
    return pages


@pytest.mark.parametrize("exchange_id", ["binance", "coinbase"])
async def test_all_pages_together_are_the_truth(exchange_id, opened, venue):
    """Over many pages no candle is lost, doubled or altered, gaps stay gaps, and each page is one request."""
    provider = await opened(exchange_id)
    await provider.fetch_candles(SYMBOLS[exchange_id], M1, Interval(START_US, START_US + MINUTE_US))  # reads the clock too
    venue.requests.clear()
    pages = await read(provider, SYMBOLS[exchange_id], ALL)
    limit = provider.capabilities.page_limit(M1)
    asked = [path for path, *_ in venue.requests if not path.endswith("/time")]  # a machine that slept reads the clock again
    assert len(pages) == len(asked) == -(-MINUTES // limit)
    frame = pl.concat([page.candles for page in pages]).drop("spread")
    assert frame.equals(truth(venue, ALL))
    assert len(frame) == MINUTES - len(GAPS)
    assert all(page.reachable_from is None for page in pages)
    assert len({page.request_id for page in pages}) == len(pages)


async def test_kraken_says_from_where_it_has_history(opened, venue, clock):
    """An old range is answered with the newest 720: the page says from when on there is something, and holds nothing asked."""
    provider = await opened("kraken")
    page = await provider.fetch_candles("BTC/USD", M1, Interval(START_US, START_US + HOUR_US))
    assert page.reachable_from == sorted(venue.candles)[-721] * 1000
    assert check(page.candles, Grid(M1), page.asked, clock.now_us()).candles.is_empty()


async def test_kraken_inside_its_history_is_the_truth(opened, venue):
    """Within reach the first candle asked for is there, and nothing is called unreachable."""
    provider = await opened("kraken")
    interval = Interval(ALL.end - 500 * MINUTE_US, ALL.end)
    page = await provider.fetch_candles("BTC/USD", M1, interval)
    assert page.candles.drop("spread").equals(truth(venue, interval))
    assert page.reachable_from is None


@pytest.mark.parametrize("exchange_id", SYMBOLS)
async def test_the_open_candle_is_left_in_and_the_clock_tells(exchange_id, opened, clock):
    """The page keeps the candle that is still open; the exchange's clock, never ahead, tells that it is."""
    provider = await opened(exchange_id)
    page = await provider.fetch_candles(SYMBOLS[exchange_id], M1, Interval(ALL.end - HOUR_US, ALL.end))
    assert page.candles["ts"][-1] == to_datetime(ALL.end - MINUTE_US)
    assert clock.now_us() - 1_000_000 <= page.server_us <= clock.now_us()
    closed = check(page.candles, Grid(M1), page.asked, page.server_us).candles
    assert closed["ts"][-1] == to_datetime(ALL.end - 2 * MINUTE_US)


async def test_the_clock_is_read_again_when_ours_was_moved(opened, clock, venue):
    """A jump of our own clock does not move the exchange's: it is measured anew instead of taken over."""
    provider = await opened("binance")
    await provider.fetch_candles("BTC/USDT", M1, Interval(START_US, START_US + MINUTE_US))
    asked = sum("time" in path for path, *_ in venue.requests)
    clock.set(clock.now_us() + 5 * HOUR_US)
    page = await provider.fetch_candles("BTC/USDT", M1, Interval(START_US, START_US + MINUTE_US))
    assert sum("time" in path for path, *_ in venue.requests) == asked + 1
    assert page.server_us == clock.now_us()


@pytest.mark.parametrize("exchange_id", SYMBOLS)
async def test_rows_come_sorted(exchange_id, opened):
    """Oldest first, also where the exchange answers newest first."""
    provider = await opened(exchange_id)
    page = await provider.fetch_candles(SYMBOLS[exchange_id], M1, Interval(ALL.end - HOUR_US, ALL.end))
    assert all(one < other for one, other in pairwise(page.candles["ts"]))


async def test_a_range_without_candles_is_an_empty_page(opened):
    """A gap answers with no rows and no error: it is the ledger's to explain."""
    provider = await opened("binance")
    page = await provider.fetch_candles(
        "BTC/USDT", M1, Interval(START_US + 100 * MINUTE_US, START_US + 134 * MINUTE_US))
    assert page.candles.is_empty()


async def test_a_range_between_two_opens_asks_nothing(opened, venue):
    """Where no candle can open there is nothing to ask for."""
    provider = await opened("binance")
    venue.requests.clear()
    page = await provider.fetch_candles("BTC/USDT", M1, Interval(START_US + 1, START_US + 2))
    assert page.candles.is_empty()
    assert [path for path, *_ in venue.requests if "klines" in path] == []


async def test_every_request_spends_from_the_budget(opened, venue, budget):
    """Each HTTP request takes its weight from the shared budget before it goes out."""
    provider = await opened("binance")
    await provider.fetch_candles("BTC/USDT", M1, Interval(START_US, START_US + HOUR_US))
    assert len(budget.weights) == len(venue.requests) == 3
    assert 0.4 in budget.weights  # ccxt's cost of klines


async def test_unknown_symbol_names_near_ones_without_a_request(opened, venue):
    """A mistyped symbol, or the exchange's own id, is answered with what was probably meant."""
    provider = await opened("binance")
    venue.requests.clear()
    for typed in ("BTC/USD", "btc/usdt", "BTCUSDT"):
        with pytest.raises(UnknownSymbolError, match="BTC/USDT"):
            await provider.fetch_candles(typed, M1, ALL)
    assert venue.requests == []


async def test_unknown_timeframe_lists_what_there_is(opened):
    """The library would send it as it is; we say what the exchange has."""
    provider = await opened("coinbase")
    with pytest.raises(UnsupportedError, match="15m, 30m, 1h, 2h, 6h, 1d"):
        await provider.fetch_candles("BTC/USD", Timeframe.parse("4h"), ALL)


async def test_months_are_asked_by_ccxts_name(opened, venue):
    """Our 1mo is ccxt's 1M; a page of months ends on a month."""
    provider = await opened("binance")
    page = await provider.fetch_candles("BTC/USDT", Timeframe.parse("1mo"), Interval.parse("1971-01-01", "2099-01-01"))
    assert [query["interval"] for path, query, _ in venue.requests if "klines" in path] == ["1M"]
    assert page.asked == Interval.parse("1971-01-01", "2054-05-01")


async def test_ticks_are_trades_of_one_page(opened):
    """A full page of trades says how far it reached; the rest is asked for next."""
    provider = await opened("binance")
    page = await provider.fetch_ticks("BTC/USDT", Interval(START_US, START_US + HOUR_US))
    assert page.asked == Interval(START_US, START_US + HOUR_US)
    assert page.ticks["ts"].to_list() == [to_datetime(START_US + minute * MINUTE_US) for minute in range(60)]
    assert page.ticks["kind"].unique().to_list() == ["trade"]
    assert page.ticks["price"].to_list() == [1.5] * 60
    full = await provider.fetch_ticks("BTC/USDT", ALL)
    assert full.asked.end < ALL.end
    assert full.ticks["ts"].max() < to_datetime(full.asked.end)


async def test_ticks_are_unsupported_where_old_trades_are_not_served(opened):
    """No empty page pretends that there was no trade."""
    provider = await opened("coinbase")
    with pytest.raises(UnsupportedError, match="old trades"):
        await provider.fetch_ticks("BTC/USD", ALL)


async def test_connect_and_disconnect_again_and_again(opened, venue):
    """Both are idempotent; after the end the provider says what to do."""
    provider = opened.build("kraken")
    assert isinstance(provider, MarketDataProvider)
    await provider.disconnect()
    with pytest.raises(SessionLostError, match="connect"):
        await provider.symbols()
    await provider.connect()
    asked = len(venue.requests)
    await provider.connect()
    assert len(venue.requests) == asked
    assert provider.is_connected
    await provider.disconnect()
    await provider.disconnect()
    assert not provider.is_connected
    await provider.connect()
    assert [info.symbol for info in await provider.symbols()] == ["BTC/USD"]
    assert provider.server_clock is None


@pytest.mark.parametrize(("exchange_id", "step"), [("binance", 0.01), ("kraken", 0.1), ("coinbase", 0.01)])
async def test_symbols_and_server_time(exchange_id, step, opened, clock):
    """Symbols come in ccxt's unified spelling with their least price change; the time is the exchange's."""
    provider = await opened(exchange_id)
    symbols = {info.symbol: info for info in await provider.symbols()}
    assert symbols[SYMBOLS[exchange_id]].price_step == step
    assert symbols[SYMBOLS[exchange_id]].is_active
    assert abs(await provider.server_time_us() - clock.now_us()) <= 1_000_000

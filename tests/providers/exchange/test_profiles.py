"""What exchanges can do, for every id that ccxt has."""

import subprocess
import sys

import ccxt
import pytest

from core.errors import InputError
from core.timeframe import Timeframe
from providers.exchange import exchange_capabilities, exchange_ids
from providers.exchange.profiles import exchange_class, takes_until


def test_ids_are_ccxts():
    """The ids read off the folder are the ids that ccxt exports."""
    assert list(exchange_ids()) == sorted(ccxt.exchanges)


@pytest.mark.parametrize("exchange_id", exchange_ids())
def test_every_exchange_is_described(exchange_id):
    """Any id has capabilities that make sense, so that any can be connected to."""
    found = exchange_capabilities(exchange_id)
    assert found.provider == f"ccxt:{exchange_id}"
    assert found.requests_per_second > 0
    assert found.page_limit(Timeframe.parse("1h")) > 0
    lengths = [Timeframe.parse(name).length_us for name in found.timeframes]
    assert lengths == sorted(lengths)
    if exchange_class(exchange_id)().has.get("fetchOHLCV") is not True:
        assert found.timeframes == ()


@pytest.mark.parametrize(("exchange_id", "page", "history", "sparse"), [
    ("binance", 1000, None, False), ("kraken", 720, 720, False), ("coinbase", 300, None, True), ("bybit", 1000, None, False),
    ("okx", 300, None, False), ("bitfinex", 10_000, None, True), ("bitget", 200, None, True), ("mexc", 500, None, True),
])
def test_measured_exchanges(exchange_id, page, history, sparse):
    """The facts that were measured are what is told."""
    found = exchange_capabilities(exchange_id)
    assert (found.page_limit(Timeframe.parse("1m")), found.history_candles, found.sparse) == (page, history, sparse)


def test_months_have_our_name():
    """The library's 1M is our 1mo; what we have no name for is left out."""
    assert "1mo" in exchange_capabilities("binance").timeframes
    assert exchange_capabilities("kraken").timeframes == ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w")


def test_until_is_sent_where_ccxt_understands_it():
    """Kraken would get it as a raw parameter; Binance bounds the window with it."""
    assert not takes_until(exchange_class("kraken")())
    assert all(takes_until(exchange_class(name)()) for name in ("binance", "coinbase", "bybit", "okx", "kucoin", "bitfinex"))


def test_a_mistyped_exchange_names_near_ones():
    """The error tells what was probably meant."""
    with pytest.raises(InputError, match="binance"):
        exchange_capabilities("binanse")


def test_ids_and_opening_do_not_import_ccxt():
    """A command line that lists providers does not wait for ccxt."""
    code = (
        "import sys; from providers.exchange import exchange_ids, open_exchange; from providers.base import *;"
        "assert 'kraken' in exchange_ids(); open_exchange(ConnectionSpec('k', 'ccxt:kraken'), Unlimited());"
        "print(any(name.split('.')[0] == 'ccxt' for name in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

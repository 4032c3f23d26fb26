"""The real ccxt classes against the project's own sandbox: what it serves is read, and each of its faults is named."""

from pathlib import Path

import polars as pl
import pytest

import sandbox
from core import errors
from core.candles import check
from core.clock import HOUR_US, SECOND_US, ManualClock, to_us
from core.interval import Interval
from core.secrets import Secret
from core.timeframe import Grid, Timeframe
from providers.base import ConnectionSpec
from providers.exchange import open_exchange
from sandbox.server import running

DATA = Path(sandbox.__file__).parent / "data"
CASES = {
    "binance": ("BTC/USDT", "1h", "binance_BTCUSDT_1h", "*klines*"),
    "coinbase": ("BTC/USD", "1m", "coinbase_BTCUSD_1m", "*candles*"),
}


@pytest.fixture(scope="module")
def served():
    """The sandbox, started once."""
    with running() as box:
        yield box


@pytest.fixture
def box(served):
    """The sandbox without faults."""
    served.faults.clear()
    yield served
    served.faults.clear()


@pytest.fixture
async def provider(request, box, budget):
    """A connected provider of the exchange that the test names."""
    spec = ConnectionSpec(
        "mine", f"ccxt:{request.param}", base_url=box.url, allow_private_hosts=True, clock=box.clock, timeout=3.0)
    opened = open_exchange(spec, budget)
    await opened.connect()
    yield opened
    await opened.disconnect()


def recorded(name):
    """Return a bundled file as a frame of candles."""
    frame = pl.read_parquet(DATA / f"{name}.parquet")
    return frame.select(pl.col("ts").cast(pl.Datetime("us", "UTC")), "open", "high", "low", "close", "volume")


@pytest.mark.parametrize(("provider", "exchange_id"), [(name, name) for name in CASES], indirect=["provider"])
async def test_the_bundled_file_is_read_back(provider, exchange_id):
    """Over five pages from the file's start: equal values, and the gaps of the file."""
    symbol, name, file, _ = CASES[exchange_id]
    timeframe, frame = Timeframe.parse(name), recorded(file)
    start = first = to_us(frame["ts"][0])
    pages = []
    for _ in range(5):
        page = await provider.fetch_candles(symbol, timeframe, Interval(start, to_us(frame["ts"][-1])))
        pages.append(page.candles)
        start = page.asked.end
    expected = frame.filter(pl.col("ts").dt.epoch("us").is_between(first, start, closed="left"))
    assert pl.concat(pages).drop("spread").equals(expected)


@pytest.mark.parametrize("provider", ["kraken"], indirect=True)
async def test_kraken_keeps_720(provider):
    """An old hour is out of reach and the page says from when on there is history."""
    symbol = (await provider.symbols())[0].symbol
    now_us = await provider.server_time_us()
    timeframe, length_us = Timeframe.parse("4h"), 4 * HOUR_US  # the bundled file that reaches up to the sandbox's present
    old = Interval(now_us - 4000 * length_us, now_us - 3000 * length_us)
    page = await provider.fetch_candles(symbol, timeframe, old)
    assert page.reachable_from is not None
    assert page.reachable_from >= now_us - 722 * length_us
    assert check(page.candles, Grid(timeframe), page.asked, page.server_us).candles.is_empty()
    recent = await provider.fetch_candles(symbol, timeframe, Interval(now_us - 60 * length_us, now_us))
    assert recent.reachable_from is None
    assert 55 <= len(recent.candles) <= 61


@pytest.mark.parametrize("provider", ["kraken", "binance", "coinbase"], indirect=True)
async def test_the_open_candle_is_told_by_the_server(provider, box):
    """Whether the newest candle is still open is decided by the exchange's clock, which is never ahead."""
    symbol = (await provider.symbols())[0].symbol
    timeframe = Timeframe.parse("1h")
    now_us = box.clock.now_us()
    page = await provider.fetch_candles(symbol, timeframe, Interval(now_us - 48 * HOUR_US, now_us + HOUR_US))
    assert now_us - 2 * SECOND_US <= page.server_us <= now_us + SECOND_US
    closed = check(page.candles, Grid(timeframe), page.asked, page.server_us).candles
    assert (closed["ts"].dt.epoch("us") + HOUR_US <= page.server_us).all()


FAULTS = [
    ({"kind": "status", "status": 429, "retry_after": 7}, errors.RateLimitedError),
    ({"kind": "status", "status": 503}, errors.ProviderUnavailableError),
    ({"kind": "status", "status": 451}, errors.NotPermittedError),
    ({"kind": "status", "status": 403}, errors.NotPermittedError),
    ({"kind": "status", "status": 404}, errors.UnsupportedError),
    ({"kind": "html"}, errors.BadPayloadError), ({"kind": "truncated"}, errors.BadPayloadError),
    ({"kind": "empty_object"}, errors.BadPayloadError), ({"kind": "null"}, errors.BadPayloadError),
    ({"kind": "hang"}, errors.ProviderTimeoutError), ({"kind": "drop"}, errors.NetworkError),
    ({"kind": "redirect"}, errors.BadPayloadError), ({"kind": "slow", "seconds": 1.0}, errors.ProviderTimeoutError),
    ({"kind": "huge"}, errors.BadPayloadError),
]


@pytest.mark.parametrize("provider", ["binance"], indirect=True)
@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=lambda value: str(value.get("kind")) if isinstance(value, dict) else "")
async def test_each_fault_of_transport_is_named(fault, kind, provider, box, budget):
    """Every way in which the sandbox spoils an answer is the right error, and the next answer is read again."""
    symbol, name, file, path = CASES["binance"]
    start = to_us(recorded(file)["ts"][0])
    ask = (symbol, Timeframe.parse(name), Interval(start, start + 100 * HOUR_US))
    await provider.fetch_candles(*ask)
    box.faults.add(**fault, path=path)
    with pytest.raises(errors.CandlelakeError) as caught:
        await provider.fetch_candles(*ask)
    assert type(caught.value) is kind
    if kind is errors.RateLimitedError:
        assert caught.value.retry_after == 7.0
        assert budget.penalties == [7.0]
    box.faults.clear()
    assert len((await provider.fetch_candles(*ask)).candles) > 0


@pytest.mark.parametrize("apart_us", [0, -HOUR_US, HOUR_US])
async def test_account_of_the_sandbox(apart_us, box, budget):
    """A signed request is accepted, also from a machine whose clock is wrong, and the sandbox's book of requests shows no key."""
    credentials = {"api_key": Secret("c4n4ry-key-000000"), "secret": Secret("c4n4ry-secret-000")}
    signed = open_exchange(ConnectionSpec(
        "mine", "ccxt:binance", base_url=box.url, allow_private_hosts=True, clock=ManualClock(box.clock.now_us() + apart_us),
        credentials=credentials), budget)
    await signed.connect()
    info = await signed.account_info()
    await signed.disconnect()
    assert info.server == "binance"
    assert "c4n4ry" not in repr(info) + repr(box.requests)

"""The real ccxt classes, their addresses rewritten, read from the sandbox what the files hold."""

from __future__ import annotations

from itertools import pairwise

import ccxt.async_support as ccxt
import httpx
import polars as pl
import pytest

from sandbox.sources import BUNDLED


def rewritten(value, box):
    """Return ccxt's addresses with the sandbox before the host."""
    if isinstance(value, dict):
        return {key: rewritten(each, box) for key, each in value.items()}
    return value.replace("https://", box.url + "/") if isinstance(value, str) else value


@pytest.fixture
async def exchange(box):
    """Open a real ccxt exchange against the sandbox; closed afterwards."""
    opened = []

    def open_one(name, **settings):
        """Open one exchange by ccxt's name."""
        one = getattr(ccxt, name)({"enableRateLimit": False, **settings})
        one.urls["api"] = rewritten(one.urls["api"], box)
        now_ms = box.clock.now_us() // 1000
        one.milliseconds = lambda: now_ms
        opened.append(one)
        return one

    yield open_one
    for one in opened:
        await one.close()


def rows_of(name, first=0, count=10_000):
    """Return a bundled file as ccxt's rows."""
    frame = pl.read_parquet(BUNDLED / f"{name}.parquet").with_columns(pl.col("ts").dt.epoch("ms"))
    return [list(row) for row in frame.select("ts", "open", "high", "low", "close", "volume").rows()[first:first + count]]


async def test_binance_candles_equal_the_file(exchange):
    """Two pages of klines hold exactly the file's candles; the server clamps a page at 1000."""
    one = exchange("binance")
    await one.load_markets()
    assert set(one.symbols) == {"BTC/BUSD", "BTC/USDT"}
    want = rows_of("binance_BTCBUSD_1m")
    first = await one.fetch_ohlcv("BTC/BUSD", "1m", since=want[0][0], limit=1000)
    rest = await one.fetch_ohlcv("BTC/BUSD", "1m", since=first[-1][0] + 60_000, limit=1000)
    assert first + rest == want
    assert await one.fetch_time() == one.milliseconds()
    hole = await one.fetch_ohlcv("BTC/USDT", "1h", since=one.parse8601("2018-02-08T00:00:00Z"), limit=3)
    assert hole[1][0] - hole[0][0] > 30 * 3_600_000 or hole[2][0] - hole[1][0] > 30 * 3_600_000


async def test_binance_day_is_built_from_hours(exchange):
    """A longer candle is aggregated: open of the first, close of the last, sum of volumes."""
    one = exchange("binance")
    day = await one.fetch_ohlcv("BTC/USDT", "1d", since=one.parse8601("2023-05-01T00:00:00Z"), limit=1)
    hours = [row for row in rows_of("binance_BTCUSDT_1h", count=10**6) if 0 <= row[0] - day[0][0] < 86_400_000]
    assert day[0][1:5] == [hours[0][1], max(r[2] for r in hours), min(r[3] for r in hours), hours[-1][4]]
    assert day[0][5] == pytest.approx(sum(row[5] for row in hours))


async def test_binance_account_and_trades(exchange):
    """The signed account answers; trades are the recorded ones; wrong symbols and intervals are refused."""
    one = exchange("binance", apiKey="practice", secret="practice")
    balance = await one.fetch_balance()
    assert balance["USDT"]["free"] == 1000
    trades = await one.fetch_trades("BTC/USDT", limit=5)
    recorded = pl.read_parquet(BUNDLED / "binance_spot_BTCUSDT_trades_ws.parquet").sort("id").tail(5)
    assert [trade["price"] for trade in trades] == recorded["price"].to_list()
    older = await one.fetch_trades("BTC/USDT", since=trades[0]["timestamp"] - 60_000, limit=3)
    assert older[0]["timestamp"] >= trades[0]["timestamp"] - 60_000
    with pytest.raises(ccxt.BadSymbol):
        await one.publicGetKlines({"symbol": "NOPE", "interval": "1m"})
    with pytest.raises(ccxt.BadRequest):
        await one.publicGetKlines({"symbol": "BTCUSDT", "interval": "7m"})
    now = one.milliseconds()
    one.nonce = lambda: now - 60_000
    one.milliseconds = one.nonce
    with pytest.raises(ccxt.InvalidNonce):
        await one.fetch_balance()


async def test_kraken_gives_the_newest_720_and_fills_idle_minutes(exchange):
    """An old since gives the newest window; minutes without trades are there with volume 0."""
    one = exchange("kraken")
    await one.load_markets()
    assert {"BTC/USD", "ETH/USD"} <= set(one.symbols)
    got = await one.fetch_ohlcv("BTC/USD", "1m", since=one.parse8601("2016-10-07T00:00:00Z"))
    assert len(got) == 721
    assert {b[0] - a[0] for a, b in pairwise(got)} == {60_000}
    traded = {row[0]: row for row in rows_of("coinbase_BTCUSD_1m", count=10**6)}
    assert [row for row in got if row[5]] == [traded[row[0]] for row in got if row[0] in traded]
    later = await one.fetch_ohlcv("BTC/USD", "1m", since=got[700][0])
    assert later == got[700:]
    assert await one.fetch_time() == one.milliseconds() // 1000 * 1000


async def test_coinbase_candles_newest_first_and_300_at_most(exchange, client):
    """A page equals the file, idle minutes missing; more than 300 is an error."""
    one = exchange("coinbase")
    await one.load_markets()
    assert {"BTC/USD", "ETH/USD"} <= set(one.symbols)
    want = rows_of("coinbase_ETHUSD_1m", count=200)
    got = await one.fetch_ohlcv("ETH/USD", "1m", since=want[0][0], limit=200)
    assert got == [row for row in want if row[0] <= want[0][0] + 200 * 60_000]
    start = want[0][0] // 1000
    path = "/api.coinbase.com/api/v3/brokerage/market/products/ETH-USD/candles"
    page = client.get(path, params={"start": start, "end": start + 600, "granularity": "ONE_MINUTE"}).json()["candles"]
    assert [int(row["start"]) for row in page] == sorted((int(row["start"]) for row in page), reverse=True)
    assert int(page[0]["start"]) == start + 600
    too_much = {"start": start, "end": start + 301 * 60, "granularity": "ONE_MINUTE"}
    assert client.get(path, params=too_much).status_code == 400
    assert client.get(path.replace("ETH-USD", "NO-PE"), params=too_much).status_code == 400
    assert await one.fetch_time() == one.milliseconds() // 1000 * 1000


async def test_strict_limits(box, client):
    """Binance answers 429 with Retry-After and bans who goes on; Kraken says so in the body; Coinbase 429."""
    box.set(strict_limits=True)
    path = "/api.binance.com/api/v3/exchangeInfo"
    answers = [client.get(path) for _ in range(330)]
    assert answers[0].headers["X-MBX-USED-WEIGHT-1M"] == "20"
    assert {answer.status_code for answer in answers} == {200, 429, 418}
    assert int(answers[-1].headers["Retry-After"]) > 0
    krakens = [client.get("/api.kraken.com/0/public/Time").json()["error"] for _ in range(17)]
    assert krakens[-1] == ["EAPI:Rate limit exceeded"]
    assert 429 in {client.get("/api.coinbase.com/v2/time").status_code for _ in range(12)}


def test_odd_questions_are_refused_in_dialect(client: httpx.Client):
    """Unknown pairs, intervals, methods and paths get each venue's own error."""
    kraken = "/api.kraken.com/0/public"
    assert client.get(f"{kraken}/OHLC?pair=NOPE").json() == {"error": ["EQuery:Unknown asset pair"]}
    assert client.get(f"{kraken}/OHLC?pair=XBTUSD&interval=7").json()["error"]
    assert client.get(f"{kraken}/Nothing").json()["error"] == ["EGeneral:Unknown method"]
    assert client.post("/api.kraken.com/0/private/BalanceEx").json()["error"] == ["EAPI:Invalid key"]
    assert client.get("/api.coinbase.com/v2/nothing").status_code == 404
    assert client.get("/api.coinbase.com/api/v3/brokerage/nothing").status_code == 404
    assert client.get("/api.binance.com/api/v3/nothing").status_code == 404
    assert client.get("/api.binance.com/api/v3/account").status_code == 401
    assert client.get("/fapi.binance.com/fapi/v1/exchangeInfo").json()["symbols"] == []

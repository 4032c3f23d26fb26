"""Exchanges that answer with the newest candles of a window, or in another order of columns, still give the whole page."""

import pytest

from core.clock import MINUTE_US, to_datetime
from core.errors import BadPayloadError
from core.interval import Interval
from core.timeframe import Timeframe
from providers.exchange.server_time import LIFETIME_US, ServerTime, date_us
from providers.exchange.trades import read_trades
from providers.exchange.wire import Call, Exchanged
from tests.providers.exchange.conftest import MINUTES, START_US, Venue

M1 = Timeframe.parse("1m")
ALL = Interval(START_US, START_US + MINUTES * MINUTE_US)
BASE = {"base": "BTC", "quote": "USDT", "type": "spot", "spot": True, "active": True, "contract": False}
IDS = {"bybit": "BTCUSDT", "okx": "BTC-USDT", "bitfinex": "tBTCUST", "kucoin": "BTC-USDT", "gate": "BTC_USDT", "mexc": "BTCUSDT",
       "bitget": "BTCUSDT"}


def window(venue, since, until, limit, *, newest):
    """Return up to `limit` candles from `since` to `until`, both inclusive, in ms: the newest first, or the oldest first."""
    found = sorted(ms for ms in venue.candles if since <= ms <= until)
    chosen = found[-limit:][::-1] if newest else found[:limit]
    return [(ms, *venue.candles[ms]) for ms in chosen]


def answer(venue, host, path, query):  # noqa: PLR0911  one return for each venue
    """Speak as each venue's documentation says it does."""
    q = {key: int(value) for key, value in query.items() if value.isdigit()}
    if path == "/v5/market/kline":
        rows = window(venue, q["start"], q["end"], q["limit"], newest=True)
        return {"retCode": 0, "result": {"list": [[str(ms), o, h, lo, c, v, "0"] for ms, o, h, lo, c, v in rows]}}
    if path.startswith("/api/v5/market/"):
        rows = window(venue, q["before"] + 1, q["after"] - 1, q["limit"], newest=True)
        return {"code": "0", "data": [[str(ms), o, h, lo, c, v, "0", "0", "1"] for ms, o, h, lo, c, v in rows]}
    if path.startswith("/v2/candles/"):
        rows = window(venue, q["start"], q["end"], q["limit"], newest=False)
        return [[ms, float(o), float(c), float(h), float(lo), float(v)] for ms, o, h, lo, c, v in rows]
    if path == "/api/v1/market/candles":
        rows = window(venue, q["startAt"] * 1000, q["endAt"] * 1000, 1500, newest=True)
        return {"code": "200000", "data": [[str(ms // 1000), o, c, h, lo, v, "0"] for ms, o, h, lo, c, v in rows]}
    if path == "/api/v4/spot/candlesticks":
        rows = window(venue, q["from"] * 1000, q["to"] * 1000, 1000, newest=False)
        return [[str(ms // 1000), "0", c, h, lo, o, v, "true"] for ms, o, h, lo, c, v in rows]
    if path == "/api/v3/klines":
        rows = window(venue, q["startTime"], q["endTime"] - 1, q["limit"], newest=False)
        return [[ms, o, h, lo, c, v, ms + 60_000, "0"] for ms, o, h, lo, c, v in rows]
    if path.startswith("/api/v2/spot/market/"):
        rows = window(venue, q.get("startTime", 0), q["endTime"], q["limit"], newest=True)[::-1]
        return {"code": "00000", "data": [[str(ms), o, h, lo, c, v, "0", "0"] for ms, o, h, lo, c, v in rows]}
    now_ms = venue.clock.now_us() // 1000
    return {
        "/v5/market/time": {"retCode": 0, "result": {"timeSecond": str(now_ms // 1000), "timeNano": f"{now_ms}000000"}, "time": now_ms},
        "/api/v5/public/time": {"code": "0", "data": [{"ts": str(now_ms)}]},
        "/api/v1/timestamp": {"code": "200000", "data": now_ms},
        "/api/v4/spot/time": {"server_time": now_ms},
        "/api/v3/time": {"serverTime": now_ms},
        "/api/v2/public/time": {"code": "00000", "data": {"serverTime": str(now_ms)}},
    }[path]


@pytest.mark.parametrize("exchange_id", IDS)
async def test_pages_of_other_exchanges_are_the_truth(exchange_id, opened, venue, monkeypatch):
    """Both ends of each request are bounded, so that no exchange can answer with another part of the range."""
    monkeypatch.setattr(Venue, "honest", answer)
    provider = opened.build(exchange_id)
    exchange = provider._build()
    exchange.set_markets([exchange.safe_market_structure({"id": IDS[exchange_id], "symbol": "BTC/USDT", **BASE})])
    provider._exchange = exchange
    start, rows, requests = ALL.start, [], 0
    while start < ALL.end:
        page = await provider.fetch_candles("BTC/USDT", M1, Interval(start, ALL.end))
        rows += page.candles.filter(page.candles["ts"] < to_datetime(page.asked.end)).drop("spread").rows()
        start, requests = page.asked.end, requests + 1
    expected = [(to_datetime(ms * 1000), *map(float, values)) for ms, values in sorted(venue.candles.items())]
    assert rows == expected
    assert requests == -(-MINUTES // provider.capabilities.page_limit(M1))
    bounded = [query for path, query, _ in venue.requests if not path.endswith(("time", "timestamp"))]
    assert len(bounded) == requests


async def test_without_a_time_endpoint_the_date_of_the_answer_counts(opened, venue, monkeypatch):
    """Bitfinex does not tell its time: the Date header of the very answer does."""
    monkeypatch.setattr(Venue, "honest", answer)
    provider = opened.build("bitfinex")
    exchange = provider._build()
    exchange.set_markets([exchange.safe_market_structure({"id": "tBTCUST", "symbol": "BTC/USDT", **BASE})])
    provider._exchange = exchange
    venue.fault("/v2/candles/", body="[]", headers={"Date": "Wed, 15 Nov 2023 10:00:00 GMT"})
    page = await provider.fetch_candles("BTC/USDT", M1, ALL)
    assert to_datetime(page.server_us).isoformat() == "2023-11-15T10:00:00+00:00"


@pytest.mark.parametrize(("headers", "expected"), [
    ({"date": "Wed, 15 Nov 2023 10:00:00 GMT"}, 1_700_042_400_000_000), ({"Date": "yesterday"}, None), ({}, None)])
def test_date_headers(headers, expected):
    """A date that cannot be read is none."""
    assert date_us(Call(answers=[Exchanged(headers=headers)])) == expected
    assert date_us(Call()) is None


def test_a_measured_clock_grows_old_and_notices_a_moved_one():
    """It holds while our clock goes on as the steady one does, and not for ever."""
    measured = ServerTime(offset_us=-5, wall_us=1000, steady_us=0)
    assert measured.now_us(1010) == 1005
    assert measured.holds(1000 + 60_000_000, 60_000_000)
    assert not measured.holds(1000 + 60_000_000, 1_000_000)
    assert not measured.holds(1000 - 60_000_000, 1_000_000)
    assert not measured.holds(1000 + LIFETIME_US, LIFETIME_US)


@pytest.mark.parametrize("trades", [
    None, {}, [{"timestamp": None, "price": 1, "amount": 1}], [{"timestamp": 10**18, "price": 1, "amount": 1}],
    [{"timestamp": 1, "price": None, "amount": 1}], [{"timestamp": 1, "price": 1, "amount": None}]])
def test_broken_trades_are_refused(trades):
    """A trade without time, price or amount makes the answer broken."""
    with pytest.raises(BadPayloadError):
        read_trades(trades)


def test_no_trades_are_no_ticks():
    """An empty list is an empty frame; trades come sorted by time."""
    assert read_trades([]).is_empty()
    two = read_trades([{"timestamp": 5, "price": 1, "amount": 1, "side": "buy", "id": 9}, {"timestamp": 4, "price": 1, "amount": 1}])
    assert two["trade_id"].to_list() == [None, "9"]

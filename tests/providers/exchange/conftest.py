"""A venue that speaks as Binance, Kraken and Coinbase do, on loopback, with a clock and faults of its own."""

import asyncio
import random
from functools import cache

import pytest
from aiohttp import web

from core.clock import MINUTE_US, SECOND_US, ManualClock
from core.secrets import Secret
from providers.base import ConnectionSpec, Unlimited
from providers.exchange import open_exchange

START_US = 1_700_006_400 * SECOND_US  # 2023-11-15 00:00 UTC
MINUTES = 3000
GAPS = {*range(100, 134), *range(1490, 1505), 2000}  # minutes without a candle


@cache
def candles(seed=7):
    """Return {minute open in ms: (open, high, low, close, volume) as wire strings}, with gaps, ending in an open minute."""
    rng, price, out = random.Random(seed), 37_000.0, {}
    for minute in range(MINUTES):
        close = round(price + rng.uniform(-20, 20), 2)
        high, low = max(price, close) + 1.25, min(price, close) - 0.75
        if minute not in GAPS:
            values = (price, high, low, close, rng.uniform(0, 9))
            out[(START_US + minute * MINUTE_US) // 1000] = tuple(f"{value:.8f}" for value in values)
        price = close
    return out


class Venue:
    """The server side. `script` holds (path part, answers left, make) rules that come before the honest answer."""

    def __init__(self, clock):
        self.clock = clock
        self.candles = dict(candles())
        self.requests = []
        self.script = []
        self.url = ""
        self.asked = asyncio.Event()

    def fault(self, part, *, status=200, body="{}", headers=None, times=1000, content_type="application/json"):
        """Answer the next `times` requests whose path holds `part` with this."""
        self.script.append([part, times, status, body, headers or {}, content_type])

    async def handle(self, request):
        """Answer one request."""
        self.asked.set()
        self.requests.append((request.path, dict(request.query), dict(request.headers)))
        for rule in self.script:
            if rule[0] in request.path and rule[1] > 0:
                rule[1] -= 1
                return await self.answer_fault(request, rule)
        host, _, path = request.path.lstrip("/").partition("/")
        return web.json_response(self.honest(host, "/" + path, request.query))

    async def answer_fault(self, request, rule):
        """Answer with a rule's fault; `HANG`, `DROP`, `CUT` and `HUGE` are wire faults."""
        _, _, status, body, headers, content_type = rule
        if body == "HANG":
            await asyncio.sleep(30)
        if body == "DROP":
            request.transport.abort()
        if body == "CUT":
            response = web.StreamResponse(headers={"Content-Length": "9999", "Content-Type": "application/json"})
            await response.prepare(request)
            await response.write(b'[[1,"2')
            request.transport.close()
            return response
        return web.Response(status=status, text=body, headers=headers, content_type=content_type)

    def honest(self, host, path, query):
        """Return what the exchange would answer."""
        now_ms = self.clock.now_us() // 1000
        if host == "api.binance.com":
            return self.binance(path, query, now_ms)
        if host == "api.kraken.com":
            return self.kraken(path, query, now_ms)
        return self.coinbase(path, query, now_ms)

    def binance(self, path, query, now_ms):
        """Speak as Binance spot."""
        if path == "/api/v3/time":
            return {"serverTime": now_ms}
        if path == "/api/v3/exchangeInfo":
            return {"symbols": [{
                "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "permissions": ["SPOT"],
                "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}], "orderTypes": ["LIMIT"],
            }]}
        if path == "/api/v3/account":
            return {"canTrade": True, "accountType": "SPOT", "balances": [{"asset": "BTC", "free": "1", "locked": "0"}]}
        if path == "/api/v3/aggTrades":
            since, until = int(query["startTime"]), int(query["endTime"])
            stamps = [ms for ms in self.candles if since <= ms <= until][:int(query["limit"])]
            return [{"a": ms, "p": "1.5", "q": "2", "T": ms, "m": True} for ms in stamps]
        since, until = int(query["startTime"]), int(query["endTime"])
        found = [ms for ms in self.candles if since <= ms <= until and ms <= now_ms][:int(query["limit"])]
        return [[ms, *self.candles[ms], ms + 59_999, "0", 1, "0", "0", "0"] for ms in found]

    def kraken(self, path, query, now_ms):
        """Speak as Kraken: the newest 720 candles and the open one, whatever `since` says."""
        if path == "/0/public/Time":
            return {"error": [], "result": {"unixtime": now_ms // 1000, "rfc1123": ""}}
        if path == "/0/public/Assets":
            return {"error": [], "result": {
                "XXBT": {"aclass": "currency", "altname": "XBT", "decimals": 10, "display_decimals": 5, "status": "enabled"},
                "ZUSD": {"aclass": "currency", "altname": "USD", "decimals": 4, "display_decimals": 2, "status": "enabled"}}}
        if path == "/0/public/AssetPairs":
            return {"error": [], "result": {"XXBTZUSD": {
                "altname": "XBTUSD", "wsname": "XBT/USD", "aclass_base": "currency", "base": "XXBT", "aclass_quote": "currency",
                "quote": "ZUSD", "pair_decimals": 1, "lot_decimals": 8, "lot_multiplier": 1, "leverage_buy": [],
                "leverage_sell": [], "fees": [[0, 0.4]], "fees_maker": [[0, 0.25]], "ordermin": "0.0001", "costmin": "0.5",
                "tick_size": "0.1", "status": "online"}}}
        since = int(query.get("since", 0)) * 1000
        reach = [ms for ms in sorted(self.candles) if ms <= now_ms][-721:]
        rows = [ms for ms in reach if ms > since]
        values = [[ms // 1000, *self.candles[ms][:4], "0.0", self.candles[ms][4], 1] for ms in rows]
        return {"error": [], "result": {"XXBTZUSD": values, "last": (rows[-2] if len(rows) > 1 else 0) // 1000}}

    def coinbase(self, path, query, now_ms):
        """Speak as Coinbase: newest first, both ends inclusive, an error beyond 300."""
        if path.endswith("/candles"):
            since, until = int(query["start"]), int(query["end"])
            assert (until - since) // 60 < 300
            rows = [ms for ms in self.candles if since <= ms // 1000 <= until and ms <= now_ms]
            names = ("open", "high", "low", "close", "volume")
            return {"candles": [
                {"start": str(ms // 1000), **dict(zip(names, self.candles[ms], strict=True))} for ms in reversed(rows)]}
        if path.endswith("/market/products"):
            if query.get("product_type") == "FUTURE":
                return {"products": [], "num_products": 0}
            return {"products": [{
                "product_id": "BTC-USD", "base_currency_id": "BTC", "quote_currency_id": "USD", "product_type": "SPOT",
                "price": "37000", "base_increment": "0.00000001", "quote_increment": "0.01", "price_increment": "0.01",
                "base_min_size": "0.0001", "base_max_size": "3400", "status": "online", "trading_disabled": False,
                "quote_min_size": "1", "quote_max_size": "1000"}], "num_products": 1}
        return {
            "/v2/time": {"data": {"iso": "", "epoch": now_ms // 1000}},
            "/api/v3/brokerage/time": {"iso": "", "epochSeconds": str(now_ms // 1000), "epochMillis": str(now_ms)},
            "/v2/exchange-rates": {"data": {"currency": "USD", "rates": {"BTC": "0.00002"}}},
        }.get(path, {"data": [{"id": "USD", "name": "US Dollar", "min_size": "0.01"}]})


SYMBOLS = {"binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}


class Budget(Unlimited):
    """A budget that remembers what it was told."""

    def __init__(self):
        self.penalties = []
        self.weights = []

    def spend(self, weight=1.0):
        """Remember the weight and let the body run."""
        self.weights.append(weight)
        return super().spend(weight)

    async def penalise(self, seconds):
        """Remember the pause."""
        self.penalties.append(seconds)


@pytest.fixture
def clock():
    """The venue's clock, in the middle of its last minute."""
    return ManualClock(START_US + MINUTES * MINUTE_US - 30 * SECOND_US)


@pytest.fixture
async def venue(clock):
    """A running venue."""
    built = Venue(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", built.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    built.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield built
    await runner.cleanup()


@pytest.fixture
def budget():
    """A budget that remembers."""
    return Budget()


@pytest.fixture
async def opened(venue, budget, clock):
    """A function that opens a provider at the venue; all are disconnected at the end."""
    made = []

    def build(exchange_id, *, credentials=None, connect=True, **spec):
        spec = {"base_url": venue.url, "allow_private_hosts": True, "clock": clock, "timeout": 20.0, **spec}
        secrets = {name: Secret(value) for name, value in (credentials or {}).items()}
        provider = open_exchange(ConnectionSpec("mine", f"ccxt:{exchange_id}", credentials=secrets, **spec), budget)
        made.append(provider)
        return provider

    async def connected(exchange_id, **options):
        provider = build(exchange_id, **options)
        await provider.connect()
        return provider

    connected.build = build
    yield connected
    for provider in made:
        await provider.disconnect()

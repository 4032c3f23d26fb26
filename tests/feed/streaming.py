"""A home whose connection streams from the sandbox by a fast clock, and the truth to compare it with."""

import asyncio
from contextlib import contextmanager

import polars as pl

from connections.inputs import ConnectionInput
from core.clock import parse_instant, to_datetime
from core.interval import Interval
from core.settings import Settings
from feed import open_feed
from sandbox.clocks import FastClock
from sandbox.server import running
from sandbox.tape import Tape
from storage.ticks.losses import list_losses
from storage.vault import KeyRing

NOW = parse_instant("2021-06-16T10:07:30Z")  # a Wednesday
VENUES = {
    "binance": ("ccxt:binance", "BTC/BUSD", "", {}, "/stream.binance.com*"),
    "kraken": ("ccxt:kraken", "BTC/USD", "", {}, "/ws.kraken.com*"),
    "coinbase": ("ccxt:coinbase", "BTC/USD", "", {}, "/advanced-trade-ws*"),
    "mt5": ("mtapi:mt5", "EURUSD", "/mt5", {"user": "50000001", "password": "practice-only", "server": "Sandbox-Demo"}, "/mt5/On*"),
}


class Home:
    """One connection `s` of a venue, its sandbox and its feed."""

    def __init__(self, box, feed, venue):
        self.box, self.feed = box, feed
        self.provider, self.symbol, _, _, self.sockets = VENUES[venue]
        self.venue = {"mt5": "broker"}.get(venue, venue)

    def gaps(self, symbol=None):
        with self.feed.lake.metadata.read() as tx:
            return list_losses(tx, "s", symbol)

    def ticks(self, symbol=None):
        return self.feed.lake.ticks("s", symbol or self.symbol)

    def candles(self, timeframe="1m", symbol=None):
        return self.feed.lake.candles("s", symbol or self.symbol, timeframe)

    def truth(self, start_us, end_us, timeframe_us=60_000_000, symbol=None):
        """The candles of the venue that open in [start, end), all closed."""
        book = self.box.shelf.of(self.venue)[(symbol or self.symbol).replace("/", "")]
        rows = book.candles(timeframe_us, start_us, end_us, end_us + timeframe_us)
        return rows.select(pl.col("us").cast(pl.Datetime("us", "UTC")).alias("ts"), "open", "high", "low", "close", "volume")

    def true_ticks(self, start_us, end_us, symbol=None):
        """The ticks of the venue in (start, end], as (instant, id), quotes as (instant, bid)."""
        book, is_quotes = self.box.shelf.of(self.venue)[(symbol or self.symbol).replace("/", "")], self.venue == "broker"
        return [(item.us, str(item.price if is_quotes else item.number)) for item in Tape(book, is_quotes).between(start_us, end_us)]


@contextmanager
def home(tmp_path, venue="binance", *, speed=60.0, start=NOW, timeframes=("1m",), clock=None, symbols=None, data=None):
    """A running sandbox, of its own data or of those in a folder, and a home with a connection to it."""
    provider, symbol, path, account, _ = VENUES[venue]
    with running(data, mode="replay", clock=clock or FastClock(start, speed)) as box:
        settings = Settings(home=tmp_path / "home", allow_private_hosts=True, key_file=tmp_path / "stream.keys", settle_seconds=5,
                            retry_wait=0.05, _env_file=None)
        if not settings.key_file.exists():
            KeyRing.create(settings.key_file)
        with open_feed(settings, box.clock) as feed:
            if "s" not in [row.slug for row in feed.connections.list()]:
                feed.connections.create(ConnectionInput(
                    slug="s", provider=provider, base_url=box.url + path, credentials=account, symbols=symbols or [symbol],
                    timeframes=list(timeframes)))
            yield Home(box, feed, venue)


async def until(condition, seconds=60.0):
    """Wait until `condition()` holds; fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  conditions of the store ring no bell
            await asyncio.sleep(0.02)


def outside(ticks, gaps):
    """The ticks, as (instant, id), that lie in none of the booked ranges."""
    spans = [gap.interval for gap in gaps]
    return [tick for tick in ticks if not any(Interval(span.start, span.end + 1).start <= tick[0] <= span.end for span in spans)]


def stored_keys(frame):
    """Stored ticks as (instant, id), quotes as (instant, bid)."""
    return {(us, str(bid) if named is None else named) for us, named, bid in
            frame.select(pl.col("ts").dt.epoch("us"), "trade_id", "bid").iter_rows()}


def values(frame, start_us, end_us):
    """Candles in [start, end) without where they came from."""
    inside = pl.col("ts").is_between(to_datetime(start_us), to_datetime(end_us), closed="left")
    return frame.filter(inside).select("ts", "open", "high", "low", "close", "volume")

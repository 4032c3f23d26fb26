"""A home with one connection to a provider that plays a frame of candles, with faults to order."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import polars as pl
import pytest

from connections.leases import Leases
from core.candles import CANDLE_SCHEMA, empty_candles
from core.clock import ManualClock, parse_instant, to_datetime
from core.errors import BadPayloadError, CandlelakeError, ProviderUnavailableError, UnknownSymbolError, UnsupportedError
from core.interval import Interval
from core.series import Series
from core.server_clock import ServerClock
from core.settings import Settings
from core.timeframe import Grid, Timeframe
from feed import Feed
from providers.base import AccountInfo, CandlePage, Capabilities, Priority, SymbolInfo, TickPage
from storage import open_lake

START = parse_instant("2024-01-01")


@dataclass
class PlayedProvider:
    """Answers from a frame of true candles, oldest first, one page at most; `faults` spoil answers by chance."""

    truth: pl.DataFrame
    clock: ManualClock
    page: int = 100
    market_type: str = "crypto"
    faults: float = 0.0
    keeps: int | None = None
    late_us: int = 0  # the provider publishes a candle so long after its close
    error: CandlelakeError | None = None
    asked: list[Interval] = field(default_factory=list)
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    is_connected: bool = True
    server_clock: ServerClock | None = None
    down: Interval | None = None  # pages that touch it are not answered
    answers_left: int | None = None  # so many pages are answered, then no more
    partial_us: int = 0  # so long after its close a candle still shows an unfinished close
    stands_us: int | None = None  # the server's clock stands still there
    ahead: pl.DataFrame | None = None  # rows of the future, sent with each answer
    listed: list[SymbolInfo] = field(default_factory=lambda: [SymbolInfo("BTC/USDT")])
    named: dict[str, str] = field(default_factory=dict)  # other names of the one symbol that is played

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities("played", self.market_type, ("1m", "1h", "1d"), {"*": self.page}, history_candles=self.keeps)

    async def connect(self) -> None: ...
    async def disconnect(self) -> None: ...

    async def server_time_us(self) -> int:
        return self.clock.now_us()

    async def symbols(self) -> list[SymbolInfo]:
        return self.listed

    async def account_info(self) -> AccountInfo:
        return AccountInfo("me", "here")

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        raise UnsupportedError("ticks are not played here")

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        self.asked.append(interval)
        if self.error is not None:
            raise self.error
        if self.down is not None and timeframe.name == "1m" and interval.intersect(self.down) is not None:
            raise ProviderUnavailableError("down for a while")
        if self.answers_left is not None:
            self.answers_left -= 1
            if self.answers_left < 0:
                raise ProviderUnavailableError("gone")
        if symbol != "BTC/USDT" and symbol not in self.named:
            raise UnknownSymbolError(f"no symbol {symbol}")
        frame = self._timeframe(timeframe)
        seen = frame.filter(pl.col("ts") <= to_datetime(self.clock.now_us() - self.late_us))
        reach = None
        if self.keeps is not None:
            seen = seen.tail(self.keeps)
            reach = int(seen["ts"].dt.epoch("us")[0])
        out = seen.filter(pl.col("ts").is_between(interval.start_at, interval.end_at, closed="left")).head(self.page)
        if self.dice.random() < self.faults:
            out = self._spoil(out)
        if self.partial_us:
            final_until = to_datetime(self.clock.now_us() - self.partial_us - timeframe.length_us)
            out = out.with_columns(close=pl.when(pl.col("ts") > final_until).then(pl.col("open")).otherwise(pl.col("close")))
        out = out if self.ahead is None else pl.concat([self.ahead, out])
        server_us = self.clock.now_us() if self.stands_us is None else min(self.stands_us, self.clock.now_us())
        return CandlePage(out, interval, server_us, f"r{len(self.asked)}", reach)

    def _timeframe(self, timeframe: Timeframe) -> pl.DataFrame:
        if timeframe.name == "1m":
            return self.truth
        grouped = self.truth.group_by_dynamic("ts", every=timeframe.name).agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
            pl.col("volume").sum(), pl.col("spread").first())
        return grouped.select(list(CANDLE_SCHEMA))

    def _spoil(self, out: pl.DataFrame) -> pl.DataFrame:
        kind = self.dice.choice(["empty", "short", "double", "unsorted", "down", "garbage", "stale", "middle"])
        if kind == "down":
            raise ProviderUnavailableError("502 from the proxy")
        if kind == "garbage":
            raise BadPayloadError("HTML with 200")
        if kind == "empty":
            return empty_candles()
        if kind == "short":
            return out.head(self.dice.randint(0, len(out)))
        if kind == "stale":  # rows from long before what was asked
            return self.truth.head(self.dice.randint(1, 50))
        if kind == "middle":  # cut at both ends
            return out.slice(len(out) // 3, len(out) // 3)
        if kind == "double":
            return pl.concat([out, out.head(5)])
        return out.sample(fraction=1.0, shuffle=True, seed=3)


@dataclass
class OneConnection:
    """Stands for connections.ConnectionService with one connection, already open."""

    lake_id: int
    provider: PlayedProvider
    slug: str = "played"
    id: int = 0
    is_active: bool = True
    retry_at_us: int | None = None
    settings: dict[str, object] = field(default_factory=dict)
    ends_with: CandlelakeError | None = None  # what goes wrong when the session is closed

    def get(self, slug: str) -> "OneConnection":
        self.id = self.lake_id
        return self

    def list(self) -> "list[OneConnection]":
        self.id = self.lake_id
        return [self]

    @asynccontextmanager
    async def open_provider(self, slug: str, priority: Priority = Priority.LIVE) -> AsyncIterator[PlayedProvider]:
        await asyncio.sleep(0)
        yield self.provider
        if self.ends_with is not None:
            raise self.ends_with


def minutes(count: int, start: int = START) -> pl.DataFrame:
    """Return `count` one-minute candles with changing values."""
    base = pl.DataFrame({"i": range(count)})
    price = 100.0 + pl.col("i") % 17
    return base.select(
        ts=pl.from_epoch(start + pl.col("i") * 60_000_000, time_unit="us").dt.replace_time_zone("UTC"),
        open=price, high=price + 2.0, low=price - 1.0, close=price + 1.0, volume=pl.col("i").cast(pl.Float64),
        spread=pl.lit(None, pl.Float64))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def series() -> Series:
    return Series.parse("played", "BTC/USDT", "1m")


@pytest.fixture
def make_feed(tmp_path_factory: pytest.TempPathFactory, clock: ManualClock) -> Iterator[Callable[..., tuple[Feed, PlayedProvider]]]:
    opened: list[Feed] = []

    def make(truth: pl.DataFrame, **options: object) -> tuple[Feed, PlayedProvider]:
        home = tmp_path_factory.mktemp("home")
        config = Settings(home=home, settle_seconds=options.pop("settle", 0), retry_wait=0)
        lake = open_lake(home, clock=clock)
        with lake.metadata.write() as tx:
            tx.exec_driver_sql(
                "INSERT INTO connections (slug, name, type, provider, config, settings, status, is_active,"
                " is_admin_owned, created_at_us, updated_at_us)"
                " VALUES ('played', 'Played', 'crypto', 'replay', '{}', '{}', 'active', 1, 1, 0, 0)")
            number = tx.exec_driver_sql("SELECT id FROM connections").scalar_one()
        provider = PlayedProvider(truth, clock, **options)
        feed = Feed(lake, OneConnection(number, provider), Leases(lake.metadata, clock), config, clock)
        opened.append(feed)
        return feed, provider

    yield make
    for feed in opened:
        feed.close()


@pytest.fixture
def grid() -> Grid:
    return Grid(Timeframe.parse("1m"))


@pytest.fixture
def candles_of() -> Callable[[int], pl.DataFrame]:
    return minutes

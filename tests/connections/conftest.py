"""A small provider with faults to switch on, and a connection service over it."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import polars as pl
import pytest

from connections.service import ConnectionInput, ConnectionService
from core.candles import CANDLE_SCHEMA
from core.clock import ManualClock, to_datetime
from core.errors import UnsupportedError
from core.settings import Settings
from core.timeframe import Grid
from providers.base import AccountInfo, CandlePage, Capabilities, SymbolInfo
from storage.lake.place import Place
from storage.ticks.store import TickStore
from storage.vault import KeyRing, Vault

NOW_US = 1_700_000_000_000_000  # Tuesday, 14 November 2023
CAPABILITIES = Capabilities(
    provider="small", market_type="crypto", timeframes=("1m", "1h"), page_candles={"*": 100}, concurrent_requests=4,
    requests_per_second=500.0, credentials=("user", "password"), optional_credentials=("server", "host", "port"))


@dataclass
class Venue:
    """The other side: what it answers, and what it was asked."""

    password: str = "right"
    is_demo: bool | None = True  # what it says of the account
    fault: Exception | None = None  # raised by connect
    data_fault: Exception | None = None  # raised by fetch_candles
    symbols: tuple[str, ...] = ("BTC/USD", "ETH/USD")
    logins: int = 0
    open_sessions: int = 0
    specs: list = field(default_factory=list)


class SmallProvider:
    """Keeps MarketDataProvider with flat candles of 1.0."""

    server_clock = None

    def __init__(self, venue, spec, budget):
        self.venue, self.spec, self.budget = venue, spec, budget
        self.capabilities = CAPABILITIES
        self.is_connected = False

    async def connect(self):
        from core.errors import CredentialsRefusedError

        self.venue.logins += 1
        if self.venue.fault is not None:
            raise self.venue.fault
        if self.spec.credentials["password"].reveal() != self.venue.password:
            raise CredentialsRefusedError("small refuses the login")
        self.is_connected = True
        self.venue.open_sessions += 1

    async def disconnect(self):
        self.venue.open_sessions -= int(self.is_connected)
        self.is_connected = False

    async def server_time_us(self):
        return self.spec.clock.now_us()

    async def symbols(self):
        return [SymbolInfo(name) for name in self.venue.symbols]

    async def account_info(self):
        return AccountInfo(login="7", server="small", is_demo=self.venue.is_demo, can_trade=True)

    async def fetch_candles(self, symbol, timeframe, interval):
        async with self.budget.spend():
            if self.venue.data_fault is not None:
                raise self.venue.data_fault
            slots = Grid(timeframe).slots(interval)
            rows = [(to_datetime(us), 1.0, 1.0, 1.0, 1.0, 1.0, None) for us in slots]
            return CandlePage(pl.DataFrame(rows, schema=CANDLE_SCHEMA, orient="row"), interval, interval.end, "r1")

    async def fetch_ticks(self, symbol, interval):
        raise UnsupportedError("ticks are not played here")


@pytest.fixture
def given():
    """Makes a connection input that is good, with changes."""
    def make(**changes):
        return ConnectionInput(**{
            "slug": "small", "provider": "small", "credentials": {"user": "7", "password": "right"},
            "symbols": ["BTC/USD"], "timeframes": ["1m"], "base_url": "http://127.0.0.1:4280/small", **changes})
    return make


@pytest.fixture
def clock():
    return ManualClock(NOW_US)


@pytest.fixture
def venue():
    return Venue()


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path / "home", allow_private_hosts=True, key_file=tmp_path / "keys" / "test.keys",
                    max_consecutive_failures=3, request_timeout=5)


@pytest.fixture
def key_ring(settings):
    return KeyRing.create(settings.key_file)


@pytest.fixture
def vault(metadata_store, key_ring, clock):
    return Vault(metadata_store, key_ring, clock)


@pytest.fixture
def service(metadata_store, vault, settings, clock, venue, tmp_path):  # noqa: PLR0917  fixtures
    """A connection service whose one provider is `small`, on SQLite and on PostgreSQL."""
    def describe(name):
        from core.errors import InputError

        if name != "small":
            raise InputError("provider", name, "small")
        return CAPABILITIES

    def opened(spec, budget):
        venue.specs.append(spec)
        return SmallProvider(venue, spec, budget)

    place = Place(tmp_path, metadata_store, clock)
    lake = SimpleNamespace(metadata=metadata_store, place=place, tick_store=TickStore(place))
    return ConnectionService(lake, vault, settings, clock, open_provider=opened, describe=describe)

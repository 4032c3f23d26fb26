"""The protocol that every provider of market data keeps, and the values that cross it.

A provider makes one request per `fetch_candles` call and translates every foreign error into `core.errors` at its own
border. Paging over long ranges belongs to `providers.paging`, storing belongs to `feed`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol, runtime_checkable

import polars as pl

from core.clock import Clock, SystemClock
from core.interval import Interval
from core.secrets import Secret
from core.server_clock import ServerClock
from core.ticks import Tick
from core.timeframe import Timeframe

MarketType = Literal["fx", "crypto"]


class Priority(IntEnum):
    """Who goes first when the rate budget is short."""

    LIVE = 0
    REPAIR = 1
    BACKFILL = 2


class RateBudget(Protocol):
    """The allowance of requests shared by all who use one account or address (see connections.budget)."""

    def spend(self, weight: float = 1.0) -> AbstractAsyncContextManager[None]:
        """Wait until `weight` may be spent, then hold a place among the requests under way while the body runs."""

    async def penalise(self, seconds: float) -> None:
        """Let nobody spend for `seconds`: the provider has asked us to slow down."""


class Unlimited:
    """A budget without limits: for tests, and for `connections test` before anything is stored."""

    def spend(self, weight: float = 1.0) -> AbstractAsyncContextManager[None]:  # noqa: ARG002  the protocol gives it
        """Let the body run at once."""
        return nullcontext()

    async def penalise(self, seconds: float) -> None:
        """Forget it."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider can do, as data.

    Attributes:
        timeframes: canonical names, shortest first.
        page_candles: candles at most in one answer, by canonical timeframe name; "*" for the rest.
        history_candles: the provider keeps only so many newest candles (Kraken: 720); None when it keeps all.
        limits: requests at once, and requests per second, that the provider's rules allow one account or address.
        volume_unit: what `volume` counts: base | quote | contracts | ticks.
        sparse: whether the provider leaves out candles of times without a trade.
        has_orders: whether it takes orders of ours: its provider is a TradingProvider.
        trade_ids_follow: whether the ids of one symbol's trades count up by one, so that a missing one shows.
    """

    provider: str
    market_type: MarketType
    timeframes: tuple[str, ...]
    page_candles: Mapping[str, int]
    history_candles: int | None = None
    concurrent_requests: int = 2
    requests_per_second: float = 1.0
    credentials: tuple[str, ...] = ()  # names of required credential fields
    optional_credentials: tuple[str, ...] = ()
    credential_choices: tuple[tuple[str, ...], ...] = ()  # of the optional ones: all of one of these are needed too
    has_ticks: bool = False
    has_tick_history: bool = False
    has_streams: bool = False
    has_spread: bool = False
    has_orders: bool = False
    volume_unit: Literal["base", "quote", "contracts", "ticks"] = "base"
    sparse: bool = False
    trade_ids_follow: bool = False

    def page_limit(self, timeframe: Timeframe) -> int:
        """Return how many candles of `timeframe` one answer holds at most."""
        return self.page_candles.get(timeframe.name, self.page_candles["*"])


@dataclass(frozen=True, slots=True)
class ConnectionSpec:
    """All that a provider needs to open a connection. Credentials are secrets by type."""

    slug: str
    provider: str
    base_url: str | None = None
    credentials: Mapping[str, Secret] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)  # provider-specific, documented by each provider
    timeout: float = 30.0  # seconds to wait for an answer
    allow_private_hosts: bool = False
    clock: Clock = field(default_factory=SystemClock)


@dataclass(frozen=True, slots=True)
class CandlePage:
    """One answer of a provider.

    Attributes:
        candles: frame of CANDLE_SCHEMA as the provider gave it (UTC already), unchecked: rows may be unsorted, double,
            still open or outside `asked`. feed checks them with core.candles.check.
        asked: what the request asked for.
        server_us: the provider's own clock when it answered, UTC microseconds.
        request_id: names this request in logs and provenance.
        reachable_from: no older history than this exists at the provider (Kraken's 720), None when it keeps all.
    """

    candles: pl.DataFrame
    asked: Interval
    server_us: int
    request_id: str
    reachable_from: int | None = None


@dataclass(frozen=True, slots=True)
class TickPage:
    """One answer with ticks: frame of core.ticks.TICK_SCHEMA, what was asked, the provider's clock."""

    ticks: pl.DataFrame
    asked: Interval
    server_us: int
    request_id: str


@dataclass(frozen=True, slots=True)
class StreamedCandle:
    """What a stream says of a candle while it forms: the newest values of the one that opens at `ts_us`."""

    symbol: str
    timeframe: Timeframe
    ts_us: int
    received_us: int
    open: float
    high: float
    low: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class SymbolInfo:
    """A symbol in the provider's own spelling. `price_step` is the least price change, None when unknown.

    `market_id` and `listed_us` (when it was listed, UTC) tell one asset from another under the same symbol; None: unknown.
    """

    symbol: str
    description: str = ""
    price_step: float | None = None
    is_active: bool = True
    market_id: str | None = None
    listed_us: int | None = None


@dataclass(frozen=True, slots=True)
class AccountInfo:
    """Who we are at the provider; never holds a secret. Amounts in `currency`."""

    login: str
    server: str
    currency: str | None = None
    balance: float | None = None
    equity: float | None = None
    is_demo: bool | None = None
    can_trade: bool | None = None


@runtime_checkable
class MarketDataProvider(Protocol):
    """A broker or exchange. One instance serves one connection and is used by one event loop."""

    @property
    def capabilities(self) -> Capabilities:
        """What this provider can do; complete after `connect`, a safe default before."""

    @property
    def is_connected(self) -> bool:
        """Whether `connect` succeeded and the session is not known to be lost."""

    @property
    def server_clock(self) -> ServerClock | None:
        """The broker's wall clock that cuts its days and 4h candles; None means UTC."""

    async def connect(self) -> None:
        """Open the session (log in, load markets). Idempotent.

        Raises:
            CredentialsRefusedError: the login is refused; never try again by yourself.
            TransientError: no answer, or not now.
        """

    async def disconnect(self) -> None:
        """Close the session and its sockets. Idempotent; never raises on a dead session."""

    async def server_time_us(self) -> int:
        """Return the provider's own clock, UTC microseconds."""

    async def symbols(self) -> list[SymbolInfo]:
        """Return all symbols the provider offers, sorted by name."""

    async def account_info(self) -> AccountInfo:
        """Return who we are at the provider.

        Raises:
            UnsupportedError: a connection to public data has no account.
        """

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Ask once for the candles that open in `interval`, at most one page of them (oldest first when it is cut).

        Raises:
            UnknownSymbolError, UnsupportedError: asked for what the provider does not have.
            TransientError: no usable answer; BadPayloadError when one came that breaks the protocol.
        """

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        """Ask once for the ticks in `interval`; UnsupportedError where the provider has no tick history."""


@runtime_checkable
class StreamingProvider(MarketDataProvider, Protocol):
    """A provider that pushes too: `capabilities.has_streams` says so.

    A stream is one session: it ends with an error when the session does, and whoever reads it starts another. What came
    in between is lost to it. Closing the generator ends the session.
    """

    def stream_ticks(self, symbols: Sequence[str]) -> AsyncGenerator[list[Tick], None]:
        """Yield the ticks of `symbols` as they come, in their order; repeats included.

        The first list comes when the subscriptions stand, and is empty.

        Raises:
            UnknownSymbolError: the provider has no such symbol, whether or not it says so itself.
            UnsupportedError: it streams no ticks.
            OverrunError: the reader is too slow; ticks were lost.
            TransientError: the session ended, BadPayloadError when a message broke the protocol.
        """

    async def resubscribe(self, symbols: Sequence[str]) -> None:
        """Ask once more for the ticks of `symbols` within the running session, which has brought none of them for too long.

        Raises:
            UnsupportedError: there is no way but another stream of these symbols.
            TransientError: it was not done.
        """

    def stream_candles(self, pairs: Sequence[tuple[str, Timeframe]]) -> AsyncGenerator[list[StreamedCandle], None]:
        """Yield the forming candles as they change; a candle is final when a later one came. Errors as `stream_ticks`.

        Raises:
            UnsupportedError: the venue streams no candles: build them from its ticks.
        """


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """A market order as we want it, or wanted it at `sent_at_us`; `client_id` is ours and finds it again."""

    client_id: str
    symbol: str
    side: Literal["buy", "sell"]
    quantity: float  # lots at brokers, base coins at exchanges
    sent_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class BrokerOrder:
    """What the broker says of an order: `filled` of its quantity at the mean `price`, `commission` in quote currency.

    `multiplier` turns a price difference of one unit of quantity into money: the contract size of a lot.
    """

    client_id: str
    order_id: str
    status: Literal["acknowledged", "filled", "rejected", "cancelled"]
    price: float | None = None
    filled: float = 0.0
    commission: float = 0.0
    at_us: int | None = None
    multiplier: float = 1.0


@runtime_checkable
class TradingProvider(MarketDataProvider, Protocol):
    """A provider that takes orders. Nothing here sends twice, whatever happens on the way."""

    async def place_order(self, order: PlacedOrder) -> BrokerOrder:
        """Send a market order once.

        Raises:
            PermanentError: refused: there is no such order.
            TransientError: unknown; ask `find_order`.
        """

    async def find_order(self, order: PlacedOrder) -> BrokerOrder | None:
        """Return the order that carries `client_id`, open or ended; None when the broker knows none."""

    async def open_orders(self) -> list[BrokerOrder]:
        """Return all orders and positions that are open and carry a client id of ours."""

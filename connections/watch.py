"""A provider under watch: notes how its calls end, and stops all calls once the login is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from connections.health import counts_as_failure
from core.errors import CandlelakeError, CredentialsRefusedError
from core.interval import Interval
from core.server_clock import ServerClock
from core.timeframe import Timeframe
from providers.base import AccountInfo, CandlePage, Capabilities, MarketDataProvider, SymbolInfo, TickPage

T = TypeVar("T")


class WatchedProvider:
    """Passes every call on to `provider`. Keeps MarketDataProvider; what lies beyond the protocol is passed on unwatched."""

    def __init__(self, provider: MarketDataProvider) -> None:
        self._provider = provider
        self._refused: CredentialsRefusedError | None = None
        self._failed: CandlelakeError | None = None
        self._succeeded = False

    @property
    def failure(self) -> CandlelakeError | None:
        """What speaks against the connection: a refused login, or the last error when no call came through."""
        return self._refused or (None if self._succeeded else self._failed)

    @property
    def capabilities(self) -> Capabilities:
        """What the provider can do."""
        return self._provider.capabilities

    @property
    def is_connected(self) -> bool:
        """Whether the session is open and the login was not refused."""
        return self._refused is None and self._provider.is_connected

    @property
    def server_clock(self) -> ServerClock | None:
        """The broker's wall clock; None means UTC."""
        return self._provider.server_clock

    async def connect(self) -> None:
        """Open the session."""
        await self._watch(self._provider.connect, is_data=False)

    async def disconnect(self) -> None:
        """Close the session."""
        await self._provider.disconnect()

    async def server_time_us(self) -> int:
        """Return the provider's own clock, UTC microseconds."""
        return await self._watch(self._provider.server_time_us)

    async def symbols(self) -> list[SymbolInfo]:
        """Return all symbols the provider offers."""
        return await self._watch(self._provider.symbols, is_data=False)

    async def account_info(self) -> AccountInfo:
        """Return who we are at the provider."""
        return await self._watch(self._provider.account_info)

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Ask once for candles."""
        return await self._watch(lambda: self._provider.fetch_candles(symbol, timeframe, interval))

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        """Ask once for ticks."""
        return await self._watch(lambda: self._provider.fetch_ticks(symbol, interval))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def _watch(self, call: Callable[[], Awaitable[T]], *, is_data: bool = True) -> T:
        if self._refused is not None:  # one more login with a refused password may lock the account
            raise CredentialsRefusedError(str(self._refused))
        try:
            result = await call()
        except CredentialsRefusedError as error:
            self._refused = error
            raise
        except CandlelakeError as error:
            if counts_as_failure(error):
                self._failed = error
            raise
        self._succeeded = self._succeeded or is_data
        return result

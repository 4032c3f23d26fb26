"""MetaTrader 5 and MetaTrader 4 accounts behind the bridge as providers of market data that take orders.

Credentials: `user`, `password`, and `server` or `host` and `port`; `api_key` for paid hosts. Config: `server_clock`
(see `clock.from_config`) and `clock_symbol`, the FX symbol whose week ends are read when no clock is configured.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

import polars as pl

from core.candles import empty_candles
from core.clock import HOUR_US, MINUTE_US, to_datetime
from core.errors import BadPayloadError, PermanentError, SessionLostError, UnknownSymbolError, UnsupportedError
from core.interval import Interval
from core.server_clock import ServerClock
from core.ticks import Tick
from core.timeframe import Grid, Timeframe
from providers.base import (
    AccountInfo,
    BrokerOrder,
    CandlePage,
    Capabilities,
    ConnectionSpec,
    PlacedOrder,
    RateBudget,
    StreamedCandle,
    SymbolInfo,
    TickPage,
)
from providers.http import Answer, Http
from providers.mtapi import clock as clocks
from providers.mtapi import parse, trading
from providers.mtapi.candles import aggregate, local_range, to_utc
from providers.mtapi.client import Login, Session
from providers.mtapi.stream import resubscribe_quotes, stream_bars, stream_quotes
from providers.paging import pages

MT5_URL: Final = "https://mt5.mtapi.io"
MT4_URL: Final = "https://mt4.mtapi.io"
EVIDENCE_HOURS: Final = 5000  # ten months: at least one season in which EU and US summer time differ
RECHECK_US: Final = 15 * MINUTE_US
LATE_RECHECK_US: Final = MINUTE_US
_MAJORS: Final = ("EURUSD", "GBPUSD", "USDJPY", "AUDUSD", "USDCHF", "USDCAD", "NZDUSD", "EURGBP", "EURJPY", "XAUUSD")

MT5_CAPABILITIES: Final = Capabilities(
    provider="mtapi:mt5",
    market_type="fx",
    timeframes=("1m", "3m", "5m", "10m", "15m", "30m", "1h", "2h", "3h", "4h", "6h", "8h", "12h", "1d", "1w", "1mo"),
    # 30 days of 1m in one request is what the bridge is known to answer; it builds every length from 1m.
    page_candles={
        "1m": 43_200, "3m": 14_400, "5m": 17_280, "10m": 4_320, "15m": 8_640, "30m": 8_640, "1h": 4_320,
        "2h": 2_160, "3h": 1_440, "4h": 1_080, "6h": 720, "8h": 540, "12h": 360, "1d": 180, "1w": 25, "1mo": 6, "*": 6,
    },
    concurrent_requests=2,
    requests_per_second=1.0,
    credentials=("user", "password"),
    optional_credentials=("server", "host", "port", "api_key"),
    credential_choices=(("server",), ("host", "port")),
    has_ticks=True,
    has_streams=True,
    has_spread=True,
    has_orders=True,
    volume_unit="ticks",
    sparse=True,
)
MT4_CAPABILITIES: Final = replace(
    MT5_CAPABILITIES,
    provider="mtapi:mt4",
    timeframes=("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1mo"),
    page_candles={"4h": 1_200, "1d": 200, "1w": 28, "1mo": 6, "*": 4_950},  # 5,000 bars at most in one answer
    has_spread=False,
)


def open_mt5(spec: ConnectionSpec, budget: RateBudget) -> Mt5Provider:
    """Return a MetaTrader 5 account, not yet connected; InputError or AddressRefusedError on a bad spec."""
    return Mt5Provider(spec, budget)


def open_mt4(spec: ConnectionSpec, budget: RateBudget) -> Mt4Provider:
    """Return a MetaTrader 4 account, not yet connected; InputError or AddressRefusedError on a bad spec."""
    return Mt4Provider(spec, budget)


class MtapiProvider(ABC):
    """What both platforms share: session, clock, symbols, account, and cutting candles. Keeps MarketDataProvider."""

    capabilities: Capabilities
    default_url: str
    dialect: trading.Dialect

    def __init__(self, spec: ConnectionSpec, budget: RateBudget) -> None:
        self.spec = spec
        key = spec.credentials.get("api_key")
        self._http = Http(
            spec.base_url or self.default_url,
            timeout=spec.timeout,
            allow_private=spec.allow_private_hosts,
            clock=spec.clock,
            headers={"ApiKey": key} if key else {},
        )
        self._session = Session(self._http, Login.of(spec.credentials), budget)
        self._configured = clocks.from_config(spec.config)
        self._server_clock: ServerClock | None = None
        self._measured = clocks.Measured(0, 0)
        self._measured_at_us = 0
        self._reading_us = 0  # the server's wall clock when it was measured
        self._answers = 0

    @property
    def is_connected(self) -> bool:
        """Whether we are logged in and know the server's clock."""
        return self._session.is_open and self._server_clock is not None

    @property
    def server_clock(self) -> ServerClock | None:
        """The broker's wall clock; None before `connect`."""
        return self._server_clock

    @property
    def measured_offset_us(self) -> int | None:
        """The offset from UTC as last measured; None before `connect`."""
        return None if self._server_clock is None else self._measured.offset_us

    async def connect(self) -> None:
        """Log in, measure the server's clock and settle its summer-time rule. Idempotent.

        Raises:
            CredentialsRefusedError: the login is refused; this instance never tries again.
            InputError: the clock's rule contradicts the measurement, or cannot be told.
            TransientError: no answer, or not now.
        """
        if self.is_connected:
            return
        await self._session.open()
        await self._measure()
        measured, now_us = self._measured, self._measured_at_us + self._measured.skew_us
        if self._configured is None:
            hours = await self._evidence(now_us + measured.offset_us)
            clock = clocks.infer(measured, now_us, hours)
        else:
            clock = self._configured
        clocks.verify(clock, measured, now_us)
        self._server_clock = clock

    async def disconnect(self) -> None:
        """Log out and close the sockets; never raises on a dead session."""
        self._server_clock = None
        await self._session.close()

    async def server_time_us(self) -> int:
        """Measure the server's clock again and return it, UTC microseconds.

        Raises:
            InputError: its offset is no longer what the rule says.
        """
        await self._recheck(force=True)
        return self._server_us(self.spec.clock.now_us())

    async def symbols(self) -> list[SymbolInfo]:
        """Return the symbols the account sees, sorted by name."""
        value, _ = await self._session.call("/Symbols")
        return parse.symbols(value)

    async def account_info(self) -> AccountInfo:
        """Return login, server and balances; amounts are None while the bridge has not synchronised them."""
        details, _ = await self._session.call("/AccountDetails")
        summary, _ = await self._session.call("/AccountSummary")
        return parse.account_info(parse.account_details(details), summary, self._session.login.user)

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Ask once for the candles that open in `interval`, one page at most.

        Days, weeks, months and hours above one are cut at the server's midnight from hourly candles.

        Raises:
            UnsupportedError: the platform has no such timeframe.
            UnknownSymbolError: the account does not see the symbol; names near ones.
            SessionLostError: not connected.
            BadPayloadError, other TransientErrors: no usable answer.
        """
        if timeframe.name not in self.capabilities.timeframes:
            raise UnsupportedError(
                f"timeframe: received {timeframe}; allowed at {self.capabilities.provider}: {', '.join(self.capabilities.timeframes)}")
        await self._recheck()
        clock = self._connected_clock()
        grid = Grid(timeframe, clock)
        asked = next(pages(interval, grid, self.capabilities.page_limit(timeframe)), None)
        if asked is None:
            whole = grid.align(interval)
            return CandlePage(empty_candles(), whole, self._server_us(self.spec.clock.now_us()), "nothing-asked")
        base = base_timeframe(timeframe)
        bars, answer = await self._named(symbol, self._bars(symbol, base, asked, clock))
        candles = to_utc(bars, clock)
        if base != timeframe:
            candles = aggregate(candles, Grid(base, clock), grid, asked)
        return CandlePage(candles, asked, self._server_us(answer.asked_us), self._request_id(answer))

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        """Refuse: the bridge hands out ticks over a websocket alone, without an end date."""
        raise UnsupportedError(f"{self.capabilities.provider} has no tick history; received {symbol} {interval}")

    async def stream_ticks(self, symbols: Sequence[str]) -> AsyncGenerator[list[Tick], None]:
        """Yield the quotes of `symbols` as they come; see StreamingProvider and providers.mtapi.stream."""
        await self._recheck()
        await self._check_symbols(symbols)
        stream = stream_quotes(self._session, symbols, self._connected_clock(), self.spec)
        async with aclosing(stream) as quotes:
            async for batch in quotes:
                yield batch

    async def resubscribe(self, symbols: Sequence[str]) -> None:
        """Drop the subscriptions of `symbols` and make them anew; the open socket brings them again."""
        await resubscribe_quotes(self._session, symbols)

    async def stream_candles(self, pairs: Sequence[tuple[str, Timeframe]]) -> AsyncGenerator[list[StreamedCandle], None]:
        """Yield the forming candles of `pairs`; UnsupportedError where the host has no socket for them, or above 1h."""
        await self._recheck()
        await self._check_symbols([symbol for symbol, _ in pairs])
        stream = stream_bars(self._session, pairs, self._connected_clock(), self.spec)
        async with aclosing(stream) as bars:
            async for batch in bars:
                yield batch

    async def place_order(self, order: PlacedOrder) -> BrokerOrder:
        """Send a market order once; see TradingProvider and providers.mtapi.trading."""
        return await trading.place(self._session, self.dialect, order, self._connected_clock())

    async def find_order(self, order: PlacedOrder) -> BrokerOrder | None:
        """Ask the broker for an order by its key; see TradingProvider."""
        clock = self._connected_clock()
        return await trading.find(self._session, self.dialect, order, clock, self._server_us(self.spec.clock.now_us()))

    async def open_orders(self) -> list[BrokerOrder]:
        """Return the open orders and positions that carry a key of ours."""
        return await trading.opened(self._session, self._connected_clock())

    async def clock_stamps(self, interval: Interval) -> list[tuple[int, int]]:
        """Return UTC and wall clock, microseconds, of the account's own orders in `interval`: what the clock was then."""
        return await trading.stamps(self._session, self._connected_clock(), interval)

    async def _check_symbols(self, symbols: Sequence[str]) -> None:
        """Raise UnknownSymbolError for a symbol that the account does not see: to subscribe to one fails without a word."""
        names = [info.symbol for info in await self.symbols()]
        for symbol in symbols:
            if symbol not in names:
                raise UnknownSymbolError(f"symbol: received {symbol!r}; allowed: the broker's own spelling; {_hint(symbol, names)}")

    @abstractmethod
    async def _bars(
        self, symbol: str, timeframe: Timeframe, asked: Interval, clock: ServerClock
    ) -> tuple[pl.DataFrame, Answer]:
        """Return one answer's bars of up to an hour, as a frame of LOCAL_SCHEMA."""

    @abstractmethod
    async def _newest_hours(self, symbol: str, local_us: int) -> pl.DataFrame:
        """Return the newest hourly bars up to a wall-clock reading, as a frame of LOCAL_SCHEMA."""

    async def _named(self, symbol: str, reading: Any) -> tuple[pl.DataFrame, Answer]:
        try:
            frame, answer = await reading
        except UnknownSymbolError as error:
            names = [info.symbol for info in await self.symbols()]
            raise UnknownSymbolError(
                f"{error.message}; symbol: received {symbol!r}; allowed: the broker's own spelling; {_hint(symbol, names)}") from None
        return frame, answer

    def _connected_clock(self) -> ServerClock:
        if self._server_clock is None:
            raise SessionLostError(f"{self._http.host}: not connected; connect first")
        return self._server_clock

    def _server_us(self, now_us: int) -> int:
        """Return the server's clock at an instant of ours; a late clock is taken to stand still until it is read again."""
        if self._measured.is_late:
            return self._connected_clock().to_utc_us(self._reading_us)
        return now_us + self._measured.skew_us

    def _request_id(self, answer: Answer) -> str:
        self._answers += 1
        return f"{self.spec.slug}-{answer.asked_us}-{self._answers}"

    async def _recheck(self, *, force: bool = False) -> None:
        """Measure again every quarter of an hour (a late clock: every minute), and at once after the clock's change."""
        clock = self._connected_clock()
        now_us = self.spec.clock.now_us()
        changed = clocks.may_have_changed(self._measured_at_us, now_us) if now_us > self._measured_at_us else False
        least = LATE_RECHECK_US if self._measured.is_late else RECHECK_US
        if force or changed or abs(now_us - self._measured_at_us) >= least:
            await self._measure()
            clocks.verify(clock, self._measured, self._measured_at_us + self._measured.skew_us)

    async def _measure(self) -> None:
        value, answer = await self._session.call("/AccountDetails")
        reading = parse.local_us(parse.account_details(value).get("serverTime"), "serverTime")
        zone, _ = await self._session.call("/ServerTimezone")
        zone_us = parse.timezone_us(zone)
        witnesses: list[int] = []
        if not clocks.is_plain(reading, answer.asked_us, answer.answered_us, zone_us):
            orders, _ = await self._session.call("/OpenedOrders")
            witnesses = parse.order_offsets_us(orders)
        measured = clocks.measure(reading, answer.asked_us, answer.answered_us, zone_us, witnesses)
        self._measured, self._measured_at_us, self._reading_us = measured, answer.answered_us, reading

    async def _evidence(self, local_us: int) -> list[int]:
        """Return open times of the newest hourly candles of an FX symbol, wall clock; none when there is no such symbol."""
        names = [info.symbol for info in await self.symbols()]
        wanted = self.spec.config.get("clock_symbol")
        symbol = wanted if isinstance(wanted, str) else _first_major(names)
        if symbol is None:
            return []
        try:
            bars = await self._newest_hours(symbol, local_us)
        except (PermanentError, BadPayloadError):
            return []  # no evidence; `infer` says what that means
        return bars["local_us"].to_list()


class Mt5Provider(MtapiProvider):
    """MetaTrader 5: bars by range, spreads in points."""

    capabilities = MT5_CAPABILITIES
    default_url = MT5_URL
    dialect = trading.MT5

    def __init__(self, spec: ConnectionSpec, budget: RateBudget) -> None:
        super().__init__(spec, budget)
        self._points: dict[str, float | None] = {}

    async def _bars(
        self, symbol: str, timeframe: Timeframe, asked: Interval, clock: ServerClock
    ) -> tuple[pl.DataFrame, Answer]:
        if symbol not in self._points:
            value, _ = await self._session.call("/SymbolParams", [("symbol", symbol)])
            self._points[symbol] = parse.point(value, symbol)
        start, end = local_range(clock, asked)
        value, answer = await self._session.call("/PriceHistory", [
            ("symbol", symbol), ("from", _wall(start)), ("to", _wall(end)), ("timeFrame", str(timeframe.minutes))])
        return parse.mt5_bars(value, symbol, self._points[symbol]), answer

    async def _newest_hours(self, symbol: str, local_us: int) -> pl.DataFrame:
        value, _ = await self._session.call("/PriceHistoryEx", [
            ("symbol", symbol), ("from", _wall(local_us)), ("numBars", str(EVIDENCE_HOURS)), ("timeFrame", "60")])
        return parse.mt5_bars(value, symbol, None)


class Mt4Provider(MtapiProvider):
    """MetaTrader 4: bars counted back from a time, no spreads."""

    capabilities = MT4_CAPABILITIES
    default_url = MT4_URL
    dialect = trading.MT4
    _NAMES: Final = {"1m": "M1", "5m": "M5", "15m": "M15", "30m": "M30", "1h": "H1"}

    async def _bars(
        self, symbol: str, timeframe: Timeframe, asked: Interval, clock: ServerClock
    ) -> tuple[pl.DataFrame, Answer]:
        start, end = local_range(clock, asked)
        # One more than there can be: whether the bar at `from` itself is counted differs between builds.
        count = (end - start) // timeframe.length_us + 2
        value, answer = await self._history(symbol, self._NAMES[timeframe.name], end, count)
        return parse.mt4_bars(value, symbol), answer

    async def _newest_hours(self, symbol: str, local_us: int) -> pl.DataFrame:
        value, _ = await self._history(symbol, "H1", local_us, EVIDENCE_HOURS)
        return parse.mt4_bars(value, symbol)

    async def _history(self, symbol: str, name: str, local_us: int, count: int) -> tuple[Any, Answer]:
        return await self._session.call("/QuoteHistory", [
            ("symbol", symbol), ("timeframe", name), ("from", _wall(local_us)), ("count", str(count))])


def _hint(symbol: str, names: list[str]) -> str:
    near = [name for name in names if name.upper().startswith(symbol.upper()[:6])] or difflib.get_close_matches(symbol, names)
    return f"near: {', '.join(near[:5])}" if near else f"{len(names)} symbols are on offer"


def base_timeframe(timeframe: Timeframe) -> Timeframe:
    """Return the timeframe to ask for: what the bridge cuts reliably itself, hours for the longer, minutes for odd ones."""
    if timeframe.name in {"3m", "10m"}:
        return Timeframe.parse("1m")
    return Timeframe.parse("1h") if timeframe.length_us > HOUR_US else timeframe


def _first_major(names: list[str]) -> str | None:
    """Return the broker's spelling of a major pair: brokers add suffixes."""
    return next((name for major in _MAJORS for name in names if name.upper().startswith(major)), None)


def _wall(local_us: int) -> str:
    return to_datetime(local_us).strftime("%Y-%m-%dT%H:%M:%S")

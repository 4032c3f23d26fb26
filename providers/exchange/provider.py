"""The provider of one connection to one exchange. See README.md for what ccxt does and what is done here."""

from __future__ import annotations

import asyncio
import difflib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final
from uuid import uuid4

import polars as pl

from core.candles import empty_candles
from core.clock import to_datetime
from core.errors import (
    BadPayloadError,
    CandlelakeError,
    ClockSkewError,
    InputError,
    RateLimitedError,
    SessionLostError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.secrets import Secret
from core.server_clock import ServerClock
from core.ticks import Tick
from core.timeframe import Grid, Timeframe
from providers.addresses import check_url
from providers.base import (
    AccountInfo,
    CandlePage,
    Capabilities,
    ConnectionSpec,
    RateBudget,
    StreamedCandle,
    SymbolInfo,
    TickPage,
)
from providers.exchange.config import ExchangeConfig
from providers.exchange.profiles import capabilities, check_exchange, credential_fields, profile, timeframe_names
from providers.exchange.request import candle_request, check_answer, reachable_from
from providers.exchange.rows import market_identity, read_rows
from providers.exchange.server_time import ServerTime, date_us, steady_us
from providers.exchange.trades import TRADES, read_trades
from providers.exchange.wire import Call, current_call
from providers.http import retry_after

PENALTY: Final = 30.0  # seconds of silence when an exchange asks for it without saying how long
_CREDENTIALS: Final = (
    "api_key", "secret", "password", "uid", "account_id", "login", "twofa", "private_key", "wallet_address", "token")


class ExchangeProvider:
    """An exchange through ccxt; keeps `MarketDataProvider`. Public data needs no credentials and is never signed.

    Raises:
        InputError: an unknown exchange, credential field or configuration key.
        AddressRefusedError: the base URL is malformed.
    """

    def __init__(self, spec: ConnectionSpec, budget: RateBudget) -> None:
        self._id = check_exchange(spec.provider.removeprefix("ccxt:"))
        self._spec = spec
        self._budget = budget
        self._config = ExchangeConfig.parse(spec.config)
        self._base = check_url(spec.base_url) if spec.base_url else None
        self._profile = profile(self._id)
        self._exchange: Any = None
        self._timeframes: dict[str, str] = {}
        self._time: ServerTime | None = None
        self._lock = asyncio.Lock()
        for name in spec.credentials:
            if name not in _CREDENTIALS:
                raise InputError("credential", name, _CREDENTIALS, "remove it")

    def __repr__(self) -> str:
        return f"ExchangeProvider({self._spec.slug!r}, {self._id!r})"

    @property
    def capabilities(self) -> Capabilities:
        """What the exchange can do; the first look imports ccxt."""
        return capabilities(self._id)

    @property
    def is_connected(self) -> bool:
        """Whether the markets are loaded and the session is open."""
        return self._exchange is not None

    @property
    def server_clock(self) -> ServerClock | None:
        """None: exchanges cut their days at midnight UTC."""
        return None

    async def connect(self) -> None:
        """Load the markets. Idempotent.

        Raises:
            BadPayloadError: the exchange answered, but with no markets.
            InputError: a sandbox was asked for where there is none.
            PermanentError, TransientError: see providers.exchange.errors.
        """
        async with self._lock:
            if self._exchange is not None:
                return
            exchange = await asyncio.to_thread(self._build)
            try:
                await self._load(exchange)
            except BaseException:
                await exchange.close()
                raise
            self._exchange = exchange

    async def disconnect(self) -> None:
        """Close the session and its sockets. Idempotent."""
        async with self._lock:
            exchange, self._exchange, self._time = self._exchange, None, None
            if exchange is not None:
                await exchange.close()

    async def server_time_us(self) -> int:
        """Return the exchange's clock, UTC microseconds: asked for where it tells, else the Date of an answer."""
        exchange = self._connected()
        if exchange.has.get("fetchTime") is True:
            self._time = await self._measure(exchange)
            return self._time.now_us(self._spec.clock.now_us())
        _, call = await self._ask(exchange, lambda: exchange.load_markets(True))
        return date_us(call) or int(self._spec.clock.now_us())

    async def symbols(self) -> list[SymbolInfo]:
        """Return all symbols of the loaded markets, sorted."""
        exchange = self._connected()
        found = [
            SymbolInfo(name, _describe(market), _price_step(market, exchange.precisionMode), market.get("active") is not False,
                       *market_identity(market))
            for name, market in exchange.markets.items()
        ]
        return sorted(found, key=lambda info: info.symbol)

    async def account_info(self) -> AccountInfo:
        """Return whose key this is, by one signed request for the balance.

        Raises:
            UnsupportedError: the connection has no credentials, or the exchange tells no balance.
            InputError: a credential that the exchange requires is missing.
            CredentialsRefusedError, NotPermittedError: the exchange refuses the key.
        """
        if not self._spec.credentials:
            raise UnsupportedError(f"connection {self._spec.slug!r} has no credentials; public data of {self._id} has no account")
        exchange = self._connected()
        if exchange.has.get("fetchBalance") is not True:
            raise UnsupportedError(f"{self._id} tells no balance through ccxt")
        try:
            balance = await self._signed(exchange, exchange.fetch_balance)
        except ClockSkewError:  # its time has been read since
            balance = await self._signed(exchange, exchange.fetch_balance)
        info = balance.get("info") if isinstance(balance, dict) else None
        if not _is_account(info):
            raise BadPayloadError(f"{self._id} sent no balance; nothing of it is used")
        can_trade = info.get("canTrade") if isinstance(info, dict) else None
        return AccountInfo(
            login=_login(self._spec.credentials),
            server=self._id,
            is_demo=True if self._config.is_sandbox else None if self._base else False,  # another address may be a practice one
            can_trade=can_trade if isinstance(can_trade, bool) else None,
        )

    async def fetch_candles(self, symbol: str, timeframe: Timeframe, interval: Interval) -> CandlePage:
        """Ask once for the candles that open in `interval`, at most one page; `asked` says how far the page reaches.

        Raises:
            UnknownSymbolError: names near matches.
            UnsupportedError: the exchange has no candles, or not of this timeframe.
            BadPayloadError, TransientError: see providers.exchange.errors; nothing of a broken answer is returned.
        """
        exchange = self._connected()
        market = self._market(exchange, symbol)
        theirs = self._timeframe(timeframe)
        request = candle_request(exchange, Grid(timeframe), interval, self.capabilities.page_limit(timeframe))
        if request is None:
            return CandlePage(empty_candles(), interval, await self._server_us(exchange, None), uuid4().hex)
        asked_us = self._spec.clock.now_us()  # an answer knows no more than when it was asked for, however late it comes
        rows, call = await self._ask(
            exchange, lambda: exchange.fetch_ohlcv(symbol, theirs, request.since_ms, request.limit, dict(request.params)))
        raw = rows if call.rows is None else call.rows
        check_answer(self._id, raw, call, self._profile.rows_at)
        if call.rows is None:
            candles = read_rows(raw, lambda row: row)
        else:
            candles = read_rows(raw, lambda row: exchange.parse_ohlcv(row, market))
        candles = candles.sort("ts", maintain_order=True)
        return CandlePage(
            candles, request.asked, await self._server_us(exchange, call, asked_us), uuid4().hex,
            reachable_from(candles, request, timeframe, self._profile.history))

    async def fetch_ticks(self, symbol: str, interval: Interval) -> TickPage:
        """Ask once for the trades in `interval`; `asked` ends where a full page ends.

        Raises:
            UnsupportedError: the exchange serves no old trades.
            UnknownSymbolError, BadPayloadError, TransientError: as with candles.
        """
        exchange = self._connected()
        if not self.capabilities.has_tick_history:
            raise UnsupportedError(f"{self._id} serves no old trades that can be asked for by time; it has candles")
        self._market(exchange, symbol)
        params = {"until": interval.end // 1000 - 1} if self._profile.takes_until is not False else {}
        trades, call = await self._ask(
            exchange, lambda: exchange.fetch_trades(symbol, interval.start // 1000, TRADES, params))
        ticks = read_trades(trades)
        asked = interval
        if len(ticks) >= TRADES:  # more may follow in the last millisecond: it is asked for again
            last_us = ticks["ts"].dt.epoch("us").to_list()[-1]
            asked = Interval(interval.start, min(max(last_us, interval.start + 1000), interval.end))
        inside = pl.col("ts").is_between(to_datetime(asked.start), to_datetime(asked.end), closed="left")
        return TickPage(ticks.filter(inside), asked, await self._server_us(exchange, call), uuid4().hex)

    async def stream_ticks(self, symbols: Sequence[str]) -> AsyncGenerator[list[Tick], None]:
        """Yield the trades of `symbols` as they come; see StreamingProvider and providers.exchange.stream."""
        from providers.exchange.stream import stream_trades  # noqa: PLC0415  ccxt.pro is slow to import

        async with self._streaming(symbols) as exchange, aclosing(stream_trades(exchange, symbols, self._spec.clock)) as ticks:
            async for batch in ticks:
                yield batch

    async def resubscribe(self, symbols: Sequence[str]) -> None:
        """Refuse: venues take a second subscription of what stands for an error or for nothing; another socket serves."""
        raise UnsupportedError(f"{self._id} subscribes a symbol once in a session; received {', '.join(symbols)}")

    async def stream_candles(self, pairs: Sequence[tuple[str, Timeframe]]) -> AsyncGenerator[list[StreamedCandle], None]:
        """Yield the forming candles of `pairs`; UnsupportedError where the venue streams none (Coinbase)."""
        from providers.exchange.stream import stream_candles  # noqa: PLC0415  ccxt.pro is slow to import

        for _, timeframe in pairs:
            self._timeframe(timeframe)
        # One instance for each timeframe: some classes tell candles of a symbol apart by nothing else.
        lengths = sorted({timeframe for _, timeframe in pairs})
        async with AsyncExitStack() as stack:
            instances = {
                length: await stack.enter_async_context(self._streaming([symbol for symbol, own in pairs if own == length]))
                for length in lengths}
            watched = [(instances[length], symbol, length, self._timeframes[length.name]) for symbol, length in pairs]
            candles = await stack.enter_async_context(aclosing(stream_candles(watched, self._spec.clock)))
            async for batch in candles:
                yield batch

    @asynccontextmanager
    async def _streaming(self, symbols: Sequence[str]) -> AsyncGenerator[Any, None]:
        """Give a streaming instance of the exchange that shares the markets of the connected one."""
        from providers.exchange.stream import streaming_class  # noqa: PLC0415  ccxt.pro is slow to import

        connected = self._connected()
        for symbol in symbols:
            self._market(connected, symbol)
        exchange = await asyncio.to_thread(self._instance, streaming_class)
        exchange.asyncio_loop = asyncio.get_running_loop()
        exchange.set_markets_from_exchange(connected)
        try:
            yield exchange
        finally:
            await exchange.close()

    def _instance(self, guarded: Callable[[str], Any] | None = None) -> Any:
        from providers.exchange.guard import build, guarded_class  # noqa: PLC0415  ccxt is slow to import

        return build(
            self._id, budget=self._budget, clock=self._spec.clock, timeout=self._spec.timeout,
            allow_private=self._spec.allow_private_hosts, base=self._base, market_types=self._config.market_types,
            options=self._config.options, is_sandbox=self._config.is_sandbox, guarded=guarded or guarded_class)

    def _build(self) -> Any:
        exchange = self._instance()
        self._timeframes = timeframe_names(exchange) if exchange.has.get("fetchOHLCV") is True else {}
        return exchange

    async def _load(self, exchange: Any) -> None:
        await self._ask(exchange, exchange.load_markets)
        if not exchange.markets:  # nine of fourteen exchanges measured take `{}` for a list of markets
            raise BadPayloadError(f"{self._id} answered without a single market; nothing of it is used")

    def _connected(self) -> Any:
        if self._exchange is None:
            raise SessionLostError(f"{self._id} is not connected; connect first")
        return self._exchange

    def _market(self, exchange: Any, symbol: str) -> Any:
        if symbol in exchange.markets:
            return exchange.markets[symbol]
        near = [market["symbol"] for market in exchange.markets_by_id.get(symbol, [])]
        by_fold = {name.casefold(): name for name in exchange.markets}
        near += [by_fold[name] for name in difflib.get_close_matches(symbol.casefold(), by_fold, n=3, cutoff=0.6)]
        hint = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else "list them with: candlelake connections test"
        raise UnknownSymbolError(f"symbol: received {symbol[:40]!r}; allowed: one of {len(exchange.markets)} of {self._id}; {hint}")

    def _timeframe(self, timeframe: Timeframe) -> str:
        if timeframe.name not in self._timeframes:
            raise UnsupportedError(
                f"timeframe: received {timeframe.name!r}; allowed at {self._id}: {', '.join(self._timeframes) or 'none'}")
        return self._timeframes[timeframe.name]

    async def _server_us(self, exchange: Any, call: Call | None, at_us: int | None = None) -> int:
        """Return the exchange's time, now or at an instant of ours."""
        now_us = self._spec.clock.now_us()
        if exchange.has.get("fetchTime") is not True:
            return (date_us(call) if call is not None else None) or int(now_us)
        if self._time is None or not self._time.holds(now_us, steady_us()):
            self._time = await self._measure(exchange)
        return self._time.now_us(self._spec.clock.now_us() if at_us is None else at_us)

    async def _measure(self, exchange: Any) -> ServerTime:
        told, _ = await self._ask(exchange, exchange.fetch_time, is_clock=True)
        if not isinstance(told, int | float) or not math.isfinite(told) or told <= 0:
            raise BadPayloadError(f"{self._id} did not tell its time; nothing of the answer is used")
        wall_us = self._spec.clock.now_us()
        return ServerTime(int(told * 1000) - wall_us, wall_us, steady_us())

    async def _signed(self, exchange: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        """Call with the credentials in ccxt's hands for this long only: public data is asked for without them."""
        fields, given = credential_fields(exchange), self._spec.credentials
        needed = [ours for ours, (_, is_required) in fields.items() if is_required]
        missing = [ours for ours in needed if not given.get(ours)]
        if missing:
            raise InputError("credentials", ", ".join(given), needed, f"add {', '.join(missing)}")
        try:
            for ours, secret in given.items():
                setattr(exchange, fields[ours][0], secret.reveal())
            answer, _ = await self._ask(exchange, call)
        finally:
            for ours in given:
                setattr(exchange, fields[ours][0], "")
            for name in ("last_request_headers", "last_request_body", "last_request_url", "last_http_response"):
                setattr(exchange, name, None)  # ccxt keeps the signed request for debugging
        return answer

    async def _ask(self, exchange: Any, call: Callable[[], Awaitable[Any]], *, is_clock: bool = False) -> tuple[Any, Call]:
        """Return what ccxt returned and what went over the wire; ccxt's errors become ours, with no trace of its frames."""
        from ccxt.base.errors import BaseError  # noqa: PLC0415  ccxt is slow to import

        from providers.exchange.errors import translate  # noqa: PLC0415  ccxt is slow to import

        record = Call()
        token = current_call.set(record)
        try:
            return await call(), record
        except BaseError as error:
            seen = record.failed
            failure = translate(
                error, self._id, status=seen.status if seen else None, secrets=self._spec.credentials.values(),
                retry_after=retry_after(seen.headers, self._spec.clock.now_us()) if seen else None)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
            failure = translate(error, self._id)  # ccxt reads answers without checking them
        except CandlelakeError as error:
            failure = error.with_traceback(None)
        finally:
            current_call.reset(token)
        failure.__context__ = None  # it, and the frames in it, would hold signed URLs
        if isinstance(failure, RateLimitedError):
            await self._budget.penalise(PENALTY if failure.retry_after is None else failure.retry_after)
        if isinstance(failure, ClockSkewError) and not is_clock:
            await self._resynchronise(exchange)
        raise failure

    async def _resynchronise(self, exchange: Any) -> None:
        if exchange.has.get("fetchTime") is not True or self._exchange is None:
            return
        self._time = await self._measure(exchange)
        exchange.options["timeDifference"] = -self._time.offset_us // 1000  # what ccxt subtracts from our clock when it signs


def _login(credentials: Mapping[str, Secret]) -> str:
    """Return what names the account without giving the key away."""
    named = credentials.get("uid") or credentials.get("api_key")
    shown = named.reveal()[-4:] if named is not None and len(named.reveal()) >= 12 else "****"
    return f"key ending in {shown}"


def _is_account(info: object) -> bool:
    """Whether a balance is an object that says something, or a list of objects or rows, which may be empty."""
    if isinstance(info, dict):
        return bool(info)
    return isinstance(info, list) and all(isinstance(item, dict | list) for item in info)


def _describe(market: Mapping[str, Any]) -> str:
    return f"{market.get('base')} in {market.get('quote')}, {market.get('type')}"


def _price_step(market: Mapping[str, Any], mode: int) -> float | None:
    from ccxt.base.decimal_to_precision import DECIMAL_PLACES, TICK_SIZE  # noqa: PLC0415  ccxt is slow to import

    precision = (market.get("precision") or {}).get("price")
    if not isinstance(precision, int | float):
        return None
    if mode == TICK_SIZE:
        return float(precision)
    return 10.0 ** -precision if mode == DECIMAL_PLACES else None

"""The mtapi bridge to MetaTrader 5 as far as it is known: GET only, PascalCase paths, errors as 201 with a body."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from starlette.responses import Response

from core.clock import DAY_US, HOUR_US, MINUTE_US, SECOND_US, isoformat, to_us
from sandbox.box import Ask
from sandbox.market import UTC_CLOCK, Book
from sandbox.mtapi_orders import opened, send, tickets
from sandbox.sessions import RefusalError, Sessions
from sandbox.sources import BROKER
from sandbox.subscriptions import SUBSCRIPTIONS, Subscriptions

NEVER: Final = "0001-01-01T00:00:00"
_NEVER_US: Final = to_us(datetime(1, 1, 1, tzinfo=UTC))
_MONTH_MINUTES: Final = 43_200
Handler = Callable[["Bridge", Ask], Any]


class Text(str):
    """An answer that the bridge gives as a string: bare, or quoted when the switch says so."""

    __slots__ = ()


class Bridge:
    """One platform's bridge. `handlers` are its endpoints by lower-case name."""

    platform = "mt5"
    handlers: dict[str, Handler]

    def __init__(self) -> None:
        self.sessions = Sessions(self.platform)
        self.subscriptions = Subscriptions()
        kind = type(self)  # so that a platform's own methods are taken
        self.handlers = {
            "connect": kind.connect, "connectex": kind.connect, "connectproxy": kind.connect,
            "connectproxyex": kind.connect, "connectbytoken": kind.connect_by_token,
            "checkconnect": kind.check_connect, "connectionstatus": kind.status, "disconnect": kind.disconnect,
            "search": kind.search, "ping": lambda _bridge, _ask: Text("OK"), "symbols": kind.symbols,
            "version": lambda _bridge, _ask: Text("v2026.09.10-19.05"), "health": lambda _b, _a: Text("Healthy"),
            "symbollist": kind.symbol_list, "symbolparams": kind.symbol_params,
            "symbolparamsmany": kind.symbol_params_many, "accountsummary": kind.summary, "account": kind.account,
            "accountdetails": kind.details, "servertimezone": kind.timezone, "closedorders": kind.no_orders,
            "openedorders": opened, "openedorderstickets": tickets,
            **dict.fromkeys(("ordersend", "ordersendsafe"), send),
            "orderhistory": kind.order_history, "symbolsessions": kind.symbol_sessions,
            "istradesession": kind.is_session, "isquotesession": kind.is_session,
            **dict.fromkeys(SUBSCRIPTIONS, kind.subscription),
            **self.market_handlers(),
        }

    def market_handlers(self) -> dict[str, Handler]:
        """Return the endpoints that only this platform has."""
        return {
            "getquote": lambda bridge, ask: bridge.quote(ask, ask.text("symbol")),
            "getquotemany": lambda bridge, ask: [bridge.quote(ask, name) for name in ask.texts("symbols")],
            "pricehistory": lambda bridge, ask: _range(bridge, ask, ask.text("symbol")),
            "pricehistoryv2": lambda bridge, ask: _range(bridge, ask, ask.text("symbol")),
            "pricehistorymany": lambda bridge, ask: bridge.many(ask, "symbol", _range),
            "pricehistoryex": lambda bridge, ask: _back(bridge, ask, ask.text("symbol")),
            "pricehistoryexmany": lambda bridge, ask: bridge.many(ask, "symbol", _back),
            "pricehistorymonth": lambda bridge, ask: _month(bridge, ask, ask.text("symbol")),
            "pricehistorymonthmany": lambda bridge, ask: bridge.many(ask, "symbols", _month, with_exception=False),
            "pricehistorytoday": lambda bridge, ask: _today(bridge, ask, ask.text("symbol")),
            "pricehistorytodaymany": lambda bridge, ask: bridge.many(ask, "symbols", _today, with_exception=False),
            "pricehistoryhighlow": _high_low,
        }

    def answer(self, ask: Ask, endpoint: str) -> Response:
        """Return the bridge's answer to one request."""
        handler = self.handlers.get(endpoint.lower())
        if handler is None:
            return Response("", 404)
        try:
            value = handler(self, ask)
        except RefusalError as refusal:
            wanted = ask.whole("errorReplyStatusCode", 201) if endpoint.lower().startswith("connect") else 201
            body = {"message": str(refusal), "code": refusal.code,
                    "stackTrace": f"   at MtApi.Controllers.{endpoint}(String id)"}
            return Response(json.dumps(body), 400 if wanted == 400 else 201, media_type="text/json")
        if isinstance(value, Text):
            is_quoted = ask.box.switches.quoted or "json" in ask.headers.get("accept", "")
            return Response(json.dumps(value) if is_quoted else value, ask.box.switches.success_status,
                            media_type="text/plain")
        return Response(json.dumps(value), ask.box.switches.success_status, media_type="text/json")

    # Session

    def connect(self, ask: Ask) -> Text:
        """Log in."""
        return Text(self.sessions.open(ask))

    def connect_by_token(self, ask: Ask) -> Text:
        """Bring a session back."""
        return Text(self.sessions.revive(ask))

    def check_connect(self, ask: Ask) -> Text:
        """Say that the session lives; at off hours the bridge has lost its server."""
        self.sessions.check(ask)
        if ask.box.switches.off_hours:
            raise RefusalError("SERVICE_NOT_AVAILABLE", "Service not available")
        return Text("OK")

    def disconnect(self, ask: Ask) -> Text:
        """Log out."""
        self.sessions.close(ask)
        return Text("OK")

    def status(self, ask: Ask) -> dict[str, Any]:
        """Answer /ConnectionStatus."""
        self.sessions.check(ask)
        return {"id": ask.text("id"), "isConnected": not ask.box.switches.off_hours,
                "connectTimeUTC": isoformat(ask.now_us // SECOND_US * SECOND_US).removesuffix("Z") + ".8315376Z",
                "lastQuoteTimeUTC": NEVER, "clientIp": None}

    def search(self, ask: Ask) -> list[dict[str, Any]]:
        """Answer /Search, which needs no token."""
        servers = sorted({account.server for account in ask.box.accounts})
        found = [name for name in servers if ask.text("company").lower() in name.lower()]
        return [{"companyName": "Candlelake Sandbox", "results": [
            {"name": name, "access": ["127.0.0.1:443"]} for name in found]}] if found else []

    # Symbols

    def subscription(self, ask: Ask) -> Any:
        """Answer the Subscribe family."""
        self.sessions.check(ask)
        value = self.subscriptions.answer(ask, set(self.books(ask)))
        return Text(value) if isinstance(value, str) else value

    def books(self, ask: Ask) -> dict[str, Book]:
        """Return the broker's books by the name under which it sells them."""
        return {name + ask.box.switches.suffix: book for name, book in ask.box.shelf.of(BROKER).items()}

    def book(self, ask: Ask, symbol: str) -> Book:
        """Return a symbol's book; names are exact, case included."""
        self.sessions.check(ask)
        found = self.books(ask).get(symbol)
        if found is None:
            raise RefusalError("INVALID_SYMBOL", f"Symbol {symbol} not found")
        return found

    def symbol_list(self, ask: Ask) -> list[str]:
        """Answer /SymbolList."""
        self.sessions.check(ask)
        return sorted(self.books(ask))

    def symbols(self, ask: Ask) -> object:
        """Answer /Symbols: an object keyed by name."""
        self.sessions.check(ask)
        return {name: symbol_info(name, book) for name, book in sorted(self.books(ask).items())}

    def symbol_params(self, ask: Ask) -> dict[str, Any]:
        """Answer /SymbolParams."""
        name = ask.text("symbol")
        return self.params_of(name, self.book(ask, name))

    def symbol_params_many(self, ask: Ask) -> list[dict[str, Any]]:
        """Answer /SymbolParamsMany."""
        self.sessions.check(ask)
        wanted = ask.texts("symbol") or sorted(self.books(ask))
        return [self.params_of(name, self.book(ask, name)) for name in wanted]

    def params_of(self, name: str, book: Book) -> dict[str, Any]:
        """Return the parameters of one symbol."""
        return {"symbol": name, "symbolInfo": symbol_info(name, book), "symbolGroup": {
            "groupName": name, "tradeMode": "FullAccess", "tradeType": "Market", "fillPolicy": "FOK, IOC",
            "expiration": "ALL", "minLots": 0.01, "maxLots": 200, "lotsStep": 0.01, "swapLong": -5.7, "swapShort": 0}}

    def symbol_sessions(self, ask: Ask) -> dict[str, Any]:
        """Answer /SymbolSessions: Monday to Friday around the clock, minutes; index 0 is Sunday."""
        self.book(ask, ask.text("symbol"))
        week = [[], *[[{"startTime": 0, "endTime": 1440}] for _ in range(5)], []]
        return {"quotes": week, "trades": week}

    def is_session(self, ask: Ask) -> bool:
        """Answer whether the market is open."""
        self.book(ask, ask.text("symbol"))
        weekday = (self.wall(ask) // DAY_US + 3) % 7
        return weekday < 5 and not ask.box.switches.off_hours

    # Account

    def summary(self, ask: Ask) -> dict[str, Any]:
        """Answer /AccountSummary."""
        self.sessions.check(ask)
        return {"balance": 5000, "credit": 0, "profit": 0, "equity": 5000, "margin": 0, "freeMargin": 5000,
                "marginLevel": 0, "leverage": 2000, "currency": "USD", "method": "Hedging", "type": "demo",
                "isInvestor": False, "synced": not ask.box.switches.off_hours}

    def account(self, ask: Ask) -> dict[str, Any]:
        """Answer /Account."""
        account = self.sessions.check(ask).account
        blank = dict.fromkeys(("country", "city", "state", "zipCode", "userAddress", "phone", "email"), "")
        return {"login": account.user, "type": "demo", "userName": "Practice", "tradeFlags": 0, **blank,
                "balance": 5000, "credit": 0, "blocked": 0, "leverage": 2000}

    def details(self, ask: Ask) -> dict[str, Any]:
        """Answer /AccountDetails, which repeats the password as the real one does."""
        account = self.sessions.check(ask).account
        offset = self.wall(ask) - ask.now_us
        return {"serverName": account.server, "user": account.user, "password": account.password,
                "host": "127.0.0.1", "port": 443, "serverTime": naive(self.wall(ask)),
                "serverTimeZone": _zone(ask, offset), "company": "Candlelake Sandbox", "currency": "USD",
                "accountName": "Practice", "group": "demo", "accountType": "demo", "accountLeverage": 2000,
                "accountMethod": "Hedging", "isInvestor": False}

    def timezone(self, ask: Ask) -> float:
        """Answer /ServerTimezone."""
        self.sessions.check(ask)
        return _zone(ask, self.wall(ask) - ask.now_us)

    def no_orders(self, ask: Ask) -> list[object]:
        """Answer /ClosedOrders: nothing closes a position of the practice account."""
        self.sessions.check(ask)
        return []

    def order_history(self, ask: Ask) -> dict[str, Any]:
        """Answer /OrderHistory: empty."""
        self.sessions.check(ask)
        return {"orders": [], "internalDeals": [], "internalOrders": [], "action": 0, "partialResponse": False}

    # Market

    def wall(self, ask: Ask) -> int:
        """Return the server's wall clock."""
        return ask.box.switches.server_clock.wall(ask.now_us)

    def quote(self, ask: Ask, symbol: str) -> dict[str, Any]:
        """Answer /GetQuote with the close of the candle that is forming; zero when the market is off."""
        book = self.book(ask, symbol)
        bid, ask_price, at_us = last_price(ask, book)
        return {"symbol": symbol, "bid": bid, "ask": ask_price, "time": naive(ask.box.switches.server_clock.wall(at_us)),
                "last": 0, "volume": 0}

    def many(self, ask: Ask, parameter: str, one: Callable[[Bridge, Ask, str], list[Any]],
             *, with_exception: bool = True) -> list[dict[str, Any]]:
        """Answer the Many family: bars of each symbol; a symbol that fails carries its exception."""
        self.sessions.check(ask)
        out = []
        for symbol in ask.texts(parameter):
            try:
                answer: dict[str, Any] = {"symbol": symbol, "bars": one(self, ask, symbol)}
                if with_exception:
                    answer["exception"] = None
            except RefusalError as refusal:
                answer = {"symbol": symbol, "bars": []}
                if with_exception:
                    answer["exception"] = {"message": str(refusal), "code": refusal.code, "stackTrace": ""}
            out.append(answer)
        return out


def _zone(ask: Ask, offset_us: int) -> float:
    unit = MINUTE_US if ask.box.switches.timezone_unit == "minutes" else HOUR_US
    zone = offset_us / unit
    return int(zone) if zone == int(zone) else zone


def symbol_info(name: str, book: Book) -> dict[str, Any]:
    """Return the symbolInfo of MT5."""
    return {"currency": name[:3], "profitCurrency": name[3:6], "marginCurrency": name[:3], "description": name,
            "digits": book.digits, "precision": book.digits, "points": 10.0**-book.digits, "contractSize": 100000,
            "calcMode": "Forex", "gtcMode": "GTC", "spread": 0, "tickSize": 10.0**-book.digits}


def last_price(ask: Ask, book: Book) -> tuple[float, float, int]:
    """Return bid, ask and the UTC instant of the newest quote; zeros when the broker is off."""
    length = book.freshest().length_us
    now = book.until_us(ask.now_us, length)
    newest = book.newest(1, length, now + 1, ask.now_us)
    if newest.is_empty():
        raise RefusalError("NO_PRICES", "No prices")
    row = newest.row(-1, named=True)
    at_us = min(row["us"] + length, now) // SECOND_US * SECOND_US
    if ask.box.switches.off_hours:
        return 0, 0, at_us
    spread = row["spread"] if row["spread"] is not None else 10.0**-book.digits
    return row["close"], round(row["close"] + spread, book.digits), at_us


def naive(wall_us: int) -> str:
    """Return a reading of the server's clock as text without an offset; fractions only when there are some."""
    text = isoformat(wall_us).removesuffix("Z")
    return text.rstrip("0") if "." in text else text


def parse_wall(text: str) -> int:
    """Return a naive time as microseconds, as .NET reads it: missing is year 1, an offset is ignored."""
    if not text:
        return _NEVER_US
    try:
        moment = datetime.fromisoformat(re.sub(r"(Z|[+-]\d\d:\d\d)$", "", text.strip()))
    except ValueError:
        raise RefusalError("DONE", f"String '{text}' was not recognized as a valid DateTime.") from None
    return to_us(moment.replace(tzinfo=UTC))


def utc_of(ask: Ask, wall_us: int) -> int:
    """Return the UTC instant of a reading; far outside of 1970 to 2100 no summer time is looked up."""
    clock = ask.box.switches.server_clock if 0 < wall_us < 4_102_444_800 * SECOND_US else UTC_CLOCK
    return clock.utc(wall_us)


def length_of(ask: Ask) -> int:
    """Return the length that `timeFrame` (minutes) asks for, by the bridge's rules."""
    minutes = ask.whole("timeFrame", 0) or 0
    if minutes <= 0 or minutes > _MONTH_MINUTES or (minutes > 60 and minutes % 60) or (minutes < 60 and 60 % minutes):
        raise RefusalError("DONE", f"Invalid timeframe: {minutes}. Above 60 it must be a multiple of 60")
    return minutes * MINUTE_US


def bars(ask: Ask, rows: pl.DataFrame, book: Book, length_us: int) -> list[dict[str, Any]]:
    """Return candles as MT5 bars on the server's wall clock."""
    rows = ask.spoil(rows.tail(ask.box.switches.max_bars), length_us)
    if rows.is_empty():
        return []
    if ask.box.switches.order == "desc":
        rows = rows.reverse()
    clock, scale = ask.box.switches.server_clock, 10**book.digits
    low, high = rows.select(low=pl.col("us").min(), high=pl.col("us").max()).row(0)
    shaped = rows.select(
        time=clock.to_wall("us", low, high).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S"),
        openPrice="open", highPrice="high", lowPrice="low", closePrice="close",
        tickVolume=pl.col("volume").round(0).cast(pl.Int64),
        spread=(pl.col("spread").fill_null(0) * scale).round(0).cast(pl.Int64), volume=pl.lit(0, pl.Int64))
    return shaped.to_dicts()


def _cut(ask: Ask, book: Book, length_us: int, start_us: int, end_us: int) -> pl.DataFrame:
    clock = ask.box.switches.server_clock
    if ask.box.switches.off_grid_h4 and HOUR_US < length_us < DAY_US:
        hours = book.candles(HOUR_US, start_us, end_us, ask.now_us, clock)
        first = int(hours["us"][0]) if hours.height else 0
        key = pl.col("us") - (pl.col("us") - first) % length_us
        return hours.group_by(key, maintain_order=True).agg(
            pl.col("open").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").last(),
            pl.col("volume").sum(), pl.col("spread").max())
    return book.candles(length_us, start_us, end_us, ask.now_us, clock)


def _range(bridge: Bridge, ask: Ask, symbol: str) -> list[dict[str, Any]]:
    book, length = bridge.book(ask, symbol), length_of(ask)
    end_us = utc_of(ask, parse_wall(ask.text("to"))) + (1 if ask.box.switches.end_inclusive else 0)
    return bars(ask, _cut(ask, book, length, utc_of(ask, parse_wall(ask.text("from"))), end_us), book, length)


def _back(bridge: Bridge, ask: Ask, symbol: str) -> list[dict[str, Any]]:
    book, length = bridge.book(ask, symbol), length_of(ask)
    count = min(max(ask.whole("numBars", 0) or 0, 0), ask.box.switches.max_bars)
    end_us = utc_of(ask, parse_wall(ask.text("from"))) + 1
    rows = book.newest(count, length, end_us, ask.now_us, ask.box.switches.server_clock)
    return bars(ask, rows, book, length)


def _month(bridge: Bridge, ask: Ask, symbol: str) -> list[dict[str, Any]]:
    book, length = bridge.book(ask, symbol), length_of(ask)
    year, month, day = (ask.whole(name, 1) or 1 for name in ("year", "month", "day"))
    try:
        end_wall = to_us(datetime(year, month, day, tzinfo=UTC))
    except ValueError:
        raise RefusalError("DONE", "Year, Month, and Day parameters describe an un-representable DateTime.") from None
    start_us, end_us = utc_of(ask, end_wall - 30 * DAY_US), utc_of(ask, end_wall)
    return bars(ask, _cut(ask, book, length, start_us, end_us), book, length)


def _today(bridge: Bridge, ask: Ask, symbol: str) -> list[dict[str, Any]]:
    book, length = bridge.book(ask, symbol), length_of(ask)
    midnight = bridge.wall(ask) // DAY_US * DAY_US
    return bars(ask, _cut(ask, book, length, utc_of(ask, midnight), ask.now_us + 1), book, length)


def _high_low(bridge: Bridge, ask: Ask) -> dict[str, Any] | None:
    found = sorted(_range(bridge, ask, ask.text("symbol")), key=lambda bar: str(bar["time"]))
    if not found:
        return None
    return {**found[0], "highPrice": max(bar["highPrice"] for bar in found),
            "lowPrice": min(bar["lowPrice"] for bar in found), "closePrice": found[-1]["closePrice"],
            "tickVolume": sum(bar["tickVolume"] for bar in found)}

"""A bridge for tests: hourly and minute bars of a market in UTC, told on a broker's wall clock, MT5 and MT4 alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from core.clock import HOUR_US, MINUTE_US, SECOND_US, ManualClock, parse_instant, to_datetime, to_us
from core.secrets import Secret
from core.server_clock import ServerClock
from providers.base import ConnectionSpec
from tests.providers.wire import Reply, Request, json_reply

PASSWORD = "canary-Pa55word"
TOKEN = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"
GOOD = {"user": Secret("62333850"), "password": Secret(PASSWORD), "server": Secret("Practice-Demo")}
_MT4 = {"M1": 1, "M5": 5, "M15": 15, "M30": 30, "H1": 60}


def error(code: str, message: str = "no", status: int = 201) -> Reply:
    """Return the bridge's error object."""
    return json_reply({"message": message, "code": code, "stackTrace": f"at secret {PASSWORD}"}, status)


def wall(us: int) -> str:
    """Return a wall-clock reading as the bridge writes it."""
    return to_datetime(us).strftime("%Y-%m-%dT%H:%M:%S")


def price(us: int) -> float:
    """Return a price that belongs to one instant alone, so that a shifted candle is seen."""
    return round(1 + (us // MINUTE_US % 1_000_000) / 1e6, 6)


@dataclass
class Bridge:
    """The broker's truth: `is_open` says which UTC instants trade; the server shows them on `server` time."""

    clock: ManualClock
    server: ServerClock
    is_open: Callable[[int], bool] = lambda _: True
    descending: bool = False
    quoted: bool = True
    success: int = 200
    timezone: float | None = None
    symbols: tuple[str, ...] = ("EURUSD.m", "XAUUSD")
    lost: int = 0  # how many reads answer INVALID_TOKEN
    overrides: dict[str, Callable[[Request], Reply]] = field(default_factory=dict)
    orders: list[dict[str, object]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        """Answer one request."""
        path = request.path
        self.asked.append(path)
        if path in self.overrides:
            return self.overrides[path](request)
        if path in {"/ConnectEx", "/Connect"}:
            ok = request.query["password"] == PASSWORD
            return self._text(TOKEN) if ok else error("INVALID_ACCOUNT", f"bad password {request.query['password']}")
        if request.query.get("id") != TOKEN:
            return error("INVALID_TOKEN", f"Client with id {request.query.get('id')} not found")
        if path in {"/CheckConnect", "/ConnectByToken", "/Disconnect"}:
            return self._text("OK")
        if self.lost > 0:
            self.lost -= 1
            return error("INVALID_TOKEN", f"Client with id {TOKEN} not found")
        return json_reply(self._value(path, request.query), self.success) if self._known(request) else error("INVALID_SYMBOL")

    def _known(self, request: Request) -> bool:
        return request.query.get("symbol", self.symbols[0]) in self.symbols

    def _text(self, text: str) -> Reply:
        return Reply(f'"{text}"'.encode() if self.quoted else text.encode())

    def _value(self, path: str, query: dict[str, str]) -> object:  # noqa: PLR0911  one line an endpoint
        now = self.server.from_utc_us(self.clock.now_us())
        if path == "/AccountDetails":
            return {"serverName": "Practice-Demo", "user": 62333850, "password": PASSWORD, "serverTime": wall(now),
                    "currency": "USD", "accountType": "demo", "isInvestor": False}
        if path == "/AccountSummary":
            return {"balance": 5000, "equity": 4990.5, "currency": "USD", "type": "demo", "isInvestor": True, "synced": True}
        if path == "/ServerTimezone":
            offset = (now - self.clock.now_us()) / HOUR_US
            return offset if self.timezone is None else self.timezone
        if path == "/OpenedOrders":
            return self.orders
        if path == "/Symbols":
            return {name: {"description": name, "points": 1e-05} for name in self.symbols}
        if path == "/SymbolParams":
            return {"symbol": query["symbol"], "symbolInfo": {"digits": 5, "points": 1e-05}}
        if path == "/PriceHistory":
            return self._bars5(_us(query["from"]), _us(query["to"]), int(query["timeFrame"]))
        if path == "/PriceHistoryEx":
            end, step = _us(query["from"]), int(query["timeFrame"])
            return self._back(end, int(query["numBars"]), step)
        assert path == "/QuoteHistory", path
        end, step = _us(query["from"]), _MT4[query["timeframe"]]
        rows = self._back(end, int(query["count"]), step)
        return [{"time": row["time"], "open": row["openPrice"], "high": row["highPrice"], "low": row["lowPrice"],
                 "close": row["closePrice"], "volume": float(row["tickVolume"])} for row in rows]

    def _back(self, end: int, count: int, step: int) -> list[dict[str, object]]:
        rows = self._bars5(end - 3 * count * step * MINUTE_US, end, step)
        return rows[:count] if self.descending else rows[-count:]

    def _bars5(self, first: int, last: int, minutes: int) -> list[dict[str, object]]:
        step, out = minutes * MINUTE_US, []
        now = self.clock.now_us()
        us = max(0, first - 15 * HOUR_US) // step * step
        while us <= min(last + 15 * HOUR_US, now):
            local = self.server.from_utc_us(us)
            if first <= local <= last and self.is_open(us):
                value = price(us)
                out.append({"time": wall(local), "openPrice": value, "highPrice": value + 1e-4, "lowPrice": value - 1e-4,
                            "closePrice": value, "tickVolume": us // step % 977, "spread": 8, "volume": 0})
            us += step
        return out[::-1] if self.descending else out


def _us(text: str) -> int:
    assert datetime.fromisoformat(text).tzinfo is None
    return parse_instant(text)


def spec(url: str, clock: ManualClock, provider: str = "mtapi:mt5", **more: object) -> ConnectionSpec:
    """Return a connection to a test bridge."""
    values: dict[str, object] = {"credentials": GOOD, "timeout": 20.0, **more}
    return ConnectionSpec("practice", provider, base_url=url, clock=clock, allow_private_hosts=True, **values)  # type: ignore[arg-type]


def at(text: str) -> int:
    """Return an ISO instant in microseconds."""
    return to_us(datetime.fromisoformat(text + "+00:00"))


SECOND = SECOND_US

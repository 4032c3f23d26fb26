"""How Binance, Kraken, Coinbase and the mtapi bridge speak over their web sockets."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from core.clock import MINUTE_US, SECOND_US, isoformat
from sandbox.box import Ask, Box
from sandbox.exchange import LENGTHS, decimal, exact, split
from sandbox.mtapi import Bridge, naive
from sandbox.sessions import RefusalError
from sandbox.sources import BROKER
from sandbox.streams import Stream, newest_bar
from sandbox.tape import Print

_BATCH: Final = 50  # trades in one message, where a venue sends lists


_plain: Final = lru_cache(maxsize=4096)(decimal)  # a load has few prices and sizes


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return isoformat(second * SECOND_US).removesuffix("Z")


def _stamp(us: int) -> str:
    """Return what `isoformat` returns; ticks of a load share their seconds."""
    second, rest = divmod(us, SECOND_US)
    return f"{_second(second)}.{rest:06d}Z" if rest else f"{_second(second)}Z"


class BinanceStream(Stream):
    """`{"method":"SUBSCRIBE","params":["btcusdt@trade","btcusdt@kline_1m"],"id":1}`; unknown streams are taken silently."""

    venue = "binance"

    def __init__(self, box: Box, ask: Ask) -> None:
        super().__init__(box, ask)
        self.klines: dict[tuple[str, str], tuple[Any, ...]] = {}  # (symbol, interval) -> what was sent last

    def hear(self, message: Any) -> list[Any]:
        """Subscribe, and say so."""
        if message.get("method") != "SUBSCRIBE":
            return []
        for stream in message.get("params", []):
            symbol, _, kind = str(stream).partition("@")
            symbol = symbol.upper()
            if symbol not in self.box.shelf.of(self.venue):
                continue
            if kind == "trade":
                self.symbols[symbol] = symbol
            elif kind.startswith("kline_"):
                self.klines[symbol, kind.removeprefix("kline_")] = ()
        return [{"result": None, "id": message.get("id")}]

    def write(self, name: str, prints: list[Print], skew_us: int) -> list[Any]:
        """Return one message a trade."""
        return [{"e": "trade", "E": (item.us + skew_us) // 1000, "s": name, "t": item.number, "p": decimal(item.price),
                 "q": decimal(item.size), "T": (item.us + skew_us) // 1000, "m": item.is_sell, "M": True} for item in prints]

    def bars(self, now_us: int) -> list[Any]:
        """Return each forming candle that changed."""
        out = []
        for (symbol, interval), sent in list(self.klines.items()):
            length = LENGTHS[interval]
            for row in self._rows(symbol, length, sent, now_us):
                values = tuple(row.values())
                if values == sent:
                    continue
                self.klines[symbol, interval] = values
                out.append({"e": "kline", "E": now_us // 1000, "s": symbol, "k": {
                    "t": row["us"] // 1000, "T": (row["us"] + length) // 1000 - 1, "s": symbol, "i": interval, "f": 1, "L": 1,
                    **{key: exact(row[field]) for key, field in (
                        ("o", "open"), ("c", "close"), ("h", "high"), ("l", "low"), ("v", "volume"))},
                    "n": 1, "x": row["us"] + length <= now_us, "q": "0", "V": "0", "Q": "0", "B": "0"}})
        return out

    def _rows(self, symbol: str, length: int, sent: tuple[Any, ...], now_us: int) -> list[dict[str, Any]]:
        """Return the last candle that was sent, closed now, and the one that is forming."""
        book = self.box.shelf.of(self.venue)[symbol]
        start = int(sent[0]) if sent else now_us // length * length
        return book.candles(length, start, now_us + 1, now_us).to_dicts()


class KrakenStream(Stream):
    """Version 2: `{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USD"]},"req_id":1}`."""

    venue = "kraken"

    def __init__(self, box: Box, ask: Ask) -> None:
        super().__init__(box, ask)
        self.ohlc: dict[tuple[str, int], tuple[Any, ...]] = {}

    def greet(self) -> list[Any]:
        """Tell the state of the system."""
        return [{"channel": "status", "type": "update", "data": [{
            "version": "2.0.10", "system": "online", "api_version": "v2", "connection_id": 12345}]}]

    def hear(self, message: Any) -> list[Any]:
        """Subscribe: one confirmation for each symbol, an error for one that is not traded."""
        if message.get("method") == "ping":
            return [{"method": "pong", "req_id": message.get("req_id")}]
        if message.get("method") != "subscribe":
            return []
        params, out = message.get("params", {}), []
        named = {"/".join(split(symbol)): symbol for symbol in self.box.shelf.of(self.venue)}
        for name in params.get("symbol", []):
            head = {"method": "subscribe", "req_id": message.get("req_id"), "time_in": isoformat(self.box.clock.now_us())}
            if name not in named:
                out.append({**head, "success": False, "error": f"Currency pair not supported {name}", "symbol": name})
                continue
            channel = params.get("channel")
            if channel == "trade":
                self.symbols[name] = named[name]
            elif channel == "ohlc":
                self.ohlc[name, int(params.get("interval", 1))] = ()
            out.append({**head, "success": True, "result": {"channel": channel, "snapshot": True, "symbol": name}})
        return out

    def write(self, name: str, prints: list[Print], skew_us: int) -> list[Any]:
        """Return lists of trades."""
        data = [{"symbol": name, "side": "sell" if item.is_sell else "buy", "price": item.price, "qty": item.size,
                 "ord_type": "market", "trade_id": item.number, "timestamp": isoformat(item.us + skew_us)} for item in prints]
        return [{"channel": "trade", "type": "update", "data": data[start:start + _BATCH]} for start in range(0, len(data), _BATCH)]

    def encode(self, name: str, prints: list[Print], skew_us: int) -> list[bytes]:
        """Return what `write` returns, as bytes."""
        data = [
            f'{{"symbol":"{name}","side":"{"sell" if item.is_sell else "buy"}","price":{item.price},"qty":{item.size},'
            f'"ord_type":"market","trade_id":{item.number},"timestamp":"{_stamp(item.us + skew_us)}"}}' for item in prints]
        return [f'{{"channel":"trade","type":"update","data":[{",".join(data[start:start + _BATCH])}]}}'.encode()
                for start in range(0, len(data), _BATCH)]

    def bars(self, now_us: int) -> list[Any]:
        """Return each forming candle that changed."""
        out = []
        for (name, minutes), sent in list(self.ohlc.items()):
            row = newest_bar(self.box, self.venue, name.replace("/", ""), minutes * MINUTE_US, now_us)
            if row is None or tuple(row.values()) == sent:
                continue
            self.ohlc[name, minutes] = tuple(row.values())
            begin = row["us"]
            out.append({"channel": "ohlc", "type": "update", "timestamp": isoformat(now_us), "data": [{
                "symbol": name, **{key: row[key] for key in ("open", "high", "low", "close", "volume")}, "trades": 1,
                "vwap": row["close"], "interval_begin": isoformat(begin), "interval": minutes,
                "timestamp": isoformat(begin + minutes * MINUTE_US)}]})
        return out


class CoinbaseStream(Stream):
    """`{"type":"subscribe","product_ids":["BTC-USD"],"channel":"market_trades"}`; no candles that ccxt knows."""

    venue = "coinbase"

    def hear(self, message: Any) -> list[Any]:
        """Subscribe and name what stands; unknown products are left out of it."""
        if message.get("type") != "subscribe":
            return []
        named = {"-".join(split(symbol)): symbol for symbol in self.box.shelf.of(self.venue)}
        if message.get("channel") == "market_trades":
            self.symbols |= {name: named[name] for name in message.get("product_ids", []) if name in named}
        return [{"channel": "subscriptions", "client_id": "", "timestamp": isoformat(self.box.clock.now_us()),
                 "sequence_num": 0, "events": [{"subscriptions": {"market_trades": sorted(self.symbols)}}]}]

    def write(self, name: str, prints: list[Print], skew_us: int) -> list[Any]:
        """Return lists of trades, newest first."""
        trades = [{"trade_id": str(item.number), "product_id": name, "price": decimal(item.price), "size": decimal(item.size),
                   "side": "SELL" if item.is_sell else "BUY", "time": isoformat(item.us + skew_us)} for item in prints]
        return [{"channel": "market_trades", "client_id": "", "timestamp": isoformat(self.box.clock.now_us()), "sequence_num": 1,
                 "events": [{"type": "update", "trades": trades[start:start + _BATCH][::-1]}]}
                for start in range(0, len(trades), _BATCH)]

    def encode(self, name: str, prints: list[Print], skew_us: int) -> list[bytes]:
        """Return what `write` returns, as bytes."""
        data = [
            f'{{"trade_id":"{item.number}","product_id":"{name}","price":"{_plain(item.price)}","size":"{_plain(item.size)}",'
            f'"side":"{"SELL" if item.is_sell else "BUY"}","time":"{_stamp(item.us + skew_us)}"}}' for item in prints]
        head = f'{{"channel":"market_trades","client_id":"","timestamp":"{isoformat(self.box.clock.now_us())}","sequence_num":1,'
        return [f'{head}"events":[{{"type":"update","trades":[{",".join(data[start:start + _BATCH][::-1])}]}}]}}'.encode()
                for start in range(0, len(data), _BATCH)]


class BridgeStream(Stream):
    """`/OnQuote?id=TOKEN`, `/OnOhlc` and `/Events`: one way; what comes was subscribed by REST."""

    venue = BROKER
    is_quotes = True

    def __init__(self, box: Box, ask: Ask, bridge: Bridge, kinds: frozenset[str]) -> None:
        super().__init__(box, ask)
        self.bridge, self.kinds = bridge, kinds
        self.token = ask.text("id")
        self.sent: dict[tuple[str, int], tuple[Any, ...]] = {}

    def hear(self, message: Any) -> list[Any]:  # noqa: ARG002  the protocol gives it
        """Take no notice."""
        return []

    def mute(self, name: str) -> None:
        """Drop a symbol without a word."""
        self.bridge.subscriptions.quotes.get(self.token, set()).discard(name)
        super().mute(name)

    def _look(self) -> None:
        """Take over what was subscribed meanwhile."""
        if "Quote" in self.kinds:
            suffix = self.box.switches.suffix
            self.symbols = {name: name.removesuffix(suffix) for name in sorted(self.bridge.subscriptions.quotes.get(self.token, ()))}

    def write(self, name: str, prints: list[Print], skew_us: int) -> list[Any]:
        """Return one envelope a quote; zeros at off hours."""
        wall = self.box.switches.server_clock.wall
        offset = wall(prints[0].us) - prints[0].us
        off = self.box.switches.off_hours
        return [self._envelope("Quote", {
            "symbol": name, "bid": 0 if off else item.price, "ask": 0 if off else item.ask,
            "time": naive(item.us + offset + skew_us), "last": 0, "volume": 0}) for item in prints]

    def bars(self, now_us: int) -> list[Any]:
        """Return each forming candle that changed."""
        self._look()
        out = []
        for name, minutes in sorted(self.bridge.subscriptions.ohlc.get(self.token, ())) if "Ohlc" in self.kinds else ():
            symbol = name.removesuffix(self.box.switches.suffix)
            row = newest_bar(self.box, BROKER, symbol, minutes * MINUTE_US, now_us)
            if row is None or self.sent.get((name, minutes)) == tuple(row.values()):
                continue
            self.sent[name, minutes] = tuple(row.values())
            wall = self.box.switches.server_clock.wall
            out.append(self._envelope("Ohlc", {
                "symbol": name, "timeframe": minutes, **{key: row[key] for key in ("open", "high", "low", "close")},
                "time": naive(wall(row["us"])), "volume": 0, "tickVolume": round(row["volume"]),
                "lastQuoteTime": naive(wall(now_us // 1000 * 1000))}))
        return out

    def _envelope(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        return {"type": kind, "id": self.token, "timestampUTC": self.box.clock.now_us() // 1000, "data": data}


_SOCKETS: Final = {"onquote": frozenset({"Quote"}), "onohlc": frozenset({"Ohlc"}), "events": frozenset({"Quote", "Ohlc"})}


def bridge_dialect(bridge: Bridge) -> Callable[[Box, Ask], Stream | None]:
    """Return what opens a bridge's sockets: those that the host has, for a token that lives."""

    def open_stream(box: Box, ask: Ask) -> Stream | None:
        name = ask.path.rstrip("/").rsplit("/", 1)[-1].lower()
        if name not in _SOCKETS or name in box.switches.no_sockets.lower().split(","):
            return None
        try:
            bridge.sessions.check(ask)
        except RefusalError:
            return None
        return BridgeStream(box, ask, bridge, _SOCKETS[name])

    return open_stream


def exchange_dialects() -> dict[str, Callable[[Box, Ask], Stream | None]]:
    """Return the exchanges' dialects by host, as it stands first in the path."""
    return {"stream.binance.com:9443": BinanceStream, "stream.binance.com": BinanceStream, "ws.kraken.com": KrakenStream,
            "advanced-trade-ws.coinbase.com": CoinbaseStream}


"""From the bridge's answers to values and frames: pure, strict about shape, lenient about order.

Rows of wrong types break the whole answer (BadPayloadError). Rows of right types with impossible values pass: feed
quarantines them with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

import polars as pl

from core.clock import HOUR_US, MINUTE_US, to_us
from core.errors import BadPayloadError
from providers.base import AccountInfo, SymbolInfo
from providers.mtapi.payloads import MT4_BAR, MT5_BAR, AccountDetails, AccountSummary

LOCAL_SCHEMA: Final = pl.Schema({
    "local_us": pl.Int64(),  # server wall clock, as if it were UTC
    "open": pl.Float64(), "high": pl.Float64(), "low": pl.Float64(), "close": pl.Float64(),
    "volume": pl.Float64(), "spread": pl.Float64(),
})
_NAMES: Final = ("open", "high", "low", "close", "volume")
_DIGITS: Final = 10  # of spreads: prices have fewer, so the rounded product is the exact one, as a stream's difference is
_HOURS_AT_MOST: Final = 14  # beyond it a time zone counts minutes


def unquote(text: str) -> str:
    """Return a string answer without white space and one pair of quotes: `OK` comes with and without them."""
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def local_us(text: object, what: str) -> int:
    """Return a server wall-clock text without offset as microseconds, as if it were UTC.

    Raises:
        BadPayloadError: not a text, not ISO 8601, or with an offset: then it is not the clock we know how to read.
    """
    if not isinstance(text, str):
        raise BadPayloadError(f"{what}: received {type(text).__name__}; allowed: a time as text")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadPayloadError(f"{what}: received {text[:40]!r}; allowed: ISO 8601 without offset") from None
    if moment.tzinfo is not None:
        raise BadPayloadError(f"{what}: received {text[:40]!r} with an offset; allowed: the server's wall clock without one")
    return to_us(moment.replace(tzinfo=UTC))


def mt5_bars(payload: object, symbol: str, point: float | None) -> pl.DataFrame:
    """Return bars of `/PriceHistory` as a frame of LOCAL_SCHEMA in the order given; `point` turns spreads into prices."""
    rows = _rows(payload, symbol)
    spreads = _numbers(rows, "spread") if point is not None and rows and "spread" in rows[0] else [None] * len(rows)
    scaled = [None if value is None or point is None else round(value * point, _DIGITS) for value in spreads]
    return _frame(rows, MT5_BAR, scaled)


def mt4_bars(payload: object, symbol: str) -> pl.DataFrame:
    """Return bars of `/QuoteHistory` as a frame of LOCAL_SCHEMA in the order given; MT4 keeps no spreads."""
    rows = _rows(payload, symbol)
    return _frame(rows, MT4_BAR, [None] * len(rows))


def _rows(payload: object, symbol: str) -> list[dict[str, Any]]:
    if not isinstance(payload, list):
        raise BadPayloadError(f"bars of {symbol}: received {type(payload).__name__}; allowed: a list")
    if not all(isinstance(row, dict) for row in payload):
        raise BadPayloadError(f"bars of {symbol}: received a row that is not an object")
    rows = cast("list[dict[str, Any]]", payload)
    if rows and "Time" in rows[0]:  # the bridge's gRPC spelling, seen in some builds
        rows = [{key[:1].lower() + key[1:]: value for key, value in row.items()} for row in rows]
    if any(row.get("symbol", symbol) != symbol for row in rows):
        raise BadPayloadError(f"bars of {symbol}: received bars of another symbol")
    return rows


def _frame(rows: list[dict[str, Any]], keys: Sequence[str], spreads: Sequence[float | None]) -> pl.DataFrame:
    columns: dict[str, list[Any]] = {"local_us": [local_us(row.get("time"), "bar time") for row in rows]}
    for name, key in zip(_NAMES, keys, strict=True):
        columns[name] = _numbers(rows, key)
    columns["spread"] = list(spreads)
    return pl.DataFrame(columns, schema=LOCAL_SCHEMA)


def _numbers(rows: list[dict[str, Any]], key: str) -> list[float | None]:
    """Return one field of every row as floats; null passes (and is quarantined later), absence does not."""
    try:
        values = [row[key] for row in rows]
    except KeyError:
        raise BadPayloadError(f"bars: received a row without {key!r}; nothing of the answer is used") from None
    kinds = {type(value) for value in values} - {int, float, type(None)}
    if kinds:
        name = min(kind.__name__ for kind in kinds)
        raise BadPayloadError(f"bars: received {key!r} as {name}; allowed: numbers; nothing of the answer is used")
    return [None if value is None else float(value) for value in values]


def symbol_names(payload: object) -> list[str]:
    """Return the names in `/SymbolList`, or in `/Symbols` of either platform (a list, or an object by name)."""
    names = list(payload) if isinstance(payload, dict | list) else None
    if names is None or not all(isinstance(name, str) and name for name in names):
        raise BadPayloadError("symbols: received something else than a list or object of names")
    return sorted(set(cast("list[str]", names)))


def symbols(payload: object) -> list[SymbolInfo]:
    """Return the symbols in `/Symbols`, sorted by name."""
    details = payload if isinstance(payload, dict) else {}
    return [_symbol(name, details.get(name)) for name in symbol_names(payload)]


def _symbol(name: str, details: object) -> SymbolInfo:
    if not isinstance(details, dict):
        return SymbolInfo(name)
    description = details.get("description")
    return SymbolInfo(name, description if isinstance(description, str) else "", _positive(details.get("points")))


def point(payload: object, symbol: str) -> float | None:
    """Return the least price step in `/SymbolParams` (`points` of MT5, `point` of MT4), None when it gives none."""
    if not isinstance(payload, dict):
        raise BadPayloadError(f"symbol {symbol}: received {type(payload).__name__}; allowed: an object")
    named = payload.get("symbol", payload.get("symbolName", symbol))
    if isinstance(named, str) and named != symbol:
        raise BadPayloadError(f"symbol {symbol}: received the parameters of another symbol")
    info = payload.get("symbolInfo")
    return _positive(info.get("points")) if isinstance(info, dict) else None


def _positive(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def account_details(payload: object) -> AccountDetails:
    """Return `/AccountDetails` without what we must not hold: the answer carries the password."""
    if not isinstance(payload, dict):
        raise BadPayloadError(f"account details: received {type(payload).__name__}; allowed: an object")
    kept = {key: payload[key] for key in AccountDetails.__annotations__ if payload.get(key) is not None}
    return cast("AccountDetails", kept)


def account_info(details: AccountDetails, summary: object, login: str) -> AccountInfo:
    """Join details and summary; amounts that the bridge calls not synced are left out."""
    if not isinstance(summary, dict):
        raise BadPayloadError(f"account summary: received {type(summary).__name__}; allowed: an object")
    amounts = cast("AccountSummary", summary)
    synced = amounts.get("synced", True) is True
    kind = str(amounts.get("type") or details.get("accountType") or "").lower()
    investor = amounts.get("isInvestor", details.get("isInvestor"))
    return AccountInfo(
        login=str(details.get("user", login)),
        server=str(details.get("serverName", "")),
        currency=amounts.get("currency") or details.get("currency"),
        balance=_amount(amounts.get("balance")) if synced else None,
        equity=_amount(amounts.get("equity")) if synced else None,
        is_demo=True if "demo" in kind or "contest" in kind else False if "real" in kind or "live" in kind else None,
        can_trade=None if investor is None else not investor,
    )


def _amount(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def timezone_us(payload: object) -> int | None:
    """Return `/ServerTimezone` in microseconds: hours up to 14, else minutes; None when it makes no sense."""
    if isinstance(payload, bool) or not isinstance(payload, int | float):
        return None
    offset = round(payload * HOUR_US if abs(payload) <= _HOURS_AT_MOST else payload * MINUTE_US)
    return offset if abs(offset) <= _HOURS_AT_MOST * HOUR_US else None


def order_stamps(payload: object) -> list[tuple[int, int]]:
    """Return UTC and wall clock, both microseconds, of each order that tells its open time in both."""
    out = []
    for order in payload if isinstance(payload, list) else []:
        stamp = order.get("openTimestampUTC") if isinstance(order, dict) else None
        if isinstance(stamp, int) and not isinstance(stamp, bool) and stamp > 0:
            seconds = stamp / 1000 if stamp > 10**11 else stamp  # seconds by all notes; milliseconds cannot be mistaken
            out.append((round(seconds * 1_000_000), local_us(order.get("openTime"), "order open time")))
    return out


def order_offsets_us(payload: object) -> list[int]:
    """Return server clock minus UTC for each order that tells its open time in both."""
    return [wall - utc for utc, wall in order_stamps(payload)]

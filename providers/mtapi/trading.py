"""Market orders through the bridge: sent once, found again by comment and magic number.

Neither platform refuses a second order with the same key, so nothing here sends twice. An answer that is not the broker's
plain yes or no leaves the order unknown (TransientError), and `find_order` asks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from core.clock import DAY_US, SECOND_US, to_datetime
from core.errors import BadPayloadError, PermanentError, ProviderUnavailableError
from core.interval import Interval
from core.server_clock import ServerClock
from providers.base import BrokerOrder, PlacedOrder
from providers.http import parse_json
from providers.mtapi.client import Session
from providers.mtapi.errors import code_of, failure, is_failure
from providers.mtapi.parse import local_us, order_stamps

PREFIX: Final = "cl"  # of every client id of ours
# The broker says no: there is no such order. Any other failure may have come after the order was taken.
REFUSALS: Final = frozenset({
    "NO_MONEY", "INVALID_VOLUME", "INVALID_STOPS", "INVALID_PRICE", "INVALID_SYMBOL", "SYMBOL_NOT_FOUND", "UNKNOWN_SYMBOL",
    "INVALID_REQUEST", "INVALID_PARAMETER", "NULL_ARGUMENT", "MARKET_CLOSED", "OFF_QUOTES", "NO_PRICES", "REQUOTE", "PRICE_CHANGED",
    "TRADE_DISABLED", "INVESTOR_MODE", "NOT_ENOUGH_RIGHTS", "NO_RIGHTS", "COMMON_ERROR_NO_RIGHTS", "INVALID_TOKEN"})
_DEAD: Final = {"Rejected": "rejected", "Cancelled": "cancelled", "Expired": "cancelled"}


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a platform names the magic number and the direction."""

    magic_parameter: str
    magic_field: str
    kind_fields: tuple[str, ...]


MT5: Final = Dialect("expertID", "expertId", ("orderType", "dealType"))
MT4: Final = Dialect("magic", "magicNumber", ("type",))


def magic_of(client_id: str) -> int:
    """Return the magic number of a client id: 31 bits, never 0, for brokers that rewrite comments."""
    return int.from_bytes(hashlib.sha256(client_id.encode()).digest()[:4], "big") & 0x7FFFFFFF or 1


async def place(session: Session, dialect: Dialect, order: PlacedOrder, clock: ServerClock) -> BrokerOrder:
    """Send once; errors as `TradingProvider.place_order`."""
    answer = await session.send("/OrderSend", [
        ("symbol", order.symbol), ("operation", order.side.capitalize()), ("volume", f"{order.quantity:.8f}".rstrip("0").rstrip(".")),
        ("comment", order.client_id), (dialect.magic_parameter, str(magic_of(order.client_id)))])
    try:
        value = parse_json(answer.body, answer.host)
    except BadPayloadError as error:
        raise ProviderUnavailableError(f"{error.message}; HTTP {answer.status} to an order: unknown, the broker is asked") from None
    if is_failure(value):
        said = failure(value, answer.host, session.secrets)
        if code_of(value) in REFUSALS:
            raise PermanentError(said.message)
        raise ProviderUnavailableError(f"{said.message}; whether the order was taken is unknown, the broker is asked")
    if not 200 <= answer.status < 300 or not isinstance(value, dict) or not is_ours(value, dialect, order):
        raise ProviderUnavailableError(f"{answer.host} answered HTTP {answer.status} with another thing than our order: unknown")
    return read(value, order.client_id, clock)


async def find(session: Session, dialect: Dialect, order: PlacedOrder, clock: ServerClock, now_us: int) -> BrokerOrder | None:
    """Look among open orders, then in history: what closes in between is in the second.

    Raises:
        TransientError: the broker cannot tell for sure now.
    """
    value, _ = await session.call("/OpenedOrders")
    found = _match(_rows(value), dialect, order)
    if found is None:
        begin = (order.sent_at_us or now_us) - DAY_US
        value, _ = await session.call("/OrderHistory", [
            ("from", _wall(clock.from_utc_us(begin))), ("to", _wall(clock.from_utc_us(now_us + DAY_US)))])
        found = _match(_rows(value), dialect, order)
        if found is None and isinstance(value, dict) and value.get("partialResponse"):
            raise ProviderUnavailableError("the broker's history of orders is not complete yet; it is asked again")
    return None if found is None else read(found, order.client_id, clock)


async def opened(session: Session, clock: ServerClock) -> list[BrokerOrder]:
    """Return the open orders and positions whose comment begins with a client id of ours."""
    value, _ = await session.call("/OpenedOrders")
    return [read(row, str(row["comment"])[:26], clock) for row in _rows(value)
            if str(row.get("comment") or "").startswith(PREFIX) and len(str(row["comment"])) >= 26]


async def stamps(session: Session, clock: ServerClock, interval: Interval) -> list[tuple[int, int]]:
    """Return UTC and wall clock of the account's orders, open ones and those of `interval`, where the broker tells both."""
    value, _ = await session.call("/OpenedOrders")
    found = order_stamps(_rows(value))
    value, _ = await session.call("/OrderHistory", [
        ("from", _wall(clock.from_utc_us(interval.start))), ("to", _wall(clock.from_utc_us(interval.end)))])
    return sorted({stamp for stamp in [*found, *order_stamps(_rows(value))] if stamp[0] in interval})


def is_ours(row: dict[str, Any], dialect: Dialect, order: PlacedOrder) -> bool:
    """Whether a row is this order: by its comment, or by magic number, symbol and side where the comment was rewritten."""
    comment = str(row.get("comment") or "")
    if order.client_id in comment:
        return True
    kinds = [str(row.get(name) or "").lower() for name in dialect.kind_fields]
    return (row.get(dialect.magic_field) == magic_of(order.client_id) and row.get("symbol") == order.symbol
            and any(kind.endswith(order.side) for kind in kinds))


def read(row: dict[str, Any], client_id: str, clock: ServerClock) -> BrokerOrder:
    """Return an order of the bridge as ours; BadPayloadError when a field is missing or of another type."""
    ticket = row.get("ticket")
    if isinstance(ticket, bool) or not isinstance(ticket, int):
        raise BadPayloadError("order: received no ticket; allowed: an integer; nothing of the answer is used")
    state = str(row.get("state") or "Filled")
    if state in _DEAD:
        return BrokerOrder(client_id, str(ticket), "rejected" if _DEAD[state] == "rejected" else "cancelled")
    price, lots = _number(row, "openPrice"), _number(row, "lots")
    if state not in {"Filled", "Partial"} and not (state == "Started" and price):
        return BrokerOrder(client_id, str(ticket), "acknowledged")
    paid = -(_number(row, "commission", 0.0) + _number(row, "fee", 0.0))  # the bridge writes costs as negative amounts
    return BrokerOrder(
        client_id, str(ticket), "filled" if state != "Partial" else "acknowledged", price, lots, paid, _opened_us(row, clock),
        _number(row, "contractSize", 1.0) or 1.0)


def _opened_us(row: dict[str, Any], clock: ServerClock) -> int:
    stamp = row.get("openTimestampUTC")
    if isinstance(stamp, int) and not isinstance(stamp, bool) and stamp > 0:
        return stamp * 1000 if stamp > 10**11 else stamp * SECOND_US
    return clock.to_utc_us(local_us(row.get("openTime"), "order open time"))


def _number(row: dict[str, Any], name: str, default: float | None = None) -> float:
    value = row.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadPayloadError(f"order: received {name} as {type(value).__name__}; allowed: a number; nothing of the answer is used")
    return float(value)


def _rows(value: object) -> list[dict[str, Any]]:
    rows = value.get("orders") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise BadPayloadError(f"orders: received {type(rows).__name__}; allowed: a list of objects; nothing of the answer is used")
    return rows


def _match(rows: list[dict[str, Any]], dialect: Dialect, order: PlacedOrder) -> dict[str, Any] | None:
    return next((row for row in rows if is_ours(row, dialect, order)), None)


def _wall(local: int) -> str:
    return to_datetime(local).strftime("%Y-%m-%dT%H:%M:%S")

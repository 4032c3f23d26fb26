"""Market orders at exchanges: sent once, found again by a client order id that follows from our key.

Nothing here sends twice. Only an answer that the exchange's own words make a plain no ends an order; whatever else comes after
the sending leaves it unknown (TransientError), and `find` asks. A look that was not complete is never read as "not there".
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

from core.errors import (
    BadPayloadError,
    CandlelakeError,
    CredentialsRefusedError,
    InputError,
    NotPermittedError,
    PermanentError,
    ProviderUnavailableError,
    TransientError,
    UnsupportedError,
)
from providers.base import BrokerOrder, PlacedOrder
from providers.exchange.wire import Call, Exchanged, current_call

Status = Literal["acknowledged", "filled", "rejected", "cancelled"]
_STATUS: Final[Mapping[str | None, Status]] = {
    "open": "acknowledged", "closed": "filled", "canceled": "cancelled", "expired": "cancelled", "rejected": "rejected",
    "canceling": "acknowledged", None: "acknowledged",
    "PENDING": "acknowledged", "QUEUED": "acknowledged", "CANCEL_QUEUED": "acknowledged"}  # Coinbase's, which ccxt passes on


class Dialect(Protocol):
    """How one exchange names an order of ours, says no, and is asked."""

    def key(self, client_id: str) -> str:
        """Return the client order id that the exchange's format allows; the same for the same `client_id`."""

    def client_id(self, key: str) -> str | None:
        """Return our client id of a key, None when the key is none of ours."""

    def parameters(self, key: str, amount: str, side: str) -> dict[str, object]:
        """Return what ccxt's `create_order` is given besides."""

    def is_refusal(self, answer: Exchanged) -> bool:
        """Whether the answer says for sure that there is no such order."""

    def is_doubtful(self, answer: Exchanged) -> bool:
        """Whether a refusal may mean that the order is there already."""

    async def find(self, exchange: Any, symbol: str, key: str, since_us: int) -> Mapping[str, Any] | None:
        """Return ccxt's order with its `fees`, None when the exchange said that it knows none; raise when it could not tell."""

    async def open(self, exchange: Any) -> list[Mapping[str, Any]]:
        """Return ccxt's orders that are open."""


@dataclass(frozen=True, slots=True)
class Desk:
    """Where orders are given: ccxt's exchange, the provider's way to call it with the keys in its hands, the dialect."""

    exchange: Any
    signed: Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
    dialect: Dialect


async def place(desk: Desk, order: PlacedOrder) -> BrokerOrder:
    """Send once; errors as `TradingProvider.place_order`."""
    exchange, dialect, market = desk.exchange, desk.dialect, desk.exchange.markets[order.symbol]
    amount = check_order(exchange, market, order)
    key, calls = dialect.key(order.client_id), list[Call]()

    async def send() -> Any:
        call = current_call.get()
        if call is not None:
            calls.append(call)
        return await exchange.create_order(order.symbol, "market", order.side, amount, None, dialect.parameters(key, amount, order.side))

    try:
        raw = await desk.signed(send)
    except (PermanentError, TransientError) as error:
        sent = calls[0].answers if calls else []
        if not sent:  # nothing has left this machine
            raise
        if not dialect.is_refusal(sent[-1]):
            raise ProviderUnavailableError(f"{error.message}; whether the order was taken is unknown, the exchange is asked") from None
        if dialect.is_doubtful(sent[-1]):
            return await _doubted(desk, order, error, sent[-1])
        raise error if isinstance(error, PermanentError) else PermanentError(error.message) from None
    check_ours(raw, key, order, is_answer=True)
    answer = read(raw, order.client_id, market)
    if answer.status != "acknowledged":
        return answer
    try:  # a market order is mostly done by now; an answer that says little is made whole by asking once
        return await find(desk, order) or answer
    except (PermanentError, TransientError):
        return answer


async def _doubted(desk: Desk, order: PlacedOrder, refused: CandlelakeError, answer: Exchanged) -> BrokerOrder:
    """Return the order if a refusal meant that it is there already, else raise as the refusal deserves."""
    try:
        found = await find(desk, order)
    except PermanentError as error:
        raise ProviderUnavailableError(f"{refused.message}; asked whether it is there: {error.message}") from None
    if found is not None:
        return found
    if "duplicate" in answer.body.lower():
        raise ProviderUnavailableError(f"{refused.message}; the order is not found yet, the exchange is asked again")
    raise PermanentError(refused.message)


async def find(desk: Desk, order: PlacedOrder) -> BrokerOrder | None:
    """Ask for an order by its key.

    Raises:
        CredentialsRefusedError, NotPermittedError, InputError: the key may not look; a person has to act.
        TransientError: the exchange cannot tell for sure now.
    """
    exchange, key = desk.exchange, desk.dialect.key(order.client_id)
    since_us = order.sent_at_us if order.sent_at_us is not None else exchange.microseconds()
    try:
        raw = await desk.signed(lambda: desk.dialect.find(exchange, order.symbol, key, since_us))
    except (CredentialsRefusedError, NotPermittedError, InputError):
        raise
    except PermanentError as error:
        raise ProviderUnavailableError(f"{error.message}; the look is not complete, the exchange is asked again") from None
    if raw is None:
        return None
    check_ours(raw, key, order)
    return read(raw, order.client_id, exchange.markets[order.symbol])


def check_order(exchange: Any, market: Mapping[str, Any], order: PlacedOrder) -> str:
    """Return the amount as it is sent, plain decimals, if the market takes it.

    Raises:
        UnsupportedError: no spot market.
        NotPermittedError: the market is closed for trading.
        InputError: the amount is off the market's step or limits.
    """
    if market.get("spot") is not True:
        raise UnsupportedError(f"{order.symbol} is no spot market; orders are sent to spot markets only: use mode paper")
    if market.get("active") is False:
        raise NotPermittedError(f"{exchange.id} does not trade {order.symbol} now")
    if not math.isfinite(order.quantity) or order.quantity <= 0:
        raise InputError("quantity", order.quantity, "an amount above 0 of the base currency")
    amount = Decimal(repr(order.quantity))
    step = _step(exchange, market)
    if step is None:
        raise UnsupportedError(f"{exchange.id} tells no step of amounts for {order.symbol}; its orders cannot be checked")
    least, most = _bounds(market)
    allowed = f"multiples of {step:f}" + (f" from {least:f}" if least is not None else "") + (f" to {most:f}" if most is not None else "")
    if amount % step or (least is not None and amount < least) or (most is not None and amount > most):
        raise InputError(f"quantity of {order.symbol}", order.quantity, allowed, "change quantity in the pipeline's executor")
    return f"{amount:f}"


def check_ours(raw: object, key: str, order: PlacedOrder, *, is_answer: bool = False) -> None:
    """Raise BadPayloadError unless ccxt's order is the one we mean; the answer to a sending may leave fields out."""
    if not isinstance(raw, Mapping) or not raw.get("id"):
        raise BadPayloadError("order: received no id; allowed: an order with its id; whether it was taken is unknown")
    told = {"clientOrderId": key, "symbol": order.symbol, "side": order.side}
    for name, wanted in told.items():
        value = raw.get(name)
        if value != wanted and not (is_answer and value is None):
            raise BadPayloadError(f"order {raw['id']}: received another {name} than ours; nothing of the answer is used")


def read(raw: Mapping[str, Any], client_id: str, market: Mapping[str, Any]) -> BrokerOrder:
    """Return ccxt's order as ours; BadPayloadError when a filled one lacks price or amount, or its state has no name."""
    if raw.get("status") not in _STATUS:
        raise BadPayloadError(f"order {raw['id']}: received a state that is not known; nothing of the answer is used")
    status, filled = _STATUS[raw.get("status")], _number(raw.get("filled"))
    if not filled:
        if status == "filled":
            raise BadPayloadError(f"order {raw['id']}: received no filled amount of a filled order; nothing of the answer is used")
        return BrokerOrder(client_id, str(raw["id"]), status)
    price = _number(raw.get("average")) or (_number(raw.get("cost")) or 0.0) / filled
    if price <= 0:
        raise BadPayloadError(f"order {raw['id']}: received no price of a filled order; nothing of the answer is used")
    if status != "acknowledged":
        status = "filled"  # what an ended market order did not fill is gone; `filled` says how much came of it
    stamp = raw.get("lastTradeTimestamp") or raw.get("timestamp")
    return BrokerOrder(client_id, str(raw["id"]), status, price, filled, _commission(raw, market, price),
                       int(stamp) * 1000 if isinstance(stamp, int | float) else None)


def _commission(raw: Mapping[str, Any], market: Mapping[str, Any], price: float) -> float:
    """Return the fees in quote currency; those in a third currency (an exchange's own coin) have no price here and are left out."""
    fees = raw.get("fees") or [raw.get("fee")]
    worth = {market["quote"]: 1.0, market["base"]: price}
    return sum((_number(fee.get("cost")) or 0.0) * worth.get(fee.get("currency"), 0.0) for fee in fees if isinstance(fee, Mapping))


def _step(exchange: Any, market: Mapping[str, Any]) -> Decimal | None:
    from ccxt.base.decimal_to_precision import DECIMAL_PLACES, TICK_SIZE  # noqa: PLC0415  ccxt is slow to import

    told = (market.get("precision") or {}).get("amount")
    if told is None or exchange.precisionMode not in {DECIMAL_PLACES, TICK_SIZE}:
        return None
    step = Decimal(str(told)) if exchange.precisionMode == TICK_SIZE else Decimal(1).scaleb(-int(told))
    return step if step > 0 else None


def _bounds(market: Mapping[str, Any]) -> tuple[Decimal | None, Decimal | None]:
    limits = [(market.get("limits") or {}).get(name) or {} for name in ("amount", "market")]
    least = [Decimal(str(each["min"])) for each in limits if each.get("min")]
    most = [Decimal(str(each["max"])) for each in limits if each.get("max")]
    return max(least, default=None), min(most, default=None)


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadPayloadError(f"order: received a number as {type(value).__name__}; nothing of the answer is used")
    try:
        number = float(value)
    except ValueError:
        raise BadPayloadError("order: received a text where a number belongs; nothing of the answer is used") from None
    if not math.isfinite(number):
        raise BadPayloadError("order: received a number without end; nothing of the answer is used")
    return number

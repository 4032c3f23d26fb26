"""The one table from ccxt's exceptions and HTTP status codes to core.errors."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable
from pathlib import PurePath
from typing import Final

import aiohttp
from ccxt.base import errors as foreign

from core.errors import (
    BadPayloadError,
    CandlelakeError,
    ClockSkewError,
    CredentialsRefusedError,
    NetworkError,
    NotPermittedError,
    PermanentError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SessionLostError,
    TransientError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.secrets import Secret, mask, redact

# First match wins, so a class stands before its bases. A test walks ccxt's tree: every leaf must find its own row or that
# of a base other than BaseError.
_CLASSES: Final[tuple[tuple[type[Exception], type[CandlelakeError]], ...]] = (
    (foreign.PermissionDenied, NotPermittedError),  # AccountNotEnabled
    (foreign.AuthenticationError, CredentialsRefusedError),  # AccountSuspended
    (foreign.BadSymbol, UnknownSymbolError),
    (foreign.ContractUnavailable, UnknownSymbolError),
    (foreign.ArgumentsRequired, UnsupportedError),
    (foreign.NotSupported, UnsupportedError),
    (foreign.RestrictedLocation, NotPermittedError),
    (foreign.ManualInteractionNeeded, NotPermittedError),
    (foreign.MarketClosed, ProviderUnavailableError),
    (foreign.ExchangeClosedByUser, SessionLostError),
    (foreign.ExchangeError, PermanentError),
    (foreign.DDoSProtection, RateLimitedError),
    (foreign.RateLimitExceeded, RateLimitedError),
    (foreign.ChecksumError, BadPayloadError),
    (foreign.InvalidNonce, ClockSkewError),
    (foreign.RequestTimeout, ProviderTimeoutError),
    (foreign.ExchangeNotAvailable, ProviderUnavailableError),  # OnMaintenance
    (foreign.NetworkError, NetworkError),
    (foreign.BadResponse, BadPayloadError),  # NullResponse
    (foreign.OperationFailed, ProviderUnavailableError),  # CancelPending
    (foreign.UnsubscribeError, SessionLostError),
)
# Classes that say less than the status code: ccxt calls a geo block, a wrong path and a maintenance page all the same.
_VAGUE: Final = (ProviderUnavailableError, NetworkError)
_STATUS: Final[dict[int, type[CandlelakeError]]] = {
    401: CredentialsRefusedError,
    403: NotPermittedError,
    404: UnsupportedError,
    451: NotPermittedError,
}
_HINTS: Final[dict[type[CandlelakeError], str]] = {
    CredentialsRefusedError: "refused the credentials; enter them again",
    NotPermittedError: "does not allow this key, or our place in the world, to do this",
    UnknownSymbolError: "does not know the symbol",
    UnsupportedError: "cannot do this; check the address and the exchange's documentation",
    RateLimitedError: "asks us to slow down",
    ClockSkewError: "refuses our clock; its time was read again",
    ProviderTimeoutError: "did not answer in time",
    ProviderUnavailableError: "is not available",
    NetworkError: "is out of reach",
    BadPayloadError: "sent an answer that is not what its protocol promises",
    SessionLostError: "was closed; connect again",
    PermanentError: "refused the request",
}
_UNKNOWN_SYMBOL: Final = re.compile(r"unknown asset pair|invalid symbol|unknown symbol", re.IGNORECASE)
_BINANCE_KEY: Final = re.compile(r'"code":\s*-201[45]\b')  # ccxt calls it DDoSProtection once a key has worked
_URL: Final = re.compile(r"\b(?:https?|wss?)://\S+")
_TAG: Final = re.compile(r"<[^>]*>")
DETAIL_LENGTH: Final = 200


def translate(
    error: BaseException, exchange_id: str, *, status: int | None = None, retry_after: float | None = None, secrets: Iterable[Secret] = (),
) -> CandlelakeError:
    """Return our error for one of ccxt's.

    Args:
        error: what ccxt raised; anything that is not ccxt's means that ccxt stumbled over the answer.
        exchange_id: for the message.
        status: HTTP status of the answer that led to it, None when none came.
        retry_after: seconds, from the answer's headers.
        secrets: values that must not show, whatever the exchange echoes.
    """
    kind = _kind(error, status)
    detail = _detail(error, secrets) if isinstance(error, foreign.BaseError) else _stumble(error)
    seen = f"HTTP {status}" if status is not None and status != 200 else ""
    told = ", ".join(part for part in (seen, detail) if part)
    message = f"{exchange_id} {_HINTS[kind]}" + (f" ({told})" if told else "")
    if issubclass(kind, TransientError):
        return kind(message, retry_after=retry_after)
    return kind(message)


def _kind(error: BaseException, status: int | None) -> type[CandlelakeError]:  # noqa: PLR0911  a table of rules, one return each
    if not isinstance(error, foreign.BaseError):
        return BadPayloadError
    cause, text = error.__cause__, str(error)
    if status == 401 or _BINANCE_KEY.search(text):
        return CredentialsRefusedError
    if status in {418, 429}:
        return RateLimitedError
    if isinstance(cause, aiohttp.ClientPayloadError | aiohttp.ContentTypeError):
        return BadPayloadError
    kind = next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), PermanentError)
    if kind is ProviderUnavailableError and status is None and isinstance(cause, aiohttp.ClientError | OSError):
        return NetworkError
    if kind is PermanentError and isinstance(cause, aiohttp.ClientError):
        return NetworkError
    if kind is PermanentError and _UNKNOWN_SYMBOL.search(text):
        return UnknownSymbolError
    if type(error) is foreign.ExchangeError and status is not None and status >= 500:
        return ProviderUnavailableError  # words that the exchange's class does not know, from a server that says it is at fault
    if status in _STATUS and (kind in _VAGUE or kind is PermanentError):
        return _STATUS[status]
    return kind


def _stumble(error: BaseException) -> str:
    """Return where ccxt broke, without its words: they may hold what the exchange sent."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"ccxt stumbled: {type(error).__name__}{where}"


def _detail(error: BaseException, secrets: Iterable[Secret]) -> str:
    """Return the exchange's own words: no URL, no markup, no secret, one line, not long."""
    text = mask(str(error), secrets)
    text = redact(_TAG.sub(" ", _URL.sub("", text)))
    return " ".join(text.split())[:DETAIL_LENGTH]

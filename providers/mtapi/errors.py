"""What the bridge's error codes mean for us. Failures are told by the body, never by the HTTP status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from core.errors import (
    BadPayloadError,
    CandlelakeError,
    CredentialsRefusedError,
    NetworkError,
    NotFoundError,
    NotPermittedError,
    PermanentError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitedError,
    SessionLostError,
    UnknownSymbolError,
)
from core.secrets import MASK, Secret, mask, redact

RATE_LIMIT_SECONDS: Final = 30.0  # the bridge names no time; logins in quick succession get an account blocked

_MEANINGS: Final[dict[type[CandlelakeError], tuple[str, ...]]] = {
    SessionLostError: ("INVALID_TOKEN",),
    CredentialsRefusedError: (
        "INVALID_ACCOUNT", "INVALID_PASSWORD", "INVALID_LOGIN", "ACCOUNT_DISABLED", "OLD_VERSION", "CERTIFICATE_REQUIRED",
        "OTP_REQUIRED", "INVALID_OTP", "AUTHENTICATION_FAILED", "INVALID_API_KEY"),
    NotPermittedError: (
        "INVESTOR_MODE", "TRADE_DISABLED", "SERVER_BLACKLISTED", "NOT_ENOUGH_RIGHTS", "NO_RIGHTS", "COMMON_ERROR_NO_RIGHTS"),
    RateLimitedError: (
        "TOO_FREQUENT_REQUEST", "TOO_FREQUENT_REQUESTS", "TOO_MANY_REQUESTS", "MAX_SESSIONS_REACHED", "DOUBLE_REQUEST"),
    UnknownSymbolError: ("INVALID_SYMBOL", "SYMBOL_NOT_FOUND", "UNKNOWN_SYMBOL"),
    ProviderTimeoutError: ("TIMEOUT", "OPERATION_TIMEOUT"),
    NetworkError: ("CONNECT_ERROR", "NETWORK_ERROR", "SOCKET_ERROR", "NO_CONNECTION"),
    ProviderUnavailableError: (
        "SERVICE_NOT_AVAILABLE", "SERVER_BUSY", "MARKET_CLOSED", "NO_PRICES", "ORDER_HISTORY_NOT_READY", "OFF_QUOTES",
        "BROKER_BUSY", "TRADE_CONTEXT_BUSY", "REQUOTE", "PRICE_CHANGED"),
    NotFoundError: ("SERVER_NOT_FOUND", "INVALID_TICKET"),
    PermanentError: (
        "NULL_ARGUMENT", "INVALID_REQUEST", "SAME_PARAMS", "INVALID_PRICE", "INVALID_VOLUME", "INVALID_STOPS", "NO_MONEY",
        "INVALID_FUNCTION", "INVALID_PARAMETER"),
}
CODES: Final = {code: kind for kind, codes in _MEANINGS.items() for code in codes}
_NUMERIC: Final = {
    0x10000: "INVALID_TOKEN", 0x10001: "INVALID_SYMBOL", 0x10002: "INVALID_TICKET", 0x10003: "SAME_PARAMS",
    0x10004: "CONNECT_ERROR", 0x10005: "TIMEOUT", 0x10006: "SOCKET_ERROR", 0x10007: "DOUBLE_REQUEST",
    0x10008: "SERVER_BLACKLISTED", 0x10016: "MAX_SESSIONS_REACHED",
}
_GUID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


def is_failure(value: object) -> bool:
    """Return whether an answer is the bridge's error object: a `code` beside a message or a stack trace."""
    return isinstance(value, dict) and "code" in value and ("message" in value or "stackTrace" in value)


def code_of(value: dict[str, object]) -> str:
    """Return the name of a failure's code, in capitals."""
    raw = value["code"]
    return _NUMERIC.get(raw, str(raw)) if isinstance(raw, int) else str(raw).strip().upper()


def failure(value: dict[str, object], host: str, secrets: Iterable[Secret]) -> CandlelakeError:
    """Return what an error object means; tokens, secrets and the stack trace stay out of the message."""
    code = code_of(value)
    said = _clean(str(value.get("message") or ""), secrets)
    text = f"{host} answered {_clean(code, secrets)[:60]}: {said or 'no message'}"
    kind = CODES.get(code) or _unlisted(code, said)
    if kind is RateLimitedError:
        return RateLimitedError(f"{text}; waiting {RATE_LIMIT_SECONDS:.0f} s", retry_after=RATE_LIMIT_SECONDS)
    if kind is CredentialsRefusedError:
        return kind(f"{text}; the login is refused: enter user, password and server again")
    return kind(text)


def _unlisted(code: str, said: str) -> type[CandlelakeError]:
    """Judge codes that no table holds; `DONE` in a failure is an exception inside the bridge itself."""
    if code.startswith("TOO_FREQUENT"):
        return RateLimitedError
    if code == "DONE" and "server" in said.lower() and "not found" in said.lower():
        return NotFoundError
    return ProviderUnavailableError if code else BadPayloadError


def _clean(text: str, secrets: Iterable[Secret]) -> str:
    return " ".join(redact(_GUID.sub(MASK, mask(text, secrets))).split())[:200]

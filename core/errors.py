"""Every error Candlelake raises, and with it the decision whether trying again can help.

CandlelakeError
├── TransientError               trying again later can help; `retry_after` says how long to wait at least
│   ├── NetworkError             no answer: refused, reset, DNS, TLS handshake cut
│   ├── ProviderTimeoutError     no answer in time
│   ├── ProviderUnavailableError the provider answers that it is down, or a proxy in front of it does
│   ├── RateLimitedError         the provider asks us to slow down
│   ├── BadPayloadError          an answer that is not what the protocol promises (HTML with 200, cut JSON, ...)
│   ├── ClockSkewError           the provider refuses our clock
│   ├── SessionLostError         the session is gone; a new login may bring it back
│   ├── StalledError             a stream says nothing though its market is open
│   ├── OverrunError             data came faster than it was taken; what was lost is booked
│   ├── LeaseHeldError           another run works on the same thing
│   └── StoreBusyError           the metadata store is locked or out of reach
│       └── StoreConflictError   another process wrote the same, or deleted it, at the same moment
└── PermanentError               trying again changes nothing: a person has to act
    ├── InputError               bad input from a person: what was received, what is allowed, what to do
    │   └── ClockRuleError       a broker's clock is not what its rule says
    ├── NotFoundError            what was named does not exist (connection, series, snapshot)
    ├── CredentialsRefusedError  login refused; never retried, so that no account is locked
    ├── NotPermittedError        logged in, but not allowed to do this (also geo blocks)
    ├── UnsupportedError         the provider cannot do this at all
    ├── UnknownSymbolError       the provider does not know the symbol
    ├── TickerReusedError        the symbol may name another asset by now; a person has to decide
    ├── AddressRefusedError      the address is not one we may connect to
    ├── KeyMissingError          no key with this id; `key_id`
    ├── DecryptionError          the ciphertext does not belong here, or was altered; `key_id`
    ├── StoreFullError           no space left
    ├── StoreUnwritableError     read-only, no permission, missing folder
    ├── StoreCorruptError        a file or a table is not what the manifest says
    ├── PluginError              a plug-in of a pipeline raised, or gave what its protocol does not allow
    │   └── PluginOverdueError   a plug-in did not come back in time; its thread may still run
    └── LookAheadError           a pipeline's past changed with its future: a plug-in looks ahead
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

RECEIVED_MAX: Final = 300  # characters of bad input that are repeated


class CandlelakeError(Exception):
    """Base of all errors raised on purpose; the message is one line a person can act on."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes whatever the constructor asks for."""
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[CandlelakeError], args: tuple[Any, ...], state: dict[str, Any]) -> CandlelakeError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class TransientError(CandlelakeError):
    """Trying again later can help. `retry_after` is the least wait in seconds, None when unknown."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NetworkError(TransientError):
    """Raised when no answer came: refused, reset, unresolvable, TLS handshake cut."""


class ProviderTimeoutError(TransientError):
    """Raised when the provider did not answer in time."""


class ProviderUnavailableError(TransientError):
    """Raised when the provider, or a proxy in front of it, says that it is down."""


class RateLimitedError(TransientError):
    """Raised when the provider asks us to slow down."""


class BadPayloadError(TransientError):
    """Raised when an answer is not what the protocol promises; nothing of it is used."""


class ClockSkewError(TransientError):
    """Raised when the provider refuses the time stamp of a request, or its own clock has fallen far back."""


class SessionLostError(TransientError):
    """Raised when the provider's session is gone and could not be brought back at once."""


class OverrunError(TransientError):
    """Raised when data came faster than it was taken: what was not taken is lost, and its range is to be booked."""


class StalledError(TransientError):
    """Raised when a connection stays open and says nothing although the market is open."""


class LeaseHeldError(TransientError):
    """Raised when another run holds the lease of what we want to work on."""


class StoreBusyError(TransientError):
    """Raised when the metadata store is locked or out of reach."""


class StoreConflictError(StoreBusyError):
    """Raised when another process wrote at the same moment what ours found missing; looked at again, it is there."""


class PermanentError(CandlelakeError):
    """Trying again changes nothing: a person has to act."""


class InputError(PermanentError):
    """Raised on bad input from a person; says what was received, what is allowed, what to do."""

    def __init__(self, what: str, received: object, allowed: str | Iterable[object], fix: str = "") -> None:
        self.what = what
        self.received = received
        self.allowed = allowed if isinstance(allowed, str) else ", ".join(str(item) for item in allowed)
        self.fix = fix
        shown = repr(received)
        shown = shown if len(shown) <= RECEIVED_MAX else f"{shown[:RECEIVED_MAX]}..."  # one line stays one that a person reads
        text = f"{what}: received {shown}; allowed: {self.allowed}"
        super().__init__(f"{text}; {fix}" if fix else text)


class ClockRuleError(InputError):
    """Raised when a broker's clock is not what its rule says; nothing is fetched until the rule is right."""


class NotFoundError(PermanentError):
    """Raised when what was named does not exist."""


class CredentialsRefusedError(PermanentError):
    """Raised when the provider refuses the login; never retried, so that no account is locked."""


class NotPermittedError(PermanentError):
    """Raised when the login is good but the action, or our place in the world, is not allowed."""


class UnsupportedError(PermanentError):
    """Raised when the provider cannot do this at all."""


class UnknownSymbolError(PermanentError):
    """Raised when the provider does not know the symbol."""


class TickerReusedError(PermanentError):
    """Raised when a symbol may name another asset than its stored candles do; a person has to decide."""


class AddressRefusedError(PermanentError):
    """Raised when an address is not one that we may connect to."""


class KeyMissingError(PermanentError):
    """Raised when no key with the id named in a ciphertext is at hand."""

    def __init__(self, message: str, *, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class DecryptionError(PermanentError):
    """Raised when a ciphertext was altered, moved to another row, or sealed with another key of the same id."""

    def __init__(self, message: str, *, key_id: str) -> None:
        super().__init__(message)
        self.key_id = key_id


class StoreFullError(PermanentError):
    """Raised when no space is left where the store lies."""


class StoreUnwritableError(PermanentError):
    """Raised when the store's folder is read-only, missing or not ours."""


class StoreCorruptError(PermanentError):
    """Raised when a file or a table is not what the manifest says."""


class PluginError(PermanentError):
    """Raised when a plug-in of a pipeline raised, or gave what its protocol does not allow."""


class PluginOverdueError(PluginError):
    """Raised when a plug-in did not come back in time; its thread may still run, until the process ends."""


class LookAheadError(PermanentError):
    """Raised when a pipeline's signals of the past depend on later candles, or on how many were looked at at once."""

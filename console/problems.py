"""The kinds of errors that pages and API answer with: an id that programs may rely on, what it means, what to do, and its place in the docs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from console.policy import SignInError
from core.errors import (
    AddressRefusedError,
    CandlelakeError,
    CredentialsRefusedError,
    DecryptionError,
    InputError,
    KeyMissingError,
    NotFoundError,
    NotPermittedError,
    RateLimitedError,
    StoreBusyError,
    StoreCorruptError,
    StoreFullError,
    StoreUnwritableError,
    TransientError,
    UnsupportedError,
)

PAGE: Final = "/errors"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of error. `fix` is what to do where the error itself says nothing better."""

    id: str
    status: int
    meaning: str
    fix: str

    @property
    def docs(self) -> str:
        """Where the console explains it; docs/errors.md holds the same."""
        return f"{PAGE}#{self.id}"

    def body(self, message: str) -> dict[str, str]:
        """Return the answer of the API for one error: its line whole, and as cause and fix."""
        cause, _, fix = message.rpartition("; ")
        return {"error": message, "id": self.id, "cause": cause or message, "fix": fix if cause else self.fix, "docs": self.docs}


UNEXPECTED: Final = Kind("E-UNEXPECTED", 500, "A fault of the console; its log names the number that the error tells.",
                         "Look the number up in the console's log and report it.")
OTHER: Final = Kind("E-CONFLICT", 409, "What is stored forbids it, such as deleting a connection that has candles.",
                    "Do what the line says, or leave it as it is.")
# The first one that fits an error is its kind.
_OF_ERRORS: Final[tuple[tuple[type[CandlelakeError], Kind], ...]] = (
    (SignInError, Kind("E-SIGN-IN", 401, "Nobody is signed in, or the token is unknown, expired or revoked.",
                       "Sign in, or send a valid token as Authorization: Bearer.")),
    (CredentialsRefusedError, Kind("E-CREDENTIALS", 401, "A password, code or login was refused, here or by the provider.",
                                   "Enter it again; have an admin print a new one-time code.")),
    (NotPermittedError, Kind("E-NOT-PERMITTED", 403, "You are known, and may not do this: role, permission, scope, a gate, or a form of another site.",
                             "Ask an admin, or use a token with the scope that the line names.")),
    (NotFoundError, Kind("E-NOT-FOUND", 404, "What was named is not there, or is not yours.", "Look at the list of those there are.")),
    (InputError, Kind("E-INPUT", 422, "A value is not one that is allowed; the line says what was received and what is allowed.",
                      "Send a value that is allowed.")),
    (RateLimitedError, Kind("E-TOO-MANY", 429, "Too many ask at once, or too many logins failed.", "Wait as long as Retry-After says.")),
    (StoreBusyError, Kind("E-STORE-BUSY", 503, "The metadata store is locked or out of reach.", "Try again soon; see `candlelake doctor`.")),
    (TransientError, Kind("E-TRY-AGAIN", 503, "A provider, Prefect's server or the network does not answer now.",
                          "Try again soon; the connection's log says more.")),
    (AddressRefusedError, Kind("E-ADDRESS", 409, "An address is one that the console does not connect to, such as one of our own network.",
                               "Use a public address, or have an admin allow private ones.")),
    (KeyMissingError, Kind("E-KEYS", 409, "A stored secret cannot be opened: the key is not there.", "Put the key file back; see `candlelake doctor`.")),
    (DecryptionError, Kind("E-SEALED", 409, "A stored secret does not belong where it lies, or was altered.", "Enter the credentials again.")),
    (StoreFullError, Kind("E-STORE-FULL", 409, "No space is left on the disk of the lake.", "Free some; what was stored is intact.")),
    (StoreUnwritableError, Kind("E-STORE-CLOSED", 409, "The lake's folder cannot be written.", "Check owner and mode of the folder.")),
    (StoreCorruptError, Kind("E-STORE-CORRUPT", 409, "A file of the lake is missing or not what the manifest says.", "Run `candlelake verify`.")),
    (UnsupportedError, Kind("E-UNSUPPORTED", 409, "The provider, or this installation, cannot do this at all.", "Choose another, or install the extra.")),
    (CandlelakeError, OTHER),
)
_OF_STATUS: Final[dict[int, tuple[Kind, str]]] = {
    400: (Kind("E-BODY", 400, "The body is not what its content type says.", "Send it whole and valid."),
          "the body is not what its content type says; send it whole and valid"),
    404: (Kind("E-NO-PAGE", 404, "No page and no call has this address.", "See /api/docs for those there are."), "there is no such page"),
    405: (Kind("E-METHOD", 405, "The address is there, this method is not.", "See /api/docs for those there are."), "this method is not allowed here"),
    408: (Kind("E-SLOW", 408, "The body did not come in time.", "Send it again, over a faster line."), "the body did not come in time; send it again"),
    413: (Kind("E-TOO-LARGE", 413, "The body is larger than any form.", "Send less."), "the body is too large"),
}
INPUT: Final = next(kind for error, kind in _OF_ERRORS if error is InputError)
HOST: Final = Kind("E-HOST", 400, "The request names a host under which the console does not answer.", "Set CANDLELAKE_CONSOLE_HOSTS.")
TOO_LARGE: Final = _OF_STATUS[413][0]


def kind_of(error: CandlelakeError) -> Kind:
    """Return the kind of one of our errors."""
    return next(kind for type_of, kind in _OF_ERRORS if isinstance(error, type_of))


def kind_of_status(status: int) -> tuple[Kind, str]:
    """Return kind and line of an answer that the web framework gives by itself."""
    return _OF_STATUS.get(status, (Kind("E-CONFLICT", status, OTHER.meaning, OTHER.fix), "not possible"))


def all_kinds() -> Iterator[Kind]:
    """Yield every kind once, by status."""
    yield from sorted({*(kind for _, kind in _OF_ERRORS), *(kind for kind, _ in _OF_STATUS.values()), HOST, UNEXPECTED},
                      key=lambda kind: (kind.status, kind.id))

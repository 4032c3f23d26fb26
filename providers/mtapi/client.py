"""The session with the bridge: login, the token, and what to do when the bridge has forgotten it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import (
    BadPayloadError,
    CandlelakeError,
    CredentialsRefusedError,
    InputError,
    RateLimitedError,
    SessionLostError,
    TransientError,
)
from core.secrets import Secret
from providers.base import RateBudget
from providers.http import Answer, Http, Parameters, parse_json
from providers.mtapi.errors import failure, is_failure
from providers.mtapi.parse import unquote

_TOKEN: Final = re.compile(r"[A-Za-z0-9_.:{}-]{1,200}")
_WORD: Final = re.compile(r"[!-;=-~]{1,200}")  # one word, and not the begin of a web page


@dataclass(frozen=True, slots=True)
class Login:
    """Checked credentials: by server name (`/ConnectEx`) or by address (`/Connect`)."""

    user: str
    password: Secret
    server: str | None = None
    host: str | None = None
    port: int | None = None

    @staticmethod
    def of(credentials: Mapping[str, Secret]) -> Login:
        """Check the credential fields of a connection.

        Raises:
            InputError: a field is missing or not of its kind; values are never shown.
        """
        given = {name: secret.reveal().strip() for name, secret in credentials.items() if secret}
        missing = [name for name in ("user", "password") if not given.get(name)]
        if missing:
            raise InputError("mtapi credentials", sorted(given), "user, password, and server or host and port",
                             f"add {' and '.join(missing)}")
        if not re.fullmatch(r"[0-9]{1,19}", given["user"]):
            raise InputError("mtapi credential user", "a text", "the account number: 1 to 19 digits", "write digits only")
        password = Secret(credentials["password"].reveal())
        if given.get("server"):
            return Login(given["user"], password, server=given["server"])
        port = given.get("port", "")
        if not given.get("host") or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise InputError("mtapi credentials", sorted(given), "server, or host and port (1 to 65535)",
                             "add server as the terminal spells it, e.g. MetaQuotes-Demo")
        return Login(given["user"], password, host=given["host"], port=int(port))

    def request(self, timeout: float) -> tuple[str, list[tuple[str, str]]]:
        """Return path and query of the login; the query holds the password."""
        query = [("user", self.user), ("password", self.password.reveal())]
        wait = ("connectTimeoutSeconds", str(max(1, int(timeout) - 1)))
        if self.server is not None:
            return "/ConnectEx", [*query, ("server", self.server), wait]
        return "/Connect", [*query, ("host", str(self.host)), ("port", str(self.port)), wait]


@dataclass(slots=True)
class Session:
    """One account at one bridge. Calls may run at once; logins never do.

    Args:
        http: where the bridge is.
        login: who we are.
        budget: every request is paid from it.
    """

    http: Http
    login: Login
    budget: RateBudget
    _token: Secret | None = None
    _logins: int = 0  # tells a caller whether another one has logged in since: the token itself stays the same
    _refused: CredentialsRefusedError | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_open(self) -> bool:
        """Whether we hold a token that is not known to be lost."""
        return self._token is not None

    async def open(self) -> None:
        """Log in unless we are; a refused login is never tried again."""
        async with self._lock:
            if self._token is None:
                await self._log_in()

    async def close(self) -> None:
        """Log out and close the sockets; a session that is dead already is closed all the same."""
        token, self._token = self._token, None
        try:
            if token is not None:
                await self._ask("/Disconnect", [("id", token.reveal())])
        except CandlelakeError:
            pass  # the bridge forgets idle sessions by itself
        finally:
            await self.http.aclose()

    async def call(self, path: str, parameters: Parameters = ()) -> tuple[Any, Answer]:
        """Read once; when the bridge has lost the session, bring it back and read once more.

        Returns:
            The parsed answer, and the answer it came from.

        Raises:
            CandlelakeError: what the answer, or its absence, means.
        """
        logins, token = self._logins, self._token
        if token is None:
            raise SessionLostError(f"{self.http.host}: no session; connect first")
        try:
            return await self._ask(path, [("id", token.reveal()), *parameters])
        except SessionLostError:
            token = await self._revive(logins)
        return await self._ask(path, [("id", token.reveal()), *parameters])

    async def send(self, path: str, parameters: Parameters) -> Answer:
        """Ask once for what must not be done twice, and return the answer unread: nothing is tried again here.

        Raises:
            SessionLostError: not connected; nothing was sent.
            CandlelakeError: no answer came; whether the request did is unknown.
        """
        if self._token is None:
            raise SessionLostError(f"{self.http.host}: no session; connect first")
        async with self.budget.spend():
            return await self.http.get(path, [("id", self._token.reveal()), *parameters])

    @property
    def secrets(self) -> list[Secret]:
        """What must not show in a message, whatever the bridge echoes."""
        return [self.login.password, self._token or Secret("")]

    async def token(self) -> Secret:
        """Return the session's token, for a web socket; SessionLostError before `open`.

        The bridge is asked first, so that a token that it has forgotten is brought back.
        """
        await self.call("/CheckConnect")
        if self._token is None:
            raise SessionLostError(f"{self.http.host}: no session; connect first")
        return self._token

    async def _revive(self, logins: int) -> Secret:
        """Bring the session back by the cheapest way that works: check, reconnect by token, log in."""
        async with self._lock:
            if self._token is not None and self._logins != logins:
                return self._token
            for path in ("/CheckConnect", "/ConnectByToken"):
                if self._token is not None and await self._answers(path, self._token):
                    self._logins += 1
                    return self._token
            self._token = None
            return await self._log_in()

    async def _answers(self, path: str, token: Secret) -> bool:
        try:
            answer, _ = await self._ask(path, [("id", token.reveal())])
        except (CredentialsRefusedError, RateLimitedError):
            raise
        except TransientError:
            return False
        return bool(answer in ("OK", token.reveal()))

    async def _log_in(self) -> Secret:
        if self._refused is not None:
            raise self._refused
        path, query = self.login.request(self.http.timeout)
        try:
            token, _ = await self._ask(path, query)
        except CredentialsRefusedError as error:
            self._refused = error
            raise
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise BadPayloadError(f"{self.http.host} answered the login with something else than a token")
        self._token = Secret(token)
        self._logins += 1
        return self._token

    async def _ask(self, path: str, query: Parameters) -> tuple[Any, Answer]:
        async with self.budget.spend():
            answer = await self.http.get(path, query)
        try:
            return self._read(answer), answer
        except RateLimitedError as error:
            await self.budget.penalise(error.retry_after or 1.0)
            raise

    def _read(self, answer: Answer) -> Any:
        """Return an answer's value: JSON, or the text of the few endpoints that speak plain text."""
        body = answer.body.strip()
        if not body.startswith(b"{"):
            answer.check_status()
        if body[:1] not in {b"{", b"["} and _WORD.fullmatch(answer.text()):
            return _scalar(answer.text())
        try:
            value = parse_json(body, answer.host)
        except BadPayloadError:
            answer.check_status()
            raise
        if is_failure(value):
            raise failure(value, answer.host, self.secrets)
        answer.check_status()
        return value


_NUMBER: Final = re.compile(r"-?[0-9]{1,6}(?:\.[0-9]{1,6})?")


def _scalar(text: str) -> str | float | bool:
    """Return a bare answer: a number (`/ServerTimezone`), true or false, or a text with or without quotes."""
    if _NUMBER.fullmatch(text):
        return float(text)
    return text == "true" if text in {"true", "false"} else unquote(text)

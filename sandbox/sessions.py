"""Logins and tokens of the practice broker, as the mtapi bridge keeps them."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import Final

from sandbox.box import Account, Ask

_SPACE: Final = uuid.UUID("6f6c1f0e-3f5c-5d0a-9d0a-2a6b4b1c9e10")


class RefusalError(Exception):
    """An answer of the bridge that is its error object; `code` as its enum names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Login:
    """One session: its account, and when it was last used (monotonic seconds)."""

    account: Account
    used: float
    is_open: bool = True


@dataclass(slots=True)
class Sessions:
    """The sessions of one platform, by token. Tokens are the same for the same account, at every start."""

    platform: str
    logins: dict[str, Login] = field(default_factory=dict)

    def open(self, ask: Ask) -> str:
        """Log in and return the token; RefusalError when the bridge would refuse."""
        server, user = ask.text("server"), ask.whole("user", 0)
        if "server" in {name for name, _ in ask.query} or not ask.text("host"):
            names = {account.server for account in ask.box.accounts}
            if server not in names:
                raise RefusalError("DONE", f"Server '{server}' not found: neither /Search nor /SearchMQ has it")
        found = [account for account in ask.box.accounts
                 if account.user == user and account.password == ask.text("password")
                 and server in {"", account.server}]
        if not found:
            raise RefusalError("INVALID_ACCOUNT", "Invalid account")
        token = ask.text("id") or str(uuid.uuid5(_SPACE, f"{self.platform}:{user}"))
        self.logins[token] = Login(found[0], time.monotonic())
        return token

    def revive(self, ask: Ask) -> str:
        """Bring a session back by its token, closed or expired."""
        token = _token(ask)
        login = self.logins.get(token)
        if login is None:
            raise RefusalError("INVALID_TOKEN", f"Client with id {token} not found")
        login.is_open, login.used = True, time.monotonic()
        return token

    def close(self, ask: Ask) -> None:
        """Log out."""
        self.check(ask).is_open = False

    def check(self, ask: Ask) -> Login:
        """Return the session that a request names; RefusalError when there is none, or it was idle too long."""
        token = _token(ask)
        login = self.logins.get(token)
        now = time.monotonic()
        if login is not None and now - login.used > ask.box.switches.idle_seconds:
            login.is_open = False
        if login is None or not login.is_open:
            raise RefusalError("INVALID_TOKEN", f"Client with id {token} not found")
        login.used = now
        return login


def _token(ask: Ask) -> str:
    token = ask.text("id")
    if not token:
        raise RefusalError("NULL_ARGUMENT", "Value cannot be null. (Parameter 'id')")
    return token

"""How a client is let in by a Prefect server: HTTP Basic where it asks for a login, a token for each change where it wants one."""

from __future__ import annotations

import secrets
from collections.abc import Generator

import httpx


class PrefectLogin(httpx.Auth):
    """Login at the API at `url`; `auth` is `user:password`, or None where the server asks for none.

    A server with CSRF protection refuses each change without a token of its own. The first refusal fetches one, and so
    does its end, an hour later; servers without protection are never asked for it.
    """

    requires_response_body = True

    def __init__(self, url: str, auth: str | None = None) -> None:
        user, _, password = (auth or "").partition(":")
        self._basic = httpx.BasicAuth(user, password) if auth else httpx.Auth()
        self._token_url = f"{url.rstrip('/')}/csrf-token"
        self._client = secrets.token_hex(16)
        self._token: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request with login and token; refused for its token, fetch a new one and send it once more."""
        request.headers.update(self._token)
        refused = yield from self._send(request)
        if refused.status_code != httpx.codes.FORBIDDEN or request.method == "GET":
            return
        asked = httpx.Request("GET", self._token_url, params={"client": self._client})
        told = yield from self._send(asked)
        if told.is_success:
            self._token = {"Prefect-Csrf-Client": self._client, "Prefect-Csrf-Token": told.json()["token"]}
            request.headers.update(self._token)
            yield request

    def _send(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, httpx.Response]:
        return (yield next(self._basic.auth_flow(request)))

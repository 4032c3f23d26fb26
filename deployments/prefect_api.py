"""A small client of the parts of Prefect's API that deploying needs; its errors are core's."""

from __future__ import annotations

import time
from typing import Any, Self
from uuid import UUID

import httpx

from core.errors import (
    BadPayloadError,
    InputError,
    NetworkError,
    NotFoundError,
    NotPermittedError,
    ProviderUnavailableError,
)
from deployments.prefect_login import PrefectLogin

LOOK_SECONDS = 0.25
BUSY_WAITS = (0.2, 0.5, 1.0, 2.0, 4.0)  # on SQLite the server answers 503 while its database is locked
Json = Any


class PrefectApi:
    """Prefect's API at `url` (`http://host:4200/api`); `auth` is `user:password` of a server that asks for it."""

    def __init__(self, url: str, auth: str | None = None, timeout: float = 30.0) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError("API URL", url, "http(s)://HOST:PORT/api", "set PREFECT_API_URL or give --api-url")
        self.url = url.rstrip("/")
        # trust_env: a proxy may stand before a remote server, never before loopback (httpx knows NO_PROXY only)
        is_local = httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
        self._client = httpx.Client(
            base_url=self.url, timeout=timeout, trust_env=not is_local, auth=PrefectLogin(self.url, auth))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def wait_until_healthy(self, seconds: float) -> None:
        """Wait until the server answers.

        Raises:
            ProviderUnavailableError: it does not in time.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                if self._client.get("/health").is_success:
                    return
            except httpx.TransportError:
                pass  # not up yet
            if time.monotonic() > deadline:
                raise ProviderUnavailableError(f"no Prefect server at {self.url} within {seconds:.0f} s; is it running?")
            time.sleep(LOOK_SECONDS)

    def get(self, path: str) -> Json | None:
        """Return what lies at `path`, None when nothing does."""
        response = self._send("GET", path)
        return None if response.status_code == httpx.codes.NOT_FOUND else self._checked(response)

    def deployment_id(self, name: str) -> UUID:
        """Return the id of the deployment `name/name`.

        Raises:
            NotFoundError: the server has none of this name.
        """
        found = self.get(f"/deployments/name/{name}/{name}")
        if found is None:
            raise NotFoundError(f"Prefect at {self.url} has no deployment {name}; run python -m deployments.apply")
        return UUID(found["id"])

    def post(self, path: str, body: Json) -> Json:
        """Create something, or ask with a filter; return the answer."""
        return self._checked(self._send("POST", path, body))

    def patch(self, path: str, body: Json) -> None:
        """Change the given fields only."""
        self._checked(self._send("PATCH", path, body))

    def put(self, path: str, body: Json) -> None:
        """Replace something."""
        self._checked(self._send("PUT", path, body))

    def delete(self, path: str) -> None:
        """Remove something; gone already is done."""
        response = self._send("DELETE", path)
        if response.status_code != httpx.codes.NOT_FOUND:
            self._checked(response)

    def _send(self, method: str, path: str, body: Json = None) -> httpx.Response:
        try:
            for wait in BUSY_WAITS:
                response = self._client.request(method, path, json=body)
                if response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                    return response
                time.sleep(wait)
            return self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise NetworkError(f"no answer of Prefect at {self.url}: {str(error) or type(error).__name__}; is it running?") from error

    def _checked(self, response: httpx.Response) -> Json:
        code, what = response.status_code, f"{response.request.method} {response.request.url.path}"
        if code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise NotPermittedError(f"Prefect at {self.url} refuses {what} ({code}); set PREFECT_API_AUTH_STRING")
        if code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ProviderUnavailableError(f"Prefect at {self.url} answers {code} to {what}; see its log")
        if response.is_error:
            raise InputError(what, response.text[:300], "what Prefect's API takes", f"it answered {code}")
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise BadPayloadError(f"{self.url} does not answer in JSON to {what}; is it Prefect's API?") from error

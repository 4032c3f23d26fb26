"""Errors leave here as one line with an id: JSON under /api, a page elsewhere. What was sent is never sent back."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from console.guard import is_for_programs
from console.policy import SignInError
from console.rendering import page
from core.errors import (
    CandlelakeError,
    CredentialsRefusedError,
    InputError,
    NotFoundError,
    NotPermittedError,
    RateLimitedError,
    TransientError,
)
from core.secrets import redact

_NAME: Final = re.compile(r"[a-z_]{1,30}|\d{1,6}")
log = logging.getLogger("candlelake.console")
_STATUS: Final[tuple[tuple[type[CandlelakeError], int], ...]] = (
    (SignInError, 401), (CredentialsRefusedError, 401), (NotPermittedError, 403), (NotFoundError, 404), (InputError, 422),
    (RateLimitedError, 429), (TransientError, 503), (CandlelakeError, 409),
)


def status_of(error: CandlelakeError) -> int:
    """Return the HTTP status that an error is answered with."""
    return next(status for kind, status in _STATUS if isinstance(error, kind))


def install(app: FastAPI) -> None:
    """Let the app answer every error in our way."""
    app.add_exception_handler(CandlelakeError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    if isinstance(error, SignInError) and not is_for_programs(request.url.path) and request.method == "GET":
        return RedirectResponse("/login", 303)
    status = status_of(error) if isinstance(error, CandlelakeError) else 500
    headers = {}
    if isinstance(error, TransientError) and error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return _answer(request, status, redact(str(error)), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Name the field and the rule; the value may be a secret in the wrong place."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "not valid"}
    names = [str(part) for part in first["loc"] if part not in {"body", "query", "path"}]
    # A key that the sender made up may be a secret in the wrong place, too: it is told only when it looks like a name.
    where = ".".join(name if _NAME.fullmatch(name) else "an unknown field" for name in names) or "the request"
    return _answer(request, 422, f"{where}: {first['msg']}", {})


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {"allow": error.headers["Allow"]} if isinstance(error, HTTPException) and error.headers and "Allow" in error.headers else {}
    return _answer(request, status, {400: "the body is not what its content type says; send it whole and valid", 404: "there is no such page", 405: "this method is not allowed here", 413: "the body is too large"}.get(status, "not possible"), headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    log.error("error %s: %s: %s", number, type(error).__name__, redact(str(error)))
    return _answer(request, 500, f"an unexpected error, number {number}; the console's log says more", {})


def _answer(request: Request, status: int, message: str, headers: dict[str, str]) -> Response:
    if is_for_programs(request.url.path):
        return JSONResponse({"error": message}, status, headers)
    response = page(request, "error.html", {"status": status, "message": message}, status=status)
    response.headers.update(headers)
    return response

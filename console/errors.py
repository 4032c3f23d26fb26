"""Errors leave here as one line with an id: JSON under /api, a page elsewhere. What was sent is never sent back."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Mapping
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from console.guard import is_for_programs
from console.identity import Identity
from console.policy import SignInError
from console.problems import INPUT, UNEXPECTED, Kind, kind_of, kind_of_status
from console.rendering import page
from core.errors import CandlelakeError, NotPermittedError, TransientError
from core.secrets import redact

_NAME: Final = re.compile(r"[a-z_]{1,30}|\d{1,6}")
log = logging.getLogger("candlelake.console")


def install(app: FastAPI) -> None:
    """Let the app answer every error in our way."""
    app.add_exception_handler(CandlelakeError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> Response:
    if isinstance(error, SignInError) and not is_for_programs(request.url.path) and request.method == "GET":
        return RedirectResponse("/login", 303)
    if isinstance(error, NotPermittedError):
        who = getattr(request.state, "identity", None)
        log.warning("refused: %s %s by %s: %s", request.method, redact(request.url.path)[:200], who.user.name if isinstance(who, Identity) else "nobody",
                    redact(str(error)))
    kind = kind_of(error) if isinstance(error, CandlelakeError) else UNEXPECTED
    headers = {}
    if isinstance(error, TransientError) and error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    return _answer(request, kind, redact(str(error)), headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """Name the field and the rule; the value may be a secret in the wrong place."""
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": "not valid"}
    names = [str(part) for part in first["loc"] if part not in {"body", "query", "path"}]
    # A key that the sender made up may be a secret in the wrong place, too: it is told only when it looks like a name.
    where = ".".join(name if _NAME.fullmatch(name) else "an unknown field" for name in names) or "the request"
    return _answer(request, INPUT, f"{where}: {first['msg']}")


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {"allow": error.headers["Allow"]} if isinstance(error, HTTPException) and error.headers and "Allow" in error.headers else {}
    kind, message = kind_of_status(status)
    return _answer(request, kind, message, headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    log.error("error %s: %s: %s", number, type(error).__name__, redact(str(error)))
    return _answer(request, UNEXPECTED, f"an unexpected error, number {number}; the console's log says more")


def _answer(request: Request, kind: Kind, message: str, headers: Mapping[str, str] | None = None) -> Response:
    if is_for_programs(request.url.path):
        return JSONResponse(kind.body(message), kind.status, dict(headers or {}))
    response = page(request, "error.html", {"kind": kind, "message": message}, status=kind.status)
    response.headers.update(headers or {})
    return response

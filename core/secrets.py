"""Secrets are kept from view by type: a `Secret` prints as stars wherever it goes, and logs are redacted as a second line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from typing import Final, NoReturn
from urllib.parse import quote, quote_plus

MASK: Final = "********"
_LEAST_MASKED: Final = 4  # characters; to mask shorter ones would garble the text and hide nothing
_NAMES = r"(?:pass(?:word|wd|phrase)?|secret|api_?key|api-key|apikey|token|signature|otp|authorization|auth)"
_QUERY = re.compile(rf"([?&;\s\"'{{,(]|^)({_NAMES}[\"']?\s*[=:]\s*[\"']?)([^&\s\"',;)}}]+)", re.IGNORECASE)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/@\s]+@", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Secret:
    """A text that shows as stars in repr, str, logs, JSON and pickles; `reveal()` is the only way to it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text itself; call it as late as possible and never in a message."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")


def redact(text: str) -> str:
    """Return `text` with the values of secret-looking names and URL user parts masked, and control characters dropped.

    For texts that come from elsewhere (errors of libraries, provider answers); our own code never puts a secret in one.
    """
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    return _CONTROL.sub(" ", _QUERY.sub(rf"\1\2{MASK}", text))


def mask(text: str, secrets: Iterable[Secret]) -> str:
    """Return `text` with known secrets masked, also where a provider echoes them URL-encoded or as JSON."""
    for secret in secrets:
        value = secret.reveal()
        forms = {value, quote(value), quote(value, safe=""), quote_plus(value), json.dumps(value)[1:-1]}
        for form in sorted(forms, key=len, reverse=True):
            if len(form) >= _LEAST_MASKED:
                text = text.replace(form, MASK)
    return text


class RedactingFilter(logging.Filter):
    """Redacts every record that passes: the last line of defence, behind `Secret`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record's message in place and let it pass."""
        record.msg = redact(record.getMessage())
        record.args = None
        return True


def quiet_library_logs() -> None:
    """Silence libraries that log full URLs (with passwords and signatures in the query)."""
    for name in ("httpx", "httpcore", "uvicorn.access", "ccxt", "ccxt.base.exchange", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)

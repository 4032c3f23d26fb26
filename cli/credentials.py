"""Takes credentials from a person, a file or stdin, never from the command line: other programs can read that one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from core.secrets import Secret

LIMIT = 64 * 1024  # bytes; a larger file is not a set of credentials
ASK = "ask"


def read_credentials(source: str, provider: str) -> dict[str, Secret]:
    """Return a provider's credentials: asked for, or a JSON object of texts from a file or, for `-`, from stdin.

    Values become secrets and are never part of a message.

    Raises:
        InputError: there is nobody to ask; the file cannot be read, or holds something else; no provider has that name.
    """
    from core.secrets import Secret

    fields = _asked(provider) if source == ASK else _read(source)
    return {name: Secret(value) for name, value in fields.items()}


def _asked(provider: str) -> dict[str, str]:
    from connections.choices import describe_provider
    from core.errors import InputError

    able = describe_provider(provider)
    if not (able.credentials or able.optional_credentials):
        raise InputError("--credentials", ASK, f"none: {provider} takes no credentials", "leave it out")
    if not sys.stdin.isatty():
        raise InputError("--credentials", ASK, "a terminal to ask on", "give a file, or - for stdin")
    typer.echo(f"credentials of {provider}; what you type is not shown, Enter leaves a field out", err=True)
    answers = {
        name: typer.prompt(name, default="", hide_input=True, show_default=False, err=True)
        for name in (*able.credentials, *able.optional_credentials)}
    return {name: answer for name, answer in answers.items() if answer}


def _read(source: str) -> dict[str, str]:
    from core.errors import InputError

    allowed = 'a JSON object of texts, e.g. {"user": "...", "password": "..."}'
    try:
        raw = sys.stdin.read(LIMIT + 1) if source == "-" else _read_text(Path(source))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError("--credentials", source, "ask, a readable file, or - for stdin", str(reason)) from None
    if len(raw) > LIMIT:
        raise InputError("--credentials", source, f"at most {LIMIT} bytes", "this is not a credentials file")
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        raise InputError("--credentials", source, allowed, "it holds no JSON") from None
    if not isinstance(fields, dict):
        raise InputError("--credentials", source, allowed, f"it holds a {type(fields).__name__}")
    for name, value in fields.items():
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise InputError("--credentials", source, allowed, f"the field {name!r} is no text")
    return {name: str(value) for name, value in fields.items()}


def _read_text(path: Path) -> str:
    with path.open(encoding="utf-8") as stream:
        return stream.read(LIMIT + 1)

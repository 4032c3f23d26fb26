"""Commands that look at the installation: health, doctor, config."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import note, print_json, print_rows
from cli.processes import is_port_free

if TYPE_CHECKING:
    from core.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout and nothing else.")]
HEALTH = ("connection", "status", "reason", "last_candle", "lag_seconds", "gaps", "stream")
PINNED = {"prefect": "3.8.8", "fastapi": "0.150.0"}  # the server fails or schedules nothing with others
LEAST_FREE_BYTES = 1024**3


def register(app: typer.Typer) -> None:
    """Add this module's commands to `app`."""
    for command in (health, doctor, config):
        app.command()(command)


def health(as_json: Json = False) -> int:
    """Show whether each connection delivers; exit 1 when an active one does not."""
    from core.clock import isoformat
    from feed import open_feed, upkeep

    with open_feed() as feed:
        found = upkeep.check_health(feed)
        wanted = {row.slug for row in feed.connections.list() if row.is_active}
        now_us = feed.clock.now_us()
    rows = [
        {"connection": row.slug, "status": row.status, "reason": row.reason,
         "last_candle": None if row.last_candle_us is None else isoformat(row.last_candle_us),
         "lag_seconds": row.lag_seconds, "gaps": row.gaps,
         "stream": row.stream_line if not as_json else None if row.stream is None else row.stream.as_dict(now_us)}
        for row in found
    ]
    print_rows(rows, HEALTH, as_json=as_json, empty="no connections yet: candlelake connections add")
    return 1 if any(row["status"] in {"error", "stale", "failing"} and row["connection"] in wanted for row in rows) else 0


def config(as_json: Json = False) -> None:
    """Show the effective settings; secrets are masked."""
    rows = effective_settings()
    if as_json:
        print_json({row["setting"]: row["value"] for row in rows})
    else:
        print_rows(rows, ("setting", "value", "from", "meaning"), as_json=False)


def effective_settings() -> list[dict[str, object]]:
    """Return each setting with its value (secrets masked), where it comes from and what it means."""
    from pydantic import SecretStr

    from core.secrets import MASK
    from core.settings import settings

    current = settings()
    rows: list[dict[str, object]] = []
    for name, field in type(current).model_fields.items():
        value = getattr(current, name)
        shown = MASK if isinstance(value, SecretStr) else str(value) if isinstance(value, Path) else value
        variable = f"CANDLELAKE_{name.upper()}"
        origin = "environment" if os.environ.get(variable) else ".env" if name in current.model_fields_set else "default"
        rows.append({"setting": variable, "value": shown, "from": origin, "meaning": field.description})
    return rows


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of `doctor`: ok, warning or error, and what to do."""

    check: str
    status: str
    message: str


def doctor(as_json: Json = False) -> int:
    """Check Python, packages, home, keys, ports and Prefect's exposure; exit 1 when something will not work."""
    from core.settings import settings

    findings = list(examine(settings()))
    rows = [{"check": item.check, "status": item.status, "message": item.message} for item in findings]
    print_rows(rows, ("check", "status", "message"), as_json=as_json)
    errors = sum(item.status == "error" for item in findings)
    if errors:
        note(f"{errors} of {len(findings)} checks failed; each line says what to do")
    return 1 if errors else 0


def examine(current: Settings) -> Iterator[Finding]:
    """Yield the findings about this installation; nothing is changed and nothing is asked over the network."""
    yield _python()
    yield from _packages()
    checks: tuple[Callable[[Settings], Finding], ...] = (_home, _space, _database, _key_file)
    for check in checks:
        yield check(current)
    yield from _ports(current)
    yield _prefect_exposure()
    yield _console_exposure(current)


def _python() -> Finding:
    found = ".".join(str(part) for part in sys.version_info[:3])
    return Finding("python", "ok", found)


def _packages() -> Iterator[Finding]:
    for name, wanted in PINNED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, "error", f"not installed; run: pip install {name}=={wanted}")
            continue
        if found == wanted:
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "warning", f"{found} is untested; the lock file says {wanted}; run: make run")


def _home(current: Settings) -> Finding:
    home = current.home.absolute()
    existing = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        return Finding("home", "error", f"{home} cannot be written; set CANDLELAKE_HOME to a folder of yours")
    return Finding("home", "ok", f"{home}" if home.exists() else f"{home} (will be made)")


def _space(current: Settings) -> Finding:
    home = current.home.absolute()
    free = shutil.disk_usage(next(path for path in (home, *home.parents) if path.exists())).free
    text = f"{free / 1024**3:.1f} GiB free"
    if free < LEAST_FREE_BYTES:
        return Finding("space", "warning", f"{text}; free some, a full disk stops all fetching")
    return Finding("space", "ok", text)


def _database(current: Settings) -> Finding:
    if current.metadata_url is not None:
        return Finding("metadata", "ok", "at CANDLELAKE_METADATA_URL; `candlelake health` opens it")
    path = current.home / "metadata.db"
    if not path.exists():
        return Finding("metadata", "ok", "will be made")
    try:
        with closing(sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)) as database:
            answer = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return Finding("metadata", "error", f"{path}: {error}; restore a backup, or set the database aside and run: candlelake audit --rebuild")
    if answer != "ok":
        return Finding("metadata", "error", f"{path}: {answer}; restore a backup, or set the database aside and run: candlelake audit --rebuild")
    return Finding("metadata", "ok", str(path))


def _key_file(current: Settings) -> Finding:
    if current.keys is not None:
        return Finding("keys", "ok", "from CANDLELAKE_KEYS")
    path = current.key_file
    if path is None or not path.exists():
        return Finding("keys", "ok", "key file is made with the first credentials" if path is None else f"{path} will be made")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        return Finding("keys", "error", f"{path} has mode {mode:04o}: others can read it; run: chmod 600 {path}")
    return Finding("keys", "ok", str(path))


def _ports(current: Settings) -> Iterator[Finding]:
    for name in ("prefect_port", "sandbox_port", "console_port"):
        port = getattr(current, name)
        if is_port_free(port):
            yield Finding(name, "ok", f"{port} is free")
        else:
            yield Finding(name, "warning",
                          f"{port} is in use (is `candlelake up` running?); else set CANDLELAKE_{name.upper()}")


def _prefect_exposure() -> Finding:
    host = os.environ.get("PREFECT_SERVER_API_HOST", "127.0.0.1")
    if host in {"127.0.0.1", "localhost", "::1"}:
        return Finding("prefect exposure", "ok", f"server binds {host}")
    lacking = [name for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS",
                                 "PREFECT_SERVER_CSRF_PROTECTION_ENABLED") if not os.environ.get(name)]
    if lacking:
        return Finding("prefect exposure", "warning", f"server binds {host} without {', '.join(lacking)}; set them")
    return Finding("prefect exposure", "ok", f"server binds {host} with auth, CORS list and CSRF")


def _console_exposure(current: Settings) -> Finding:
    host = current.console_bind
    if host.startswith("127.") or host == "::1":
        return Finding("console exposure", "ok", f"console binds {host}")
    if not (current.console_url or "").startswith("https://"):
        return Finding("console exposure", "warning",
                       f"console binds {host} without CANDLELAKE_CONSOLE_URL at https://...; put a TLS proxy before it and name its address")
    if not current.console_proxies:
        return Finding("console exposure", "warning",
                       f"console binds {host} without CANDLELAKE_CONSOLE_PROXIES: all people share the proxy's address, and its limit of sign-ins")
    return Finding("console exposure", "ok", f"console binds {host} behind {current.console_url}")

"""What people do on the command line, in the audit log: written in the deed's own transaction, as the console writes its own."""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.audit import Outcome, Witness


def person() -> str:
    """Return the name of whoever is logged in at this machine, their number where it has no name (in a container)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def witness(action: str, subject: str, now_us: int, **detail: object) -> Witness:
    """Return what writes a deed down in the transaction that does it."""
    return _writer(action, subject, now_us, "done", detail)


def begun(action: str, subject: str, now_us: int, **detail: object) -> Witness:
    """Return what writes down that a deed of many transactions begins; `witness` tells its end."""
    return _writer(action, subject, now_us, "begun", detail)


def _writer(action: str, subject: str, now_us: int, outcome: Outcome, detail: Mapping[str, object]) -> Witness:
    def write(tx: Connection) -> None:
        from storage import audit

        audit.record(tx, f"cli:{person()}", "cli", action, subject, outcome, now_us, **detail)

    return write

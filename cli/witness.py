"""What people do on the command line, in the audit log: written in the deed's own transaction, as the console writes its own."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage import Lake
    from storage.audit import Outcome, Witness


def person() -> str:
    """Return the name of the account that this process has, their number where it has no name (in a container).

    Not by LOGNAME or USER: anybody can set those, and pass for another in the audit log.
    """
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def witness(action: str, subject: str, now_us: int, outcome: Outcome = "done", /, **detail: object) -> Witness:
    """Return what writes a deed down in the transaction that does it."""
    def write(tx: Connection) -> None:
        from storage import audit

        audit.record(tx, f"cli:{person()}", "cli", action, subject, outcome, now_us, **detail)

    return write


@contextmanager
def deed(lake: Lake, action: str, subject: str, **detail: object) -> Iterator[dict[str, object]]:
    """Write down that a deed of many transactions begins, and then how it ended: the body puts what came of it into the dict it is given."""
    from core.errors import CandlelakeError

    def write(outcome: Outcome, told: dict[str, object]) -> None:
        with lake.metadata.write() as tx:
            witness(action, subject, lake.clock.now_us(), outcome, **told)(tx)

    result: dict[str, object] = {}
    write("begun", detail)
    try:
        yield result
    except CandlelakeError as error:
        write("failed", {"error": str(error)})
        raise
    write("done", result)

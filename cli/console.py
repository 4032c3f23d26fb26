"""`candlelake console`: the web console alone, without the rest of the stack."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli.output import note


def register(app: typer.Typer) -> None:
    """Add this module's command to `app`."""
    app.command()(console)


def console(port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port on loopback; default CANDLELAKE_CONSOLE_PORT.")] = None) -> None:
    """Serve the web console on loopback until Ctrl-C; runs are ordered at the Prefect server of `candlelake up`."""
    from cli.processes import is_port_free
    from core.errors import StoreBusyError
    from core.settings import settings

    chosen = port or settings().console_port
    if not is_port_free(chosen):
        raise StoreBusyError(f"port {chosen} on 127.0.0.1 is in use; end what uses it, or give --port")
    print_first_code()
    note(f"console at http://127.0.0.1:{chosen}; Ctrl-C ends it")
    environment = {**os.environ, "CANDLELAKE_CONSOLE_PORT": str(chosen), "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "console"], environment)  # noqa: S606  this process becomes the server


def print_first_code() -> None:
    """Print the one-time code of the first admin while nobody is there."""
    from storage import access, open_lake, people

    with open_lake() as lake, lake.metadata.write() as tx:
        if people.has_users(tx):
            return
        code = access.make_code(tx, "setup", None, lake.clock.now_us())
    note(f"first admin: open /setup in the console with the one-time code {code.reveal()}")

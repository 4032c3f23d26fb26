"""`candlelake console`: the web console alone, without the rest of the stack."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli.output import note
from cli.witness import witness


def register(app: typer.Typer) -> None:
    """Add this module's command to `app`."""
    app.command()(console)


def console(port: Annotated[int | None, typer.Option(min=1, max=65535, help="default CANDLELAKE_CONSOLE_PORT.")] = None) -> None:
    """Serve the web console at CANDLELAKE_CONSOLE_BIND until Ctrl-C; runs are ordered at PREFECT_API_URL, by default the server of `up`."""
    from cli.processes import is_port_free
    from core.errors import StoreBusyError
    from core.settings import settings

    chosen, host = port or settings().console_port, settings().console_bind
    if not is_port_free(chosen, host):
        raise StoreBusyError(f"port {chosen} cannot be had on {host}; end what uses it, give --port, or see CANDLELAKE_CONSOLE_BIND")
    print_first_code()
    note(f"console at http://{f'[{host}]' if ':' in host else host}:{chosen}; Ctrl-C ends it")
    environment = {**os.environ, "CANDLELAKE_CONSOLE_PORT": str(chosen), "PYTHONSAFEPATH": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "console"], environment)  # noqa: S606  this process becomes the server


def print_first_code() -> None:
    """Print the one-time code of the first admin while nobody is there."""
    from storage import access, open_lake, people

    with open_lake() as lake, lake.metadata.write() as tx:
        if people.has_users(tx):
            return
        code = access.make_code(tx, "setup", None, lake.clock.now_us())
        witness("user.code", "first admin", lake.clock.now_us())(tx)
    note(f"first admin: open /setup in the console with the one-time code {code.reveal()}")

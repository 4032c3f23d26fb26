"""The practice broker and exchanges."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.output import note

app = typer.Typer(no_args_is_help=True, help="Practice broker and exchanges over real data.")


@app.callback()
def _group() -> None:
    """Practice broker and exchanges over real data."""


@app.command()
def serve(
    data: Annotated[
        Path | None, typer.Option(help="Folder of <VENUE>_<SYMBOL>_<timeframe>.parquet; the bundled data without it.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default CANDLELAKE_SANDBOX_PORT.")] = None,
    mode: Annotated[
        str, typer.Option(help="history: as recorded; replay: shifted so that its present is now.")] = "history",
) -> None:
    """Serve mtapi at /mt5 and /mt4 and exchanges at /<host>/<path> on loopback until Ctrl-C."""
    from core.errors import InputError, StoreUnwritableError
    from core.settings import settings
    from sandbox.server import running

    if mode not in {"history", "replay"}:
        raise InputError("--mode", mode, "history, replay", "use one of those")
    if data is not None and not data.is_dir():
        raise InputError("--data", str(data), "a folder that exists", "check the path")
    chosen: Literal["history", "replay"] = "replay" if mode == "replay" else "history"
    number = port or settings().sandbox_port
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    try:
        with running(data=data, port=number, mode=chosen) as box:
            note(f"sandbox at {box.url} (mtapi: {box.url}/mt5, exchanges: {box.url}/<host>/<path>); Ctrl-C stops it")
            for venue, symbols in box.served().items():
                note(f"served at {venue}: {', '.join(symbols)}")
            for problem in box.problems:
                note(f"left out: {problem}")
            stop.wait()
    except OSError as error:
        raise StoreUnwritableError(
            f"port {number} cannot be used: {error.strerror}; choose another with --port or CANDLELAKE_SANDBOX_PORT") from error

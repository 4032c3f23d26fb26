"""The entry of the command line, and its outermost border: every error leaves here as one line and an exit code.

Command modules import the floors below inside their functions, so that `candlelake --help` answers at once.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Annotated

import typer

from cli import (
    connections,
    console,
    data,
    doctor,
    keys,
    markets,
    models,
    notices,
    orders,
    people,
    pipelines,
    proof,
    provenance,
    report,
    sandbox,
    tick_agreement,
    ticks,
    transfer,
    up,
    work,
)
from cli.output import note, print_error
from core.errors import CandlelakeError, InputError
from core.secrets import RedactingFilter, quiet_library_logs, redact

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="candlelake", no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None,
    help="Market data that proves itself: candles of brokers and exchanges in an open Parquet lake.",
)
for module in (up, console, work, data, provenance, proof, report, transfer, doctor, markets, ticks, tick_agreement):
    module.register(app)
app.add_typer(connections.app, name="connections")
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(keys.app, name="keys")
app.add_typer(people.users, name="users")
app.add_typer(people.tokens, name="tokens")
app.add_typer(pipelines.app, name="pipelines")
app.add_typer(orders.app, name="orders")
app.add_typer(models.app, name="models")
app.add_typer(notices.app, name="notifications")
app.command("positions")(orders.positions)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"candlelake {version('candlelake')}")
        raise typer.Exit


@app.callback()
def _root(
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and log lines; may stand anywhere.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Market data that proves itself: candles of brokers and exchanges in an open Parquet lake."""


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:  # noqa: PLR0911  one return for each way a command can end
    """Run one command line and return its exit code: 0 done, 1 failed, 2 bad usage, 3 complete with booked gaps."""
    debug = "--debug" in arguments
    _set_up_logs(debug)
    try:
        _check_text(arguments)
        return _run([item for item in arguments if item != "--debug"])
    except InputError as error:
        return _report(error, BAD_USAGE, str(error), debug=debug)
    except CandlelakeError as error:
        return _report(error, FAILED, str(error), debug=debug)
    except typer.TyperException as error:
        return _report(error, error.exit_code, _usage(error), debug=debug)
    except (KeyboardInterrupt, typer.Abort):
        note("stopped; what was reported as stored is stored, and the next run goes on from there")
        return INTERRUPTED
    except BrokenPipeError:
        _close_stdout()
        return FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _report(error, FAILED, f"{where}{error.strerror or error}; check that it exists and is yours", debug=debug)
    except Exception as error:  # noqa: BLE001  the outermost border: whatever comes here becomes one line, not a trace
        text = f"unexpected {type(error).__name__}: {error}; run with --debug and report what it shows"
        return _report(error, FAILED, text, debug=debug)


def _check_text(arguments: Sequence[str]) -> None:
    """Raise InputError for bytes that are no UTF-8, which Python hands on as halves of characters: no store and no library takes them."""
    for number, argument in enumerate(arguments, 1):
        if not argument.isascii() and argument != argument.encode(errors="replace").decode():
            raise InputError(f"argument {number}", argument, "UTF-8 text", "rename the file, or set the terminal to UTF-8")


@cache
def _commands(tree: typer.Typer) -> Callable[..., object]:
    """Return the whole tree of commands, built once: building it takes a tenth of a second."""
    return typer.main.get_command(tree)


def _run(arguments: list[str]) -> int:
    try:
        outcome = _commands(app)(arguments, prog_name="candlelake", standalone_mode=False)
    except SystemExit as stop:  # Typer's own answer to a closed pipe
        _close_stdout()
        return stop.code if isinstance(stop.code, int) else FAILED
    sys.stdout.flush()
    if outcome == INTERRUPTED:
        raise KeyboardInterrupt
    return outcome if isinstance(outcome, int) else 0


def _report(error: BaseException, code: int, text: str, *, debug: bool) -> int:
    if debug:
        print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    print_error(text)
    return code


def _usage(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    text = error.format_message().strip() or "arguments are missing"
    if "\n" in text:  # a group without its command: Typer answers with the whole page of help
        text = f"a command is missing; allowed: {', '.join(getattr(getattr(context, 'command', None), 'commands', ()))}."
    command = getattr(context, "command_path", "candlelake")
    return f"{text} See '{command} --help'."


def _set_up_logs(debug: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(RedactingFilter())
    level = logging.DEBUG if debug else logging.CRITICAL  # a run's result line says what failed
    logging.basicConfig(level=level, handlers=[handler], force=True, format="%(levelname)s %(name)s: %(message)s")
    quiet_library_logs()


def _close_stdout() -> None:
    # The reader went away; what is still buffered must not raise again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()

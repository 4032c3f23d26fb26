"""`candlelake up`: the embedded stack on one machine, from nothing to candles that a DuckDB query reads."""

from __future__ import annotations

import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import print_first_code
from cli.output import note
from cli.processes import Household, Stop, is_port_free

if TYPE_CHECKING:
    from cli.stack import Stack
    from core.settings import Settings
    from feed import Feed

LOOK_SECONDS = 1.0  # how often the children are looked at


def register(app: typer.Typer) -> None:
    """Add this module's command to `app`."""
    app.command()(up)


def up(
    once: Annotated[bool, typer.Option("--once", help="Do the main job once and exit 0.")] = False,
    no_sandbox: Annotated[
        bool, typer.Option("--no-sandbox", help="No practice broker and no demo connections; yours only.")] = False,
) -> int:
    """Start Prefect, the runner and the sandbox on loopback, fill the demo connections, keep fetching until Ctrl-C."""
    from cli.stack import Stack
    from core.settings import settings

    current = settings()
    with Stop() as stop, _home_lock(current), Household() as household:
        _check_ports(current, with_sandbox=not no_sandbox)
        stack = Stack(current, household, stop)
        try:
            _bring_up(stack, with_sandbox=not no_sandbox)
            if once:
                stack.prove_schedule()
                _flush(current)
                _summary(current, with_sandbox=not no_sandbox)
                return 0
            _summary(current, with_sandbox=not no_sandbox)
            print_first_code()
            note("fetching on schedule; Ctrl-C stops everything")
            while True:
                household.restart_dead(note)
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            note("stopping")
            return 0 if not once else 130
        finally:
            stop.hold()


@contextmanager
def _home_lock(current: Settings) -> Iterator[None]:
    """Hold the home for this `up` alone, and make the folders that it needs."""
    from filelock import FileLock, Timeout

    from core.errors import LeaseHeldError, StoreUnwritableError

    home = current.home.absolute()
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / "up.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise LeaseHeldError(
            f"candlelake up already runs on {home}; stop it first, or set CANDLELAKE_HOME to another folder") from None
    except OSError as error:
        raise StoreUnwritableError(
            f"{home} cannot be written: {error.strerror}; set CANDLELAKE_HOME to a folder of yours") from error
    try:
        yield
    finally:
        lock.release()


def _check_ports(current: Settings, *, with_sandbox: bool) -> None:
    from core.errors import InputError, StoreBusyError

    names = ["prefect_port", "console_port", *(["sandbox_port"] if with_sandbox else [])]
    ports = [getattr(current, name) for name in names]
    for place, (name, port) in enumerate(zip(names, ports, strict=True)):
        if port in ports[:place]:
            first = f"CANDLELAKE_{names[ports.index(port)].upper()}"
            raise InputError(f"CANDLELAKE_{name.upper()}", port, f"another port than {first}", "choose one for each")
    for name, port in zip(names, ports, strict=True):
        if not is_port_free(port):
            raise StoreBusyError(
                f"port {port} on 127.0.0.1 is in use; end what uses it, or set CANDLELAKE_{name.upper()} to a free one")


def _bring_up(stack: Stack, *, with_sandbox: bool) -> None:
    from cli.demo import fill_demos, prepare_demos, rest_demos
    from feed import open_feed, upkeep

    stack.start_prefect()  # takes seconds: the backfill below runs meanwhile
    if with_sandbox:
        stack.start_sandbox()
    with open_feed(stack.settings) as feed:
        _rebuild_lost_metadata(feed, stack.settings)
        if with_sandbox:
            prepare_demos(feed, stack.sandbox_url)
            fill_demos(feed)
        else:
            rest_demos(feed)
        upkeep.flush(feed)
    note("waiting for the Prefect server")
    stack.await_prefect()
    stack.start_runner()
    stack.start_console()


def _flush(current: Settings) -> None:
    from feed import open_feed, upkeep

    with open_feed(current) as feed:
        upkeep.flush(feed)


def _rebuild_lost_metadata(feed: Feed, current: Settings) -> None:
    """A home whose metadata went away while its lake stayed gets its manifest back from the files."""
    from sqlalchemy import func, select

    from storage.metadata.tables import lake_files

    files = Path(current.lake_root) / "candles"
    if current.lake_root.startswith("s3://") or next(files.rglob("*.parquet"), None) is None:
        return
    with feed.lake.metadata.read() as tx:
        known = tx.execute(select(func.count()).select_from(lake_files)).scalar_one()
    if known == 0:
        note("the lake has files that the metadata store does not know: rebuilding it from them")
        feed.lake.rebuild()


def _summary(current: Settings, *, with_sandbox: bool) -> None:
    from cli.data import coverage_rows
    from feed import open_feed

    with open_feed(current) as feed:
        rows = coverage_rows(feed.lake, None)
    stored = sum(int(str(row["stored"])) for row in rows)
    root = current.lake_root
    print(f"candles stored  {stored} in {len(rows)} series")
    print(f"lake            {root if root.startswith('s3://') else Path(root).absolute()}")
    print(f"Prefect UI      http://127.0.0.1:{current.prefect_port}")
    print(f"console         http://127.0.0.1:{current.console_port}")
    if with_sandbox:
        print(f"sandbox         http://127.0.0.1:{current.sandbox_port}")
    if stored:
        row = max(rows, key=lambda item: int(str(item["stored"])))
        series = f"'{row['connection']}','{row['symbol']}','{row['timeframe']}'"
        print(f"try             {_this_command()} query \"FROM candles({series}) ORDER BY ts DESC LIMIT 5\"")
    else:
        print(f"try             {_this_command()} connections add --help")
    sys.stdout.flush()  # in a pipe too: this process goes on


def _this_command() -> str:
    """Return how a shell in this folder calls this program: by its name where that finds it, else by its path."""
    called = Path(sys.argv[0]).absolute()
    if called.name != "candlelake":  # python -m cli.main, a test
        return "candlelake"
    found = shutil.which("candlelake")
    if found is not None and Path(found).absolute() == called:
        return "candlelake"
    here = Path.cwd()
    return shlex.quote(str(called.relative_to(here) if called.is_relative_to(here) else called))

"""The children of `candlelake up`: started by us, watched by us, and ended by the pid that we started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

from core.errors import ProviderUnavailableError
from core.secrets import redact

STOP_SECONDS = 10.0  # a child that has not ended so long after SIGTERM is killed
RESTART_WAITS = (1.0, 5.0, 15.0, 60.0)  # seconds before the 1st, 2nd, ... restart of a child that died
STEADY_SECONDS = 300.0  # a child that ran so long starts its count of restarts anew
TAIL_BYTES = 4096


def is_port_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


@dataclass(slots=True)
class Child:
    """One process of ours. `name` is what people read; its output goes to `log`."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    folder: Path | None = None  # where it works; None is where we do
    process: subprocess.Popen[bytes] | None = None
    restarts: int = 0
    started: float = 0.0  # time.monotonic

    def start(self) -> None:
        """Start it; it ends with us even when we are killed (Linux), and gets no Ctrl-C of our terminal."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  our own command line
                [sys.executable, "-P", "-m", "cli.tether", str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=dict(self.environment), cwd=self.folder,
                start_new_session=True)
        self.started = time.monotonic()

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self.process is None else self.process.poll()

    def last_words(self) -> str:
        """Return the last line of its log."""
        try:
            text = self.log.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return "its log cannot be read"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return redact(lines[-1]) if lines else "it said nothing"

    def ask_to_stop(self) -> None:
        """Send it SIGTERM."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def stop(self) -> None:
        """End it: SIGTERM, and SIGKILL when it does not go."""
        if self.process is None:
            return
        self.ask_to_stop()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(slots=True)
class Household:
    """All children of one `up`. Use it as a context manager: when it ends, they have ended, last started first."""

    children: list[Child] = field(default_factory=list)

    def start(self, child: Child) -> Child:
        """Start a child and take it in."""
        child.start()
        self.children.append(child)
        return child

    def wait_ready(self, child: Child, is_ready: Callable[[], bool], seconds: float, stop: Stop | None = None) -> None:
        """Wait until a child answers.

        Raises:
            ProviderUnavailableError: it ended, or did not answer in time; carries the last line of its log.
            StopRequested: a signal asked us to stop.
        """
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not child.is_running:
                raise ProviderUnavailableError(
                    f"{child.name} ended with code {child.exit_code}: {child.last_words()}; see {child.log}")
            if time.monotonic() > deadline:
                raise ProviderUnavailableError(
                    f"{child.name} did not answer within {seconds:.0f} s: {child.last_words()}; see {child.log}")
            if stop is not None:
                stop.check()
            time.sleep(0.1)

    def restart_dead(self, say: Callable[[str], None]) -> None:
        """Start again what has ended, after a wait that grows with each time.

        Raises:
            ProviderUnavailableError: a child died more often than waits are left.
        """
        for child in self.children:
            if child.is_running:
                if child.restarts and time.monotonic() - child.started > STEADY_SECONDS:
                    child.restarts = 0
                continue
            if child.restarts >= len(RESTART_WAITS):
                raise ProviderUnavailableError(
                    f"{child.name} ended {child.restarts + 1} times, now with code {child.exit_code}: "
                    f"{child.last_words()}; see {child.log}")
            if time.monotonic() - child.started >= RESTART_WAITS[child.restarts]:
                say(f"{child.name} ended with code {child.exit_code}: {child.last_words()}; starting it again")
                child.restarts += 1
                child.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self.children):
            child.ask_to_stop()
        for child in reversed(self.children):
            child.stop()


class StopRequested(KeyboardInterrupt):
    """We were asked to stop.

    A class of its own: Python ends a process that saw a bare KeyboardInterrupt inside the source text that it executes (as
    `dataclass` does while a module is imported) by SIGINT, although it was caught and we exit with 0.
    """


class Stop:
    """Turns the first SIGINT or SIGTERM into a request to stop; the handlers before it come back at the end."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def check(self) -> None:
        """Raise StopRequested when we were asked to stop."""
        if self.requested:
            raise StopRequested

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        raise StopRequested

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def hold(self) -> None:
        """From now on signals are noted only: what is being stopped is stopped whole."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

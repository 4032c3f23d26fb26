"""Calls foreign code that may never come back, and goes on without it after a while."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context


class OverdueError(Exception):
    """Raised when a call had not come back in time."""


def within(seconds: float, call: Callable[[], None]) -> None:
    """Run `call` and wait for it, for `seconds` at most; what it raises is raised here.

    A call that is overdue is left behind in a thread of its own: nothing can end it but the end of the process, which does not wait
    for it. What it still does to its own input is nobody's concern any more.

    Raises:
        OverdueError: it had not come back.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as failure:  # noqa: BLE001  it is raised again where it is awaited
            raised.append(failure)

    thread = threading.Thread(target=copy_context().run, args=(run,), name="candlelake-plugin", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise OverdueError
    if raised:
        raise raised[0]

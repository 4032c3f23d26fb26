"""Lines of a stream on stdout: whoever reads them slowly, or not at all, holds up no tick on its way to disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

import orjson

WAITING: Final = 100_000  # lines that may wait for the reader; later ones are left out, and that is told in their place
END_SECONDS: Final = 2.0  # for what still waits when the stream has ended


class StreamLines:
    """Writes lines to a file descriptor in a thread of its own, in their order.

    Where lines had to be left out stands `{"type": "skipped", "lines": N}`.

    Args:
        descriptor: to write to.
        on_closed: called once, in that thread, when the reader has gone.
        limit: how many lines may wait.
    """

    def __init__(self, descriptor: int, on_closed: Callable[[], object], limit: int = WAITING) -> None:
        self._descriptor, self._on_closed, self._limit = descriptor, on_closed, limit
        self._waiting: deque[bytes] = deque()
        self._left_out = 0
        self._at_writing = 0  # lines taken and not written yet
        self._is_over = False
        self._news = threading.Condition()
        self.skipped = 0
        self._writer = threading.Thread(target=self._write, name="stream lines", daemon=True)  # a reader that stands still outlives no process
        self._writer.start()

    def put(self, line: bytes) -> None:
        """Take a line; never waits."""
        with self._news:
            if self._left_out or len(self._waiting) >= self._limit:
                self._left_out += 1
                self.skipped += 1
            else:
                self._waiting.append(line)
            self._news.notify()

    def close(self, seconds: float = END_SECONDS) -> None:
        """Write what waits, for so long at most; what a reader that stands still has not taken by then counts as skipped."""
        with self._news:
            self._is_over = True
            self._news.notify()
        self._writer.join(seconds)
        with self._news:
            self.skipped += self._at_writing + len(self._waiting)

    def _write(self) -> None:
        while text := self._taken():
            view = memoryview(text)
            try:
                while view:
                    view = view[os.write(self._descriptor, view):]
            except OSError:  # the reader has gone: nobody is left to be told
                self._on_closed()
                return

    def _taken(self) -> bytes:
        """Return what waits, with a note of what was left out behind it; nothing when all is over."""
        with self._news:
            self._at_writing = 0
            while not (self._waiting or self._left_out or self._is_over):
                self._news.wait()
            lines = [*self._waiting]
            self._at_writing = len(lines)
            if self._left_out:
                lines.append(orjson.dumps({"type": "skipped", "lines": self._left_out}) + b"\n")
            self._waiting.clear()
            self._left_out = 0
            return b"".join(lines)

"""Bounds this machine's copies of what the object store holds: above the limit those go first that nobody read for longest.

What was read within the last hour stays, whatever the limit: a query may still be reading it. A copy that is gone is fetched
again by the next reader.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from storage.lake import layout

REST_SECONDS: Final = 3600.0
_STEPS: Final = 20  # looked at each time that the copies may have grown by a twentieth of the limit


class CopyLimit:
    """The limit of one open lake; safe to use from several threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._grown = 0
        self._lock = threading.Lock()

    def note(self, root: Path, size: int) -> None:
        """Count a new copy of so many bytes; now and then bring the copies below `root` back below the limit."""
        with self._lock:
            self._grown += size
            if self._grown < self.max_bytes / _STEPS:
                return
            self._grown = 0
        trim(root, self.max_bytes, _now(root))


def used(file: Path) -> None:
    """Note that a copy is read; one that goes meanwhile is fetched again."""
    try:
        os.utime(file)
    except FileNotFoundError:
        return


def trim(root: Path, max_bytes: int, now: float) -> int:
    """Delete the copies that were not read for longest until the rest fits; return how many. `now`: file system's seconds."""
    found = []
    for folder, _, names in os.walk(root / layout.CACHE):
        for name in names:
            file = Path(folder) / name
            try:
                told = file.stat()
            except FileNotFoundError:
                continue  # another process was faster
            found.append((told.st_mtime, told.st_size, file))
    total, count = sum(size for _, size, _ in found), 0
    for read_at, size, file in sorted(found):
        if total <= max_bytes or now - read_at < REST_SECONDS:
            break
        file.unlink(missing_ok=True)
        total, count = total - size, count + 1
    return count


def _now(root: Path) -> float:
    """Return the present by the clock that stamps the copies."""
    probe = root / layout.CACHE / f".now-{os.getpid()}-{threading.get_ident()}"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)

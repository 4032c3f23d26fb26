"""Runs a command that ends when its parent does: `python -m cli.tether PARENT_PID COMMAND...`.

On Linux the kernel sends SIGTERM when the parent is gone, even after kill -9; elsewhere only an orderly stop ends it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Tie this process to its parent and become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it went away before we were tied to it
        sys.exit(f"the parent {parent} is gone")
    os.execvp(command[0], command)  # noqa: S606  our own command line, given by cli.processes


if __name__ == "__main__":
    main()

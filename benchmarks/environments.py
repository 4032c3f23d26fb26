"""The peers' own virtual environments, made from their lock files when they are missing or the lock has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = {"arctic": "arcticdb", "backtests": "vectorbt", "cryptofeed": "cryptofeed", "freqtrade": "freqtrade"}


def python_of(name: str) -> Path:
    """Return the Python of an environment, set up from requirements-bench-NAME.lock."""
    home, lock = ROOT / f".venv-bench-{name}", ROOT / f"requirements-bench-{name}.lock"
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists() or ready.read_text() != lock.read_text():
        print(f"installing {PACKAGES[name]} in an environment of its own", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--require-hashes", "-r", str(lock)], check=True)
        ready.write_text(lock.read_text())
    return python


def version_of(package: str) -> str:
    """Return the version that a lock file names."""
    name = next(key for key, value in PACKAGES.items() if value == package)
    for line in (ROOT / f"requirements-bench-{name}.lock").read_text().splitlines():
        if line.startswith(f"{package}=="):
            return line.split("==")[1].split()[0]
    return "?"

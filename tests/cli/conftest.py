"""A home of its own for each test, and a way to run command lines as a person would."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass

import pytest

from cli.main import run
from core.settings import settings


@dataclass
class Answer:
    """How a command line ended: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Stdout as the one JSON document that it must be."""
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder that does not exist yet, and no setting of the person's own."""
    for name in [key for key in os.environ if key.startswith("CANDLELAKE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CANDLELAKE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)  # no .env of the repository
    settings.cache_clear()
    yield tmp_path / "home"
    settings.cache_clear()


@pytest.fixture
def candlelake(home, capsys):
    """Run one command line in this process, through the same border as the program."""

    def call(*words):
        settings.cache_clear()
        capsys.readouterr()
        code = run([str(word) for word in words])
        answer = capsys.readouterr()
        return Answer(code, answer.out, answer.err)

    return call


@pytest.fixture
def program(home):
    """Run one command line as a process of its own."""

    def call(*words, stdin=None, **environment):
        answer = subprocess.run(
            [sys.executable, "-m", "cli.main", *(str(word) for word in words)], input=stdin, text=True, capture_output=True,
            env={**os.environ, **environment}, timeout=120, check=False)
        return Answer(answer.returncode, answer.stdout, answer.stderr)

    return call


@pytest.fixture
def free_port():
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

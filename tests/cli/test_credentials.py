"""Credentials that are asked for: at a terminal, unseen, and nowhere else."""

import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

AT_TERMINAL = """
import os, sys
for file in (0, 2):
    os.dup2(os.open(sys.argv[1], os.O_RDWR), file)  # the first terminal that a session opens becomes its own
os.execv(sys.executable, [sys.executable, "-m", "cli.main", *sys.argv[2:]])
"""


@pytest.fixture
def at_terminal(home):
    """Run one command at a terminal of its own and type an answer at each prompt; return its code, stdout and what the terminal showed."""
    assert home.parent.exists()
    master, slave = pty.openpty()

    def call(answers, *words):
        process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, os.ttyname(slave), *words], start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        screen = ""
        for prompt, answer in answers:
            while f"{prompt}: " not in screen:
                screen += os.read(master, 1000).decode()
            os.write(master, f"{answer}\n".encode())
        out, _ = process.communicate(timeout=60)
        os.set_blocking(master, False)
        with suppress(BlockingIOError):
            screen += os.read(master, 10_000).decode()
        os.set_blocking(master, True)
        return process.returncode, out, screen

    yield call
    os.close(master)
    os.close(slave)


def test_they_are_asked_for_field_by_field_and_never_shown(at_terminal, candlelake):
    """Each field of the provider is asked for, Enter leaves one out; what was typed is stored and stands nowhere on the screen."""
    typed = [("user", "1001"), ("password", "pw-typed-pw"), ("server", "Nowhere-Demo"), ("host", ""), ("port", ""), ("api_key", "")]
    code, out, seen = at_terminal(typed, "connections", "add", "broker", "--provider", "mtapi:mt5", "--credentials", "ask", "--json")
    assert code == 0, seen
    assert "pw-typed-pw" not in out + seen
    assert "1001" not in out + seen
    assert candlelake("connections", "show", "broker", "--json").json["credential_fields"] == ["password", "server", "user"]
    changed = [("user", ""), ("password", "pw-other-pw"), ("server", ""), ("host", ""), ("port", ""), ("api_key", "")]
    code, _, seen = at_terminal(changed, "connections", "update", "broker", "--credentials", "ask")
    assert code == 0, seen
    assert "pw-other-pw" not in seen
    assert candlelake("connections", "show", "broker", "--json").json["credential_fields"] == ["password", "server", "user"]


@pytest.mark.parametrize(("provider", "allowed"), [
    ("mtapi:mt5", "a terminal to ask on"), ("replay", "none: replay takes no credentials"), ("ccxt:nobody", "ccxt:")])
def test_where_nobody_can_be_asked_that_is_said(program, home, provider, allowed):
    """Without a terminal, or for a provider that takes none, one line says so and no connection is added."""
    answer = program("connections", "add", "broker", "--provider", provider, "--credentials", "ask", stdin="")
    assert answer.code == 2
    assert allowed in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (home / "metadata.db").exists()

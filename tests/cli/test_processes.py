"""The children of `up`: started, watched, restarted, and ended whatever happens to their parent."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import processes
from cli.processes import Child, Household, Stop, is_port_free
from core.errors import ProviderUnavailableError

SLEEPS = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def child(tmp_path, code, name="helper"):
    """A child that runs Python code."""
    return Child(name, [sys.executable, "-c", code], tmp_path / "logs" / f"{name}.log", dict(os.environ))


def wait_for(condition):
    """Wait until something is so; a test that waits in vain fails."""
    for _ in range(2400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not happen")


def is_alive(pid):
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def has_said(helper, text):
    """A condition: the child's log holds `text`."""
    return lambda: helper.log.exists() and text in helper.log.read_text()


def test_a_port_in_use_is_seen(free_port):
    """A port is free until somebody listens on it."""
    assert is_port_free(free_port)
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port))
        server.listen()
        assert not is_port_free(free_port)


def test_the_household_ends_its_children(tmp_path):
    """When the household ends, even by an error, its children have ended, and only they."""
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.DEVNULL)
    household = Household()
    first, second = child(tmp_path, SLEEPS, "first"), child(tmp_path, SLEEPS, "second")

    def fails():
        with household:
            for helper in (first, second):
                household.start(helper)
            wait_for(lambda: has_said(first, "up")() and has_said(second, "up")())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert not is_alive(first.process.pid)
    assert not is_alive(second.process.pid)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()


def test_a_stubborn_child_is_killed(tmp_path, monkeypatch):
    """A child that ignores SIGTERM is killed after a while."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.3)
    with Household() as household:
        helper = household.start(child(tmp_path, STUBBORN))
        wait_for(has_said(helper, "up"))
    assert helper.exit_code == -signal.SIGKILL


def test_a_child_that_ends_early_is_told_with_its_last_words(tmp_path):
    """Waiting for a child that dies says its name, its code, the end of its log and where the log is; secrets are masked."""
    with Household() as household:
        helper = household.start(child(tmp_path, "print('no way: password=hunter2'); raise SystemExit(7)"))
        with pytest.raises(ProviderUnavailableError) as caught:
            household.wait_ready(helper, lambda: False, 60)
    text = str(caught.value)
    assert "helper ended with code 7" in text
    assert "no way" in text
    assert "hunter2" not in text
    assert str(helper.log) in text


def test_a_child_that_never_answers_is_told(tmp_path):
    """Waiting ends with an error when a child lives but does not answer in time."""
    with Household() as household, pytest.raises(ProviderUnavailableError, match="did not answer within"):
        household.wait_ready(household.start(child(tmp_path, SLEEPS)), lambda: False, 0.2)


def test_a_dead_child_comes_back_and_then_not_again(tmp_path, monkeypatch):
    """A child that dies is started again after a wait; when waits are used up, that is an error with its last words."""
    monkeypatch.setattr(processes, "RESTART_WAITS", (0.0, 0.0))
    said = []
    with Household() as household:
        helper = household.start(child(tmp_path, "print('oh no')"))
        for _ in range(2):
            wait_for(lambda: not helper.is_running)
            household.restart_dead(said.append)
        wait_for(lambda: not helper.is_running)
        with pytest.raises(ProviderUnavailableError, match=r"ended 3 times.*oh no"):
            household.restart_dead(said.append)
    assert len(said) == 2
    assert all("oh no" in line for line in said)


def test_a_steady_child_starts_its_count_anew(tmp_path, monkeypatch):
    """A child that ran for long after a restart is forgiven the deaths before."""
    monkeypatch.setattr(processes, "STEADY_SECONDS", -1.0)
    with Household() as household:
        helper = household.start(child(tmp_path, SLEEPS))
        helper.restarts = 3
        household.restart_dead(pytest.fail)
        assert helper.restarts == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_children_end_when_their_parent_is_killed(tmp_path):
    """A kill -9 of the parent leaves no orphan."""
    code = (f"import os, sys, time; from pathlib import Path; from cli.processes import Child\n"
            f"c = Child('x', [sys.executable, '-c', {SLEEPS!r}], Path({str(tmp_path / 'x.log')!r}), dict(os.environ))\n"
            "c.start(); print(c.process.pid, flush=True); time.sleep(600)")
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    wait_for(lambda: (tmp_path / "x.log").exists() and "up" in (tmp_path / "x.log").read_text())
    assert is_alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not is_alive(pid))


def test_a_signal_becomes_a_request_to_stop():
    """Inside `Stop` SIGTERM raises a KeyboardInterrupt once; held, it is ignored; afterwards the old handler is back."""
    before = signal.getsignal(signal.SIGTERM)
    with Stop() as stop:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            stop.check()
        stop.hold()
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_request_to_stop_inside_an_import_ends_with_exit_code_0():
    """A signal that comes while a dataclass is made is caught like any other: the process then exits as it says, not by SIGINT."""
    script = """
import signal, sys
from cli.processes import Stop
with Stop():
    try:
        exec("signal.raise_signal(signal.SIGINT)", {"signal": signal})
    except KeyboardInterrupt:
        print("stopped")
sys.exit(0)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "stopped\n"), ended.stderr

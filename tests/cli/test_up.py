"""`candlelake up`: the embedded stack, and the clear lines when it cannot start."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import duckdb
import pytest
from filelock import FileLock

PORTS = ("CANDLELAKE_PREFECT_PORT", "CANDLELAKE_SANDBOX_PORT", "CANDLELAKE_CONSOLE_PORT")


def ports(count):
    """Ports of loopback that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    numbers = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return numbers


def test_a_second_up_on_one_home_is_refused(candlelake, home):
    """While one `up` holds a home, another ends at once with one line and exit code 1."""
    home.mkdir()
    with FileLock(home / "up.lock"):
        answer = candlelake("up", "--once")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert "already runs" in answer.err
    assert str(home) in answer.err


@pytest.mark.parametrize("setting", PORTS)
def test_a_port_in_use_is_named_and_nothing_is_started(candlelake, home, monkeypatch, setting):
    """A port in use: one line with the port and its setting, exit code 1, no server, no metadata store."""
    for name, port in zip(PORTS, ports(3), strict=True):
        monkeypatch.setenv(name, str(port))
    with socket.socket() as server:
        server.bind(("127.0.0.1", int(os.environ[setting])))
        server.listen()
        answer = candlelake("up", "--once")
    assert answer.code == 1
    assert answer.err.count("\n") == 1
    assert setting in answer.err
    assert os.environ[setting] in answer.err
    assert not (home / "metadata.db").exists()
    assert not list((home / "logs").iterdir())


def test_one_port_for_two_servers_is_refused(candlelake, monkeypatch, free_port):
    """Prefect and the sandbox cannot share a port: bad usage."""
    monkeypatch.setenv("CANDLELAKE_PREFECT_PORT", str(free_port))
    monkeypatch.setenv("CANDLELAKE_SANDBOX_PORT", str(free_port))
    assert candlelake("up", "--once").code == 2


@pytest.fixture
def environment(home):
    """The environment of an `up` with ports of its own."""
    return {**os.environ, **{name: str(port) for name, port in zip(PORTS, ports(3), strict=True)}}


def nobody_listens(environment):
    """Whether all ports of `up` are free again."""
    for name in PORTS:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(environment[name]))) == 0:
                return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_once_does_the_job_and_again_adds_little(environment, home):
    """`up --once` fills both demo connections, a Prefect run completes, the query it prints runs as printed; a second one exits 0 too."""
    for command in ([sys.executable, "-m", "cli.main"], [str(Path(sys.executable).parent / "candlelake")]):
        answer = subprocess.run([*command, "up", "--once"], env=environment, capture_output=True, text=True, timeout=280, check=False)
        assert answer.returncode == 0, answer.stderr[-2000:]
        assert "candles stored" in answer.stdout
        # Skipped: the minutely run came first and holds the connections; gaps: the played market has silent minutes.
        assert re.search(r"fetch run \S+: (Completed|CompletedWithGaps|Skipped)\n", answer.stderr), answer.stderr[-500:]
        assert nobody_listens(environment)
    query = re.search(r"^try +(.+)$", answer.stdout, re.MULTILINE).group(1)
    elsewhere = {**environment, "PATH": "/usr/bin:/bin"}
    rows = subprocess.run(["sh", "-c", query], env=elsewhere, capture_output=True, text=True, timeout=60, check=False)
    assert rows.returncode == 0, rows.stderr
    assert rows.stdout.count("\n") > 5
    with duckdb.connect(home / "lake/candlelake.duckdb", read_only=True) as catalog:
        for series in ("'demo-mt5','EURUSD','1m'", "'demo-exchange','BTC/USD','1h'"):
            rows, distinct = catalog.sql(f"SELECT count(*), count(DISTINCT ts) FROM candles({series})").fetchall()[0]
            assert rows > 500
            assert rows == distinct


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ctrl_c_stops_all_that_was_started(environment, home):
    """`up` stays up with Prefect's UI answering; SIGINT ends it with exit code 0 and leaves no server behind."""
    process = subprocess.Popen([sys.executable, "-m", "cli.main", "up"], env=environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        while "try " not in (line := process.stdout.readline()):
            assert line or process.poll() is None, process.stderr.read()[-2000:]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{environment['CANDLELAKE_PREFECT_PORT']}/", timeout=30) as page:
            assert b"<html" in page.read().lower()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said[-2000:]
        for _ in range(100):
            if nobody_listens(environment):
                break
            time.sleep(0.1)
        assert nobody_listens(environment)
    finally:
        process.kill()

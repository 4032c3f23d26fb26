"""`python -m console` as people reach it: at its own address, or through a proxy whose word it takes for who asks."""

import os
import socket
import subprocess
import sys
import time

import httpx
import pytest

from core.secrets import Secret
from core.settings import Settings
from feed import open_feed
from storage import people

PASSWORD = "seven green lamps at noon"
HERE = "127.0.0.2"  # loopback too, and no default


@pytest.fixture
def serve(tmp_path):
    """Start the console with more settings; returns its address. The home has one admin, eve."""
    with open_feed(Settings(_env_file=None, home=tmp_path / "home", key_file=tmp_path / "test.keys")) as feed, feed.lake.metadata.write() as tx:
        people.add_user(tx, "eve", "super_admin", feed.clock.now_us())
        people.set_password(tx, "eve", Secret(PASSWORD), feed.clock.now_us())
    children = []

    def make(**more):
        with socket.socket() as probe:
            probe.bind((HERE, 0))
            port = probe.getsockname()[1]
        own = {key: value for key, value in os.environ.items() if not key.startswith(("CANDLELAKE_", "PREFECT_"))}
        environment = own | {"CANDLELAKE_HOME": str(tmp_path / "home"), "CANDLELAKE_KEY_FILE": str(tmp_path / "test.keys"),
                             "CANDLELAKE_CONSOLE_BIND": HERE, "CANDLELAKE_CONSOLE_PORT": str(port), "CANDLELAKE_CONSOLE_HOSTS": "c.example",
                             **more}
        log = tmp_path / "console.log"
        with log.open("ab") as out:
            children.append(subprocess.Popen([sys.executable, "-m", "console"], env=environment, stdout=out, stderr=out))
        url, deadline = f"http://{HERE}:{port}", time.monotonic() + 60
        while not _answers(url):
            assert children[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return url

    yield make
    for child in children:
        child.terminate()
        child.wait(20)


def _answers(url):
    try:
        return httpx.get(f"{url}/livez", headers={"host": "c.example"}, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _sign_in(url, name, password, address, **more):
    headers = more | {"host": "c.example", "x-forwarded-for": address, "x-forwarded-proto": "https"}
    return httpx.post(f"{url}/login", data={"name": name, "password": password}, headers=headers, timeout=30, trust_env=False)


@pytest.mark.slow  # two servers are started
def test_forwarded_headers_are_believed_from_named_proxies_alone(serve):
    """Through the proxy cookies are Secure and guesses count against the person's own address; from others the headers say nothing."""
    behind = serve(CANDLELAKE_CONSOLE_PROXIES="127.0.0.0/8")
    answer = _sign_in(behind, "eve", PASSWORD, "203.0.113.7", origin="https://c.example")
    assert answer.headers["set-cookie"].startswith("__Host-candlelake_session=")
    assert "Secure" in answer.headers["set-cookie"]
    assert "max-age" in answer.headers["strict-transport-security"]
    held = {"host": "c.example", "x-forwarded-proto": "https", "cookie": answer.headers["set-cookie"].partition(";")[0]}
    assert httpx.get(f"{behind}/connections", headers=held, trust_env=False).status_code == 200
    while _sign_in(behind, "nobody", "guess", "203.0.113.8").status_code == 401:
        pass  # until this address has guessed too often
    assert _sign_in(behind, "other", "guess", "203.0.113.8").status_code == 429
    assert _sign_in(behind, "other", "guess", "203.0.113.9").status_code == 401

    direct = serve()
    answer = _sign_in(direct, "eve", PASSWORD, "203.0.113.8")
    assert answer.status_code == 303
    assert "Secure" not in answer.headers["set-cookie"]
    assert "strict-transport-security" not in answer.headers


@pytest.mark.slow
def test_requests_that_never_end_leave_room_for_others(serve):
    """A19, slow-loris: six hundred heads and bodies that never end are given up soon, and everybody else is answered again."""
    url = serve()
    place = (HERE, int(url.rpartition(":")[2]))
    head = b"POST /login HTTP/1.1\r\nHost: c.example\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100000\r\n"
    held = []
    for number in range(600):
        held.append(socket.create_connection(place))
        held[-1].sendall(head + (b"X-More: " if number % 3 else b"\r\nname="))
    deadline = time.monotonic() + 60
    while not _answers(url):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for one in held:
        one.close()

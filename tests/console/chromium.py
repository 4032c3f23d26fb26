"""A console as a process of its own, and Debian's Chromium that walks through it."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from connections.service import ConnectionInput
from core.settings import Settings
from feed import open_feed
from feed.fetch import fetch
from sandbox.server import running
from storage import access

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
BUSY = "status of 503"  # Prefect does not answer for a moment: the page of a run asks again
SLOW = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]


@pytest.fixture
def console(tmp_path):
    """A console as a process, over a home with one filled connection; yields its URL and the first admin's code."""
    with running(mode="replay") as box, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("CANDLELAKE_", "PREFECT_"))},
            "CANDLELAKE_HOME": str(tmp_path / "home"), "CANDLELAKE_KEY_FILE": str(tmp_path / "test.keys"),
            "CANDLELAKE_ALLOW_PRIVATE_HOSTS": "1", "CANDLELAKE_CONSOLE_PORT": str(port), "PYTHONSAFEPATH": "1"}
        config = Settings(_env_file=None, home=tmp_path / "home", key_file=tmp_path / "test.keys", allow_private_hosts=True)
        with open_feed(config) as feed:
            feed.connections.create(ConnectionInput(
                slug="box", provider="ccxt:coinbase", base_url=box.url, symbols=("BTC/USD",), timeframes=("1m", "1h"),
                is_admin_owned=True))
            asyncio.run(fetch(feed, ["box"], due_only=False))
            with feed.lake.metadata.write() as tx:
                code = access.make_code(tx, "setup", None, feed.clock.now_us()).reveal()
        with (tmp_path / "console.log").open("wb") as log:
            child = subprocess.Popen([sys.executable, "-m", "console"], env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            _await_answer(url, child, tmp_path / "console.log")
            yield url, code, box.url
        finally:
            child.terminate()
            child.wait(20)


def _await_answer(url, child, log):
    deadline = time.monotonic() + 60
    while True:
        assert child.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/livez", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)


@pytest.fixture
def walker():
    """A browser's page in a theme, what went wrong in it, and a look that keeps a screenshot (in build/screenshots) and asks axe."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)

        def make(theme):
            page = browser.new_context(color_scheme=theme, viewport={"width": 1100, "height": 900}).new_page()
            page.on("console", lambda message: found.append(message.text) if message.type == "error" and BUSY not in message.text else None)
            page.on("pageerror", lambda error: found.append(str(error)))

            def look(name):
                page.screenshot(path=SCREENSHOTS / f"{name}-{theme}.png", full_page=True)
                violations = Axe().run(page).response["violations"]
                assert not violations, (name, [(item["id"], [node["html"] for node in item["nodes"]][:3]) for item in violations])

            return page, look

        yield make
        browser.close()
    assert not found, found  # a violation of the CSP is an error of the page's console

"""Runs ordered on the console's pages at a real server: a person sees them begin, get on and end."""

import asyncio
import re
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn

from connections.service import ConnectionInput
from console.app import make_app
from console.prefect_api import PrefectDesk
from core.clock import DAY_US, isoformat
from core.secrets import Secret
from feed import open_feed
from storage import people
from tests.console.chromium import CHROMIUM, walker
from tests.deployments.conftest import OPERATOR

__all__ = ["walker"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("only_ordered", "runner")]
PASSWORD = "seven green lamps at noon"
AGAIN = 20  # a run that finds another one's lease is Skipped, and ordered again


@pytest.fixture
def feed(home, box):
    """The home of the flow runs with a connection of these tests, which is gone after them, and an admin."""
    with open_feed(home) as opened:
        with opened.lake.metadata.write() as tx:
            if "pat" not in {user.name for user in people.list_users(tx)}:
                people.add_user(tx, "pat", "super_admin", opened.clock.now_us())
                people.set_password(tx, "pat", Secret(PASSWORD), opened.clock.now_us())
        opened.connections.create(ConnectionInput(
            slug="paged", provider="ccxt:coinbase", base_url=box.url, symbols=("BTC/USD",), timeframes=("1h",), is_admin_owned=True))
        yield opened
        opened.connections.delete("paged", purge=True)


async def ordered(http, flow, **form):
    """Order a run on the page and watch its page until it has ended; returns all that the page showed."""
    shown = []
    for _ in range(AGAIN):
        csrf = re.search(r'name="csrf" value="([^"]+)"', (await http.get("/connections/paged/runs")).text).group(1)
        answer = await http.post("/connections/paged/runs", data={"csrf": csrf, "flow": flow, **form})
        assert answer.status_code == 303, answer.text
        page = answer.headers["location"]
        while True:
            part = await http.get(page, headers={"hx-request": "true"})
            assert part.status_code in {200, 286, 503}  # 503: the server is busy for a moment, and the page asks again
            shown.append(part.text)
            if part.status_code == 286:
                break
            await asyncio.sleep(0.5)
        state = (await http.get(f"/api{page}")).json()
        if state["state"] not in {"Skipped", "SkippedLate"}:
            return state, shown
    pytest.fail(f"its place stayed taken: {shown[-1]}")


async def test_a_backfill_and_a_repair_are_ordered_and_watched(feed, server):
    """The page of a run shows its state until it ends, its log and Prefect's own page; what it fetched is in the lake."""
    app = make_app(feed, PrefectDesk(server.url, OPERATOR))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        await http.post("/login", data={"name": "pat", "password": PASSWORD})
        today = feed.clock.now_us() // DAY_US * DAY_US
        start, end = isoformat(today - 9 * DAY_US), isoformat(today - 2 * DAY_US)
        state, shown = await ordered(http, "backfill", symbol="BTC/USD", timeframe="1h", start=start, end=end)
        assert state["state"].startswith("Completed"), shown[-1]
        assert "/runs/flow-run/" in shown[-1]
        assert "168/168 candles" in shown[-1]
        assert "Finished in state" in shown[-1], "the page stopped asking before the log was whole"
        assert feed.lake.candles("paged", "BTC/USD", "1h").height > 100  # the recorded market has silent hours
        state, _ = await ordered(http, "repair")
        assert state["state"].startswith("Completed")
        assert f"/connections/paged/runs/{state['id']}" in (await http.get("/connections/paged/runs")).text


async def test_a_run_is_cancelled_at_a_real_server(feed, server, box):
    """A backfill whose exchange hangs is cancelled by its page's button: Prefect ends its process, and the next run has the place."""
    app = make_app(feed, PrefectDesk(server.url, OPERATOR))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        await http.post("/login", data={"name": "pat", "password": PASSWORD})
        csrf = re.search(r'name="csrf" value="([^"]+)"', (await http.get("/connections/paged/runs")).text).group(1)
        today = feed.clock.now_us() // DAY_US * DAY_US
        form = {"symbol": "BTC/USD", "timeframe": "1h", "start": isoformat(today - 9 * DAY_US), "end": isoformat(today - 2 * DAY_US)}
        box.faults.add("hang", "*candles*")
        try:
            page = (await http.post("/connections/paged/runs", data={"csrf": csrf, "flow": "backfill", **form})).headers["location"]

            async def reached(*names):
                for _ in range(360):
                    state = (await http.get(f"/api{page}")).json()["state"]
                    if state in names:
                        return state
                    await asyncio.sleep(0.5)
                return pytest.fail(f"the run stays {state}")

            assert await reached("Running", "Retrying", "AwaitingRetry") != "Completed"
            assert (await http.post(f"{page}/cancel", data={"csrf": csrf})).status_code == 303
            assert await reached("Cancelled", "Failed", "Crashed", "Completed") == "Cancelled"
        finally:
            box.faults.clear()
        state, _ = await ordered(http, "backfill", **form)
        assert state["state"].startswith("Completed")


@contextmanager
def served(app):
    """Serve an app on loopback in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_person_starts_a_backfill_in_a_browser_and_sees_it_get_on(feed, server, walker, theme):
    """Sign in, fill the form in, press Backfill: the page shows the run's state, its progress and its log by itself, until all candles are stored."""
    page, look = walker(theme)
    today = feed.clock.now_us() // DAY_US * DAY_US
    start, end = (isoformat(today - days * DAY_US)[:10] for days in (9, 2))
    with served(make_app(feed, PrefectDesk(server.url, OPERATOR))) as url:
        page.goto(f"{url}/login")
        page.fill("[name=name]", "pat")
        page.fill("[name=password]", PASSWORD)
        page.click("main button")
        page.wait_for_url(f"{url}/connections")
        for _ in range(AGAIN):
            page.goto(f"{url}/connections/paged/runs")
            page.fill("[name=start]", start)
            page.fill("[name=end]", end)
            page.click("button:text-is('Backfill')")
            page.wait_for_selector("progress")
            look("run")
            page.wait_for_selector("pre.log:has-text('Finished in state')", timeout=180_000)
            if "Skipped" not in page.inner_text(".state >> nth=0"):
                break
        assert "168/168 candles" in page.inner_text("pre.log")
        page.wait_for_selector("#cancel button", state="detached")
        assert page.get_attribute("a:has-text('Open in the Prefect UI')", "href").startswith(server.url.removesuffix("/api"))
        look("run-ended")
        page.goto(f"{url}/connections/paged/candles?timeframe=1h")
        page.wait_for_selector("#chart[data-ready]")
        assert int(page.get_attribute("#chart", "data-ready")) > 100

"""The console in a real browser: headless Chromium walks through it as people do, in both themes, with 0 CSP violations."""

import re

import pytest

from tests.console.chromium import SLOW
from tests.console.conftest import PASSWORD

pytestmark = SLOW


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_people_walk_through_the_console(console, walker, theme):
    """First login, a new connection saved and tested, chart and table, logs, deactivate: no CSP violation, no script error, axe finds nothing."""
    url, code, box = console
    page, look = walker(theme)
    page.goto(url)
    look("setup")
    page.fill("[name=code]", code)
    page.fill("[name=name]", "eve")
    page.fill("[name=password]", PASSWORD)
    page.click("text=Begin")
    page.wait_for_url(f"{url}/connections")
    look("connections")
    _add_connection(page, box, look)
    page.click("text=Deactivate")
    page.wait_for_selector("button:has-text('Activate')")
    page.goto(f"{url}/connections/box/candles")
    page.wait_for_selector("#chart[data-ready]")
    assert int(page.get_attribute("#chart", "data-ready")) > 10
    assert re.search(r"O \d[\s\S]*C \d", page.text_content("#legend"))
    page.focus("#chart")
    page.keyboard.press("ArrowLeft")
    assert "close" in page.text_content("#spoken")
    look("candles")
    page.goto(f"{url}/connections/box/candles?timeframe=45m")
    page.wait_for_selector("#chart[data-ready]")
    assert "derived" in page.text_content("#legend")
    look("derived")
    for path in ("connections/box/gaps", "connections/box/revisions", "connections/box/logs", "connections/box/runs",
                 "connections/box/cleanup",
                 "connections/box/proof", "connections/box/coverage", "connections/box/delete", "coverage", "pipelines/new", "notifications", "account", "users", "audit", "api/docs"):
        page.goto(f"{url}/{path}")
        look(path.replace("/", "-"))
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{url}/connections/box")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    look("phone")


def _add_connection(page, box, look):
    page.click("text=Add a connection")
    page.fill("[name=slug]", "mine")
    page.fill("[name=provider]", "ccxt:kraken")
    page.click("summary")
    page.fill("[name=base_url]", box)
    page.wait_for_selector("[name=credential_api_key]")
    page.fill("#symbol-query", "btc usd")
    page.click("#found [data-add='BTC/USD']")
    assert page.input_value("#symbols") == "BTC/USD"
    page.click("#provider [data-add='1h']")
    look("form")
    page.click("text=Save & test")
    page.wait_for_selector("ol.steps li")
    assert page.locator("ol.steps .state").all_inner_texts() == ["ok"] * 5, page.inner_text("#test")
    look("tested")

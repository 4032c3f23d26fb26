"""The console in a real browser: headless Chromium walks through it as people do, in both themes, with 0 CSP violations."""

import re

import pytest

from tests.console.chromium import SLOW
from tests.console.conftest import PASSWORD

pytestmark = SLOW


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_people_walk_through_the_console(console, walker, theme):
    """First login, a new connection saved and tested, off and on, chart and table, logs, a pipeline's graph, and what another user sees of it.

    No CSP violation, no script error, axe finds nothing.
    """
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
    for now, after in (("Deactivate", "Activate"), ("Activate", "Deactivate")):
        page.click(f"button:text-is('{now}')")
        page.wait_for_selector(f"button:text-is('{after}')")
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
    _define_a_pipeline(page, url, look)
    _look_as_another(page, walker, url, theme)
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("connections", "connections/box", "connections/box/candles", "connections/box/gaps", "pipelines/crossing", "users"):
        page.goto(f"{url}/{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
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


def _define_a_pipeline(page, url, look):
    """Store the example that the form shows, switch it on, and see its stages drawn."""
    page.goto(f"{url}/pipelines/new")
    page.click("text=Check and store")
    page.wait_for_url(f"{url}/pipelines/crossing")
    page.click("button:text-is('Enable')")
    page.wait_for_selector("button:text-is('Disable')")
    assert page.locator("svg.graph .title").all_text_contents() == ["cleaners", "filters", "indicators", "signals", "confidence", "executors"]
    assert {"fast", "slow", "crossover"} <= set(page.locator("svg.graph text").all_text_contents())
    look("pipeline")


def _look_as_another(page, walker, url, theme):
    """A user whom the admin adds sees nothing of the admin's: not in lists, and by address the same as what was never there."""
    page.goto(f"{url}/users")
    page.fill("main [name=name]", "ann")
    page.click("button:text-is('Add')")
    code = page.inner_text("code.token")
    other, look = walker(theme)
    other.goto(f"{url}/password")
    other.fill("[name=code]", code)
    other.fill("[name=password]", PASSWORD)
    other.click("text=Set password")
    other.wait_for_url(f"{url}/login")
    other.fill("[name=name]", "ann")
    other.fill("[name=password]", PASSWORD)
    other.click("main button")
    other.wait_for_url(f"{url}/connections")
    look("empty")
    assert other.locator("tbody tr").count() == 0
    assert other.locator("nav a:has-text('Users')").count() == 0
    for tab in ("", "/candles", "/logs", "/edit", "/runs", "/proof", "/delete"):
        theirs, absent = (other.request.get(f"{url}/connections/{slug}{tab}") for slug in ("box", "nobody"))
        assert (theirs.status, theirs.text().replace("box", "SLUG")) == (absent.status, absent.text().replace("nobody", "SLUG")), tab
        assert theirs.status == 404, tab

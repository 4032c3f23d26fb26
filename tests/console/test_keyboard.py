"""The console by keyboard alone, in a real browser: everything that can be clicked is reached, in order, with a focus that is seen, and left again."""

from tests.console.chromium import SLOW
from tests.console.conftest import PASSWORD

pytestmark = SLOW
PAGES = ("connections", "connections/new", "connections/mine", "connections/box/candles", "connections/box/candles?timeframe=45m", "connections/box/gaps",
         "connections/box/revisions", "connections/box/logs", "connections/box/runs", "connections/box/cleanup", "connections/box/proof",
         "connections/box/coverage", "connections/box/edit", "connections/box/delete", "coverage", "pipelines", "pipelines/new", "notifications",
         "account", "account/second-factor", "users", "audit", "api/docs", "errors")
# What can be used: shown, not switched off; of what a closed <details> holds only its summary.
USABLE = """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex]")]
  .filter((item) => !item.disabled && item.tabIndex >= 0 && item.getClientRects().length && (item.matches("summary") || !item.closest("details:not([open])")))
  .map((item, number) => { item.dataset.stop = String(number); return [item.tagName, item.id, item.name || "", (item.textContent || "").trim().slice(0, 40)]; })"""
FOCUSED = """() => { const item = document.activeElement, box = item.getBoundingClientRect(), look = getComputedStyle(item);
  return {stop: item.dataset.stop === undefined ? -1 : Number(item.dataset.stop), isSeen: box.width > 0 && box.height > 0 && box.right > 0
    && box.bottom > 0 && box.top < innerHeight && box.left < innerWidth, outline: look.outlineStyle === "none" ? 0 : parseFloat(look.outlineWidth)} }"""


def test_everything_is_reached_and_done_by_keyboard(console, walker):
    """First login, picker, Save & test, lists, tables, chart, times, theme, menus, sign-out: no mouse; on each page the Tab key meets all there is."""
    url, code, box = console
    page, _ = walker("light")
    page.goto(url)
    _begin(page, code)
    _add_connection(page, box)
    _look_for_connections(page)
    _switch_and_turn(page, url)
    for path in PAGES:
        page.goto(f"{url}/{path}")
        if "candles" in path:
            page.wait_for_selector("#chart[data-ready]")
        if path == "audit":  # the link to the check gives way to its outcome
            page.wait_for_selector("#chain")
        _tour(page, path)
    page.goto(f"{url}/connections")
    _press(page, "header form button", "Enter")
    page.wait_for_url(f"{url}/login")
    assert page.evaluate("document.activeElement.name") == "name"


def _tour(page, path):
    """Walk round a page with Tab, then back with Shift+Tab: each stop once, in the order of the page, with its outline in sight."""
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    names = page.evaluate(USABLE)
    assert len(names) > 2, path
    for key, wanted in (("Tab", list(range(len(names)))), ("Shift+Tab", list(range(len(names) - 2, -1, -1)))):
        seen = []
        while len(seen) < len(wanted):
            page.keyboard.press(key)
            found = page.evaluate(FOCUSED)
            if found["stop"] == -1 or (seen and found["stop"] == seen[-1]):  # the page's own ground; parts of a date field
                assert seen == [] or found["stop"] != -1, (path, key, names[seen[-1]], "is the last stop")
                continue
            seen.append(found["stop"])
            assert found["isSeen"], (path, names[found["stop"]], "has the focus out of sight")
            assert found["outline"] >= 2, (path, names[found["stop"]], "has no outline")
            assert seen == wanted[:len(seen)], (path, key, [names[stop] for stop in seen[-2:]], "is not the order of the page")


def _reach(page, selector):
    """Press Tab until what is meant has the focus."""
    for _ in range(200):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{selector} is not reached by Tab on {page.url}")


def _press(page, selector, key):
    _reach(page, selector)
    page.keyboard.press(key)


def _write(page, selector, text):
    _reach(page, selector)
    page.keyboard.type(text)


def _begin(page, code):
    """Sign the first admin in; the skip link is the first stop and leads past the head."""
    assert page.evaluate("document.activeElement.name") == "code"
    page.keyboard.type(code)
    _write(page, "[name=name]", "eve")
    _write(page, "[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url("**/connections")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Add a connection"
    page.keyboard.press("Enter")
    page.wait_for_url("**/connections/new")


def _add_connection(page, box):
    """Fill the form in, symbols and timeframes by their chips, save it and read the test's steps."""
    _write(page, "[name=provider]", "ccxt:kraken")
    _write(page, "[name=slug]", "mine")
    page.wait_for_selector("#provider [data-add='1h']")
    _reach(page, "summary")
    page.keyboard.press("Enter")
    _write(page, "[name=base_url]", box)
    page.keyboard.press("Shift+Tab")
    _back(page, "#symbol-query")
    page.keyboard.type("btc usd")
    page.wait_for_selector("#found [data-add='BTC/USD']")
    _press(page, "#found [data-add='BTC/USD']", "Space")
    assert page.input_value("#symbols") == "BTC/USD"
    _press(page, "#provider [data-add='1h']", "Enter")
    assert page.input_value("#timeframes") == "1h"
    _press(page, "main form div.row button", "Enter")
    page.wait_for_selector("ol.steps li")
    assert page.locator("ol.steps .state").all_inner_texts() == ["ok"] * 5, page.inner_text("#test")


def _back(page, selector):
    for _ in range(200):
        if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Shift+Tab")
    raise AssertionError(f"{selector} is not reached by Shift+Tab on {page.url}")


def _look_for_connections(page):
    """The list narrows while one types, and keeps the focus where it was; its menu of states is chosen from by arrows; a table scrolls by them."""
    _press(page, "nav a[href='/connections']", "Enter")
    page.wait_for_url("**/connections")
    _write(page, "#query", "coinbase")
    page.wait_for_url("**/connections?query=coinbase*")
    assert page.locator("tbody tr").count() == 1
    assert page.evaluate("document.activeElement.id") == "query"
    _press(page, "#health", "i")
    page.wait_for_url("**health=inactive*")
    assert "No connection of yours matches" in page.inner_text("#found")
    page.set_viewport_size({"width": 390, "height": 800})
    _press(page, "#found a", "Enter")
    page.wait_for_url("**/connections")
    _reach(page, ".scroll")
    page.keyboard.press("ArrowRight")
    while not page.evaluate("document.querySelector('.scroll').scrollLeft"):  # it glides; one that never moves ends with the test's time
        page.wait_for_timeout(50)
    page.set_viewport_size({"width": 1100, "height": 900})


def _switch_and_turn(page, url):
    """Chart, times, theme and a connection's switch answer to keys; Tab leaves the chart."""
    page.goto(f"{url}/connections/box/candles")
    page.wait_for_selector("#chart[data-ready]")
    _press(page, "#zone", "Space")
    assert page.inner_text("#zone") == "Times: UTC"
    _reach(page, "#chart")
    for key in ("ArrowLeft", "Home", "PageDown", "+", "End"):
        page.keyboard.press(key)
    assert "close" in page.text_content("#spoken")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#table"
    page.evaluate("document.activeElement.blur()")
    _press(page, "#theme", "Space")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    _press(page, ".bar form button", "Enter")
    page.wait_for_selector("button:has-text('Activate')")

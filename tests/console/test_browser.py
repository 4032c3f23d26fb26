"""The console in a real browser: headless Chromium walks through it as people do, in both themes, with 0 CSP violations."""

import re

import polars as pl
import pytest

from core.candles import CANDLE_SCHEMA
from core.clock import MINUTE_US, SECOND_US
from core.settings import Settings
from feed import open_feed
from storage import Batch
from storage.series import list_series
from tests.console.chromium import SLOW
from tests.console.conftest import PASSWORD

pytestmark = SLOW
QUARTER_US = 15 * MINUTE_US


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_people_walk_through_the_console(console, walker, theme):
    """First login, a new connection saved and tested, off and on, chart and table, logs, a pipeline's graph, and what another user sees of it.

    No CSP violation, no script error, axe finds nothing.
    """
    url, code, box = console
    page, look = walker(theme)
    page.goto(url)
    look("setup")
    _begin(page, url, code)
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


def _begin(page, url, code):
    page.fill("[name=code]", code)
    page.fill("[name=name]", "eve")
    page.fill("[name=password]", PASSWORD)
    page.click("text=Begin")
    page.wait_for_url(f"{url}/connections")


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


def test_history_comes_as_one_goes_back_and_the_newest_candle_by_itself(console, walker, tmp_path):
    """A chart begins with its newest 2,000 candles; dragged to the left it gets those before them, each once; a candle stored meanwhile appears unasked."""
    url, code, _ = console
    page, _ = walker("light")
    page.goto(url)
    _begin(page, url, code)
    with open_feed(Settings(_env_file=None, home=tmp_path / "home", key_file=tmp_path / "test.keys", allow_private_hosts=True)) as feed:
        feed.connections.update("box", timeframes=("1m", "15m", "1h"))
        with feed.lake.metadata.read() as tx:
            (series,) = list_series(tx, "box", timeframe="15m")
        end = feed.clock.now_us() // QUARTER_US * QUARTER_US - QUARTER_US
        feed.lake.import_candles(series.id, candles(end - 2_500 * QUARTER_US, 2_500), run_id="test")
        page.goto(f"{url}/connections/box/candles?timeframe=15m")
        page.wait_for_selector("#chart[data-ready='2000']")
        place = page.locator("#chart").bounding_box()
        for _ in range(60):
            page.mouse.move(place["x"] + 50, place["y"] + 100)
            page.mouse.down()
            page.mouse.move(place["x"] + place["width"] - 150, place["y"] + 100, steps=5)
            page.mouse.up()
            page.wait_for_timeout(50)
            if page.get_attribute("#chart", "data-ready") == "2500":
                break
        assert page.get_attribute("#chart", "data-ready") == "2500"
        page.focus("#chart")
        page.keyboard.press("End")
        page.keyboard.press("Escape")
        feed.lake.write([Batch(series.id, candles(end, 1).with_columns(high=pl.lit(7777.0)), "rest")], run_id="test")
        page.wait_for_selector("#legend:has-text('H 7777.00')")
        assert page.get_attribute("#chart", "data-live_at") == str(end // SECOND_US)


def candles(start_us, count):
    """Return so many candles of a quarter of an hour."""
    frame = pl.DataFrame({"ts": [start_us + n * QUARTER_US for n in range(count)], "open": 100.0, "high": 102.0, "low": 99.0, "close": 101.25,
                          "volume": 5.0, "spread": None})
    return frame.with_columns(pl.col("ts").cast(pl.Datetime("us", "UTC"))).cast(dict(CANDLE_SCHEMA)).select(CANDLE_SCHEMA.names())

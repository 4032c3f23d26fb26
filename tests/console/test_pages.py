"""Forms, logs, cleanup, proof and pipelines of the pages: what they show is what the API answers, and no page is heavy."""

import gzip
import json
import re
from datetime import timedelta

import pytest
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st

from connections.service import ConnectionInput
from console import drawing
from console.app import make_app
from console.prefect_api import PrefectDesk
from console.rendering import HERE
from core.clock import isoformat
from core.secrets import Secret
from sandbox.server import running
from storage.series import list_series
from storage.vault import KeyRing, Vault
from tests.console.conftest import Browser
from tests.console.home import YAML
from tests.console.prefect import NUMBER, answering_prefect

WEIGHT_MAX = 120 * 1024  # bytes, gzipped


@pytest.fixture
def prefect():
    """Stand in for Prefect's server on loopback: one run, which is finished; yields its address and what was ordered."""
    with answering_prefect() as answering:
        yield answering


@pytest.fixture
async def visitor(feed, prefect):
    """Ann's browser at a console whose Prefect answers."""
    one = Browser(make_app(feed, PrefectDesk(prefect[0])))
    await one.sign_in("ann")
    yield one
    await one.http.aclose()


async def test_credentials_are_fields_that_keep_what_is_stored(browser, feed):
    """Each credential of the provider is a field; an empty one keeps the stored value, which the page never shows."""
    one = browser()
    await one.sign_in("ann")
    assert 'name="credential_user"' in (await one.get("/connections/provider?provider=mtapi:mt5")).text
    assert "received" in (await one.get("/connections/provider?provider=nobody")).text
    text = (await one.get("/connections/anns/edit")).text
    assert "canary" not in text
    assert text.count("stored, leave empty to keep") == 2
    form = {"name": "Mine", "symbols": "BTC/USD", "timeframes": "1m", "credential_api_key": "", "credential_secret": "canary-other"}
    assert (await one.post("/connections/anns/edit", **form)).status_code == 303
    row = feed.connections.get("anns")
    with feed.lake.metadata.read() as tx:
        held = Vault(feed.lake.metadata, KeyRing.load(feed.settings), feed.clock).get(tx, row.id, row.owner)
    assert held["api_key"] == Secret("canary-key-anns")
    assert held["secret"] == Secret("canary-other")
    assert "canary" not in (await one.get("/connections/anns")).text


async def test_the_form_switches_a_stream_on_and_keeps_other_settings(browser, feed):
    """The box and the days of ticks become settings, leave no others changed, show again, and go when they are emptied."""
    feed.connections.update("anns", settings={"overlap_candles": 7})
    one = browser()
    await one.sign_in("ann")
    form = {"symbols": "BTC/USD", "timeframes": "1m"}
    assert (await one.post("/connections/anns/edit", **form, stream="on", tick_retention_days="5")).status_code == 303
    assert feed.connections.get("anns").settings == {"overlap_candles": 7, "stream": True, "tick_retention_days": 5}
    text = (await one.get("/connections/anns/edit")).text
    assert 'name="stream" value="on" checked' in text
    assert 'name="tick_retention_days" inputmode="numeric" value="5"' in text
    assert (await one.post("/connections/anns/edit", **form, tick_retention_days="soon")).status_code == 422
    assert (await one.post("/connections/anns/edit", **form)).status_code == 303
    assert feed.connections.get("anns").settings == {"overlap_candles": 7}


async def test_symbols_are_searched_at_the_provider(browser, token, feed):
    """The practice exchange's own list, by every word; a user cannot point the question elsewhere; a login's list needs the login."""
    with running(mode="history") as box:
        feed.connections.create(ConnectionInput(slug="box", provider="ccxt:coinbase", base_url=box.url, is_admin_owned=True))
        http, admin = browser().http, token("root")
        rows = (await http.get("/api/connections/box/symbols?query=btc usd", headers=admin)).json()
        assert "BTC/USD" in [row["symbol"] for row in rows]
        asked = len(box.requests)
        text = (await http.get("/connections/symbols", params={"connection": "box", "symbol_query": "btc"}, headers=admin)).text
        assert 'data-add="BTC/USD"' in text
        assert len(box.requests) == asked  # the list is kept for all who look
        refused = await http.get("/connections/symbols", headers=token("ann"), params={
            "provider": "ccxt:coinbase", "base_url": box.url, "symbol_query": "btc"})
        assert "only an admin" in refused.text
    login = (await http.get("/connections/symbols?provider=mtapi:mt5&symbol_query=eur", headers=admin)).text
    assert "save the connection with its credentials first" in login
    assert (await http.get("/api/providers/mtapi:mt5", headers=admin)).json()["credentials"] == ["user", "password"]


async def test_logs_are_filtered_paged_and_downloaded(visitor, feed):
    """Filters and pages are the database's; each row comes once, and the file holds what the filter leaves."""
    for _ in range(35):
        feed.connections.deactivate("anns")
        feed.connections.activate("anns")
    first = (await visitor.get("/connections/anns/logs?action=activate")).text
    assert ">deactivate<" not in first.split("<tbody>")[1]
    rows = (await visitor.get("/api/connections/anns/logs?limit=50")).json()
    rest = (await visitor.get(f"/api/connections/anns/logs?limit=50&before={rows[-1]['id']}")).json()
    assert len({row["id"] for row in rows + rest}) == len(rows) + len(rest) == 71
    assert (await visitor.get(f"/api/connections/anns/logs?after={rows[0]['id']}")).json() == []
    text = (await visitor.get("/connections/anns/logs")).text
    assert f"before={rows[-1]['id']}" in text
    lines = (await visitor.get("/connections/anns/logs.jsonl?text=inactive")).text.splitlines()
    assert len(lines) == 35
    assert {json.loads(line)["action"] for line in lines} == {"deactivate"}
    assert (await visitor.get("/connections/anns/logs?before=x")).status_code == 422


async def test_a_run_is_ordered_watched_and_found_again(visitor, prefect):
    """A backfill goes to Prefect with its range; its page shows progress and lines as text, polls no more at its end; the log links it."""
    answer = await visitor.post("/connections/anns/runs", flow="backfill", symbol="BTC/USD", timeframe="1m", start="2026-01-01", end="2026-01-02")
    assert answer.headers["location"] == f"/connections/anns/runs/{NUMBER}"
    assert prefect[1] == [("backfill", {"connection": "anns", "symbol": "BTC/USD", "timeframe": "1m", "start": "2026-01-01", "end": "2026-01-02"})]
    page = (await visitor.get(answer.headers["location"])).text
    assert "62.5 %" in page
    assert "<b>62" not in page
    assert f"/runs/flow-run/{NUMBER}" in page
    part = await visitor.get(answer.headers["location"], headers={"hx-request": "true"})
    assert part.status_code == 286
    assert '<div id="cancel" hx-swap-oob="true"></div>' in part.text  # an ended run cannot be cancelled
    assert f"/connections/anns/runs/{NUMBER}" in (await visitor.get("/connections/anns/runs")).text
    assert (await visitor.get(f"/api/connections/anns/runs/{NUMBER}")).json()["progress"] == 62.5
    wrong = await visitor.post("/connections/anns/runs", flow="backfill", symbol="BTC/USD", timeframe="1m", start="2026-01-02", end="2026-01-01")
    assert wrong.status_code == 422


async def test_the_last_lines_of_a_run_are_waited_for(feed, clock):
    """A run's log reaches Prefect in batches, the last one after its end: the page asks for ten seconds more, then no longer."""
    with answering_prefect(ended=isoformat(clock.now_us())) as (url, _):
        one = Browser(make_app(feed, PrefectDesk(url)))
        await one.sign_in("ann")
        place = (await one.post("/connections/anns/runs", flow="repair")).headers["location"]
        for seconds, status in ((0, 200), (9, 200), (1, 286)):
            clock.advance(timedelta(seconds=seconds))
            assert (await one.get(place, headers={"hx-request": "true"})).status_code == status
            assert ('hx-trigger="every 2s"' in (await one.get(place)).text) == (status == 200)
        await one.http.aclose()


async def test_an_order_waits_for_a_busy_prefect(feed):
    """Prefect's database may be locked for a moment: the order is given again with the same key, so it is one run; if it stays so, one line."""
    for busy, status in ((2, 303), (99, 422)):
        with answering_prefect(busy) as (url, ordered):
            one = Browser(make_app(feed, PrefectDesk(url)))
            await one.sign_in("ann")
            await one.get("/connections/anns/runs")
            answer = await one.post("/connections/anns/runs", flow="repair")
            await one.http.aclose()
        assert answer.status_code == status
        assert len(ordered) == (busy == 2)
    assert "too busy to answer" in answer.text


async def test_a_run_is_cancelled_by_whom_it_belongs_to(feed, token):
    """The button is there while it runs and cancels it; log and audit tell who; others are answered as if it were absent."""
    with answering_prefect(is_running=True) as (url, _):
        app = make_app(feed, PrefectDesk(url))
        one = Browser(app)
        await one.sign_in("ann")
        await one.get("/connections/anns/runs")
        page = (await one.post("/connections/anns/runs", flow="repair")).headers["location"]
        bob = Browser(app)
        other = await bob.http.post(f"/api{page}/cancel", headers=token("bob", "manage", "read"))
        await bob.http.aclose()
        assert f'action="{page}/cancel"' in (await one.get(page)).text
        assert (await one.post(f"{page}/cancel")).status_code == 303
        assert "Cancelling" in (await one.get(page)).text
        log = (await one.get("/connections/anns/logs")).text
        await one.http.aclose()
    assert other.status_code == 404
    assert "brave-otter cancelled by ann" in log
    with feed.lake.metadata.read() as tx:
        assert tx.exec_driver_sql("SELECT actor, subject, outcome FROM audit_log WHERE action = 'run.cancel' ORDER BY id").all() == [
            ("ann", "anns", "begun"), ("ann", "anns", "done")]


async def test_a_run_of_a_pipeline_is_cancelled_by_whom_it_belongs_to(feed, token):
    """As a connection's: the button while it runs, the audit, and nothing for others."""
    with answering_prefect(is_running=True) as (url, _):
        one = Browser(make_app(feed, PrefectDesk(url)))
        await one.sign_in("ann")
        await one.get("/pipelines/new")
        assert (await one.post("/pipelines/new", definition=YAML)).status_code == 303
        page = (await one.post("/pipelines/crossing/runs", flow="replay", start="2026-01-01", end="2026-01-02")).headers["location"]
        assert f'action="{page}/cancel"' in (await one.get(page)).text
        other = await one.http.post(f"/api{page}/cancel", headers=token("bob", "manage", "read"))
        assert (await one.post(f"{page}/cancel")).headers["location"] == page
        assert "Cancelling" in (await one.get(page)).text
        await one.http.aclose()
    assert other.status_code == 404
    with feed.lake.metadata.read() as tx:
        assert tx.exec_driver_sql("SELECT actor, subject FROM audit_log WHERE action = 'run.cancel'").all() == [("ann", "crossing")] * 2  # begun, done


async def test_a_run_that_has_ended_is_not_cancelled(visitor, prefect, token):
    """By API it is one line, on the page its end is shown; the button is gone."""
    await visitor.get("/connections/anns/runs")
    page = (await visitor.post("/connections/anns/runs", flow="repair")).headers["location"]
    assert "/cancel" not in (await visitor.get(page)).text
    assert (await visitor.post(f"{page}/cancel")).headers["location"] == page
    refused = await visitor.http.post(f"/api{page}/cancel", headers=token("ann", "manage", "read"))
    assert (refused.status_code, "nothing left to cancel" in refused.text) == (422, True)


async def test_cleanup_is_planned_then_ordered(visitor, prefect, feed, clock):
    """The plan counts what would go and changes nothing; only the order of the run applies it, for this connection alone."""
    clock.advance(timedelta(days=40))
    await visitor.sign_in("ann")  # the session is over by then
    assert "how many days to keep" in (await visitor.get("/connections/anns/cleanup")).text
    plan = (await visitor.get("/api/connections/anns/cleanup?retention_days=30")).json()
    assert plan["rows"] == 300
    assert "Remove 300 candles" in (await visitor.get("/connections/anns/cleanup?days=30")).text
    with feed.lake.metadata.read() as tx:
        series = list_series(tx, "anns")[0].series
    assert len(feed.lake.latest(series.connection, series.symbol, series.timeframe, 1000)) == 300
    assert (await visitor.post("/connections/anns/runs", flow="cleanup", days="30")).status_code == 303
    assert prefect[1][-1] == ("cleanup", {"connection": "anns", "apply": True, "retention_days": 30})
    assert (await visitor.post("/connections/anns/runs", flow="cleanup")).status_code == 422
    assert (await visitor.get("/connections/anns/cleanup?days=none")).status_code == 200


async def test_the_proof_page_shows_what_the_api_proves(visitor):
    """Counts and digest of the page are those of the API."""
    found = (await visitor.get("/api/connections/anns/proof")).json()
    assert found["totals"]["stored"] == 300
    text = (await visitor.get("/connections/anns/proof")).text
    assert found["digest"] in text
    assert "<dd>300</dd>" in text
    assert (await visitor.get("/connections/anns/proof?start=never")).status_code == 200
    assert (await visitor.get("/api/connections/anns/proof?start=never")).status_code == 422


async def test_a_pipeline_is_written_changed_replayed_and_compared(visitor, prefect):
    """YAML becomes a pipeline, then its second version; errors name the field; runs carry the pipeline's name and their tables are read here."""
    assert (await visitor.post("/pipelines/new", definition=YAML)).headers["location"] == "/pipelines/crossing"
    assert "plugin: crossover" in (await visitor.get("/pipelines/crossing/edit")).text
    wrong = await visitor.post("/pipelines/crossing/edit", definition=YAML.replace("crossover", "nothing"))
    assert wrong.status_code == 422
    assert "nothing" in wrong.text
    assert (await visitor.post("/pipelines/crossing/edit", definition=YAML + "threshold: 55\n")).status_code == 303
    assert (await visitor.get("/api/pipelines/crossing")).json()["version"] == 2
    for text in (YAML.replace("anns", "bobs"), YAML.replace("name: crossing", "name: other").replace("anns", "bobs")):
        assert "no connection" in (await visitor.post("/pipelines/new", definition=text)).text
    assert "aliases" in (await visitor.post("/pipelines/new", definition="a: &x [1]\nb: *x\n")).text
    assert (await visitor.post("/pipelines/new", definition="[" * 40_000)).status_code == 422
    ordered = await visitor.post("/pipelines/crossing/runs", flow="replay", start="2026-01-01", end="2026-01-06")
    assert ordered.headers["location"] == f"/pipelines/crossing/runs/{NUMBER}"
    assert prefect[1][-1][0] == "replay_pipeline"
    assert ">buy<" in (await visitor.get(ordered.headers["location"])).text
    assert (await visitor.get(f"/api/pipelines/crossing/runs/{NUMBER}")).json()["results"][0]["rows"] == [{"side": "buy", "price": 1.5}]
    assert (await visitor.post("/pipelines/crossing/runs", flow="compare", start="2026-01-01", end="2026-01-06")).status_code == 422
    assert (await visitor.get("/api/pipelines/crossing/equity")).json() == []


async def test_no_page_weighs_more_than_120_kb(app, browser, feed):
    """Every page of the route table with all the files it names, gzipped: scripts, styles, icons and the page itself."""
    one = browser()
    await one.sign_in("root")
    weights = {}
    for route in app.routes:
        path = getattr(route, "path", "")
        if not isinstance(route, APIRoute) or "GET" not in route.methods or (path.startswith("/api/") and path != "/api/docs") or "{number}" in path:
            continue
        answer = await one.http.get(path.replace("{slug}", "anns").replace("{name}", "absent"))
        if not answer.headers.get("content-type", "").startswith("text/html"):
            continue
        files = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', answer.text))
        assert all((HERE / name.removeprefix("/")).is_file() for name in files), path
        weights[path] = len(gzip.compress(answer.content)) + sum(len(gzip.compress((HERE / name.removeprefix("/")).read_bytes())) for name in files)
    assert len(weights) > 25
    assert max(weights.values()) <= WEIGHT_MAX, sorted(weights.items(), key=lambda item: -item[1])[:3]


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(-1e9, 1e9)), min_size=1, max_size=2000))
def test_a_curve_stays_within_its_frame(points):
    """Whatever the equity: the path begins at the left, ends at the right, and never leaves the drawing."""
    rows = [{"at": isoformat(at * 1_000_000), "equity": value} for at, value in sorted(points)]
    curve = drawing.equity_curve(rows)
    heights = [float(value) for value in re.findall(r"V(-?[\d.e-]+)", curve.path)]
    assert all(-0.1 <= value <= drawing.HEIGHT + 0.1 for value in heights)
    assert all(-0.1 <= float(value) <= drawing.WIDTH + 0.1 for value in re.findall(r"H([\d.]+)", curve.path))
    assert curve.last == rows[-1]["equity"]

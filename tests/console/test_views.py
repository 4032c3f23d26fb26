"""Live candles, coverage by day, pipelines, notifications, ticks, and the written API: what they show is what is stored."""

import asyncio
import json
import re
from pathlib import Path

import pytest

from connections.rows import notify
from console.app import document
from console.documentation import markdown
from console.live import Hub
from core.clock import DAY_US, MINUTE_US, isoformat
from core.errors import RateLimitedError
from core.interval import Interval
from core.series import Series
from storage import pipelines
from storage.ledger import Gap, book_gaps
from storage.series import list_series
from tests.console.conftest import START_US, store_candles

DEFINITION = {
    "name": "crossing", "series": [{"connection": "anns", "symbol": "BTC/USD", "timeframe": "1m"}], "indicators": [{"plugin": "<b>sma</b>"}],
    "signals": [{"plugin": "cross"}],
}


@pytest.fixture
def pipeline(feed):
    """A pipeline of ann's, with a plug-in whose name is markup."""
    with feed.lake.metadata.write() as tx:
        return pipelines.create_pipeline(tx, DEFINITION, "0" * 64, "ann", feed.clock.now_us())


@pytest.mark.slow
async def test_a_stream_begins_with_the_newest_candles_and_tells_each_that_follows(app, browser, token, feed):
    """Server-sent events: the newest two candles, or all since the one that a viewer saw last; then each new one, however many come at once."""
    url = "/api/connections/anns/live?symbol=BTC/USD&timeframe=1m&seconds=8"
    back = {**token("ann"), "Last-Event-ID": "2026-01-05T04:50:00Z"}
    asked = [asyncio.create_task(browser().http.get(url, headers=headers)) for headers in (token("ann"), back)]
    await asyncio.sleep(3)
    await asyncio.to_thread(store_candles, feed, "anns", 310)
    told = []
    for answer in await asyncio.gather(*asked):
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.text.rstrip().rsplit("id: ", 1)[1].startswith("2026-01-05T05:09:00Z")
        told.append([row["ts"] for line in answer.text.splitlines() if line.startswith("data: ") for row in json.loads(line[6:])])
    minutes = [isoformat(START_US + number * MINUTE_US) for number in range(310)]
    assert sorted(set(told[0])) in (minutes[298:], minutes[308:])  # a busy machine may open the stream after the write
    assert sorted(set(told[1])) == minutes[minutes.index("2026-01-05T04:50:00Z"):]


async def test_a_stream_ends_with_its_session(browser, feed):
    """Signed out elsewhere: the next look ends the stream long before its time."""
    from storage import access, people

    one = browser()
    await one.sign_in("ann")
    asked = asyncio.create_task(one.http.get("/api/connections/anns/live?symbol=BTC/USD&timeframe=1m&seconds=3600"))
    await asyncio.sleep(0.2)
    with feed.lake.metadata.write() as tx:
        access.close_sessions(tx, people.get_user(tx, "ann").id)
    assert (await asyncio.wait_for(asked, 60)).status_code in {200, 303, 401}


def test_viewers_are_counted_and_bounded(monkeypatch):
    """Beyond the bound a viewer is told to come again; the last one who leaves takes what was kept along."""
    monkeypatch.setattr("console.live.VIEWERS_MAX", 3)
    hub, series = Hub(), Series.parse("anns", "BTC/USD", "1m")
    for _ in range(3):
        hub.check_room()
        hub.enter(series)
    with pytest.raises(RateLimitedError):
        hub.check_room()
    for _ in range(3):
        hub.leave(series)
    assert hub.viewers == 0
    hub.check_room()


def test_one_person_does_not_take_all_the_room(monkeypatch):
    """Whoever has as many views open as one may have waits; others do not, and the room is theirs again when a view closes."""
    monkeypatch.setattr("console.live.PERSON_MAX", 2)
    hub, series = Hub(), Series.parse("anns", "BTC/USD", "1m")
    for _ in range(2):
        hub.check_room("ann")
        hub.enter(series, "ann")
    with pytest.raises(RateLimitedError, match="close some"):
        hub.check_room("ann")
    hub.check_room("bob")
    hub.leave(series, "ann")
    hub.check_room("ann")
    hub.leave(series, "ann")
    assert hub.viewers == 0


async def test_the_map_counts_what_is_stored(browser, token):
    """Ann's 300 candles of one day: the cell says so, and opens the day's causes."""
    http, headers = browser().http, token("ann")
    text = (await http.get("/connections/anns/coverage", headers=headers)).text
    assert "2026-01-05: 300 of 300 stored" in text
    assert 'class="cell full"' in text
    (told,) = (await http.get("/api/connections/anns/coverage/days?days=2", headers=headers)).json()
    assert told["days"][-1] == {"day": "2026-01-05", "expected": 300, "stored": 300, "explained": 0, "kind": "full"}
    assert [item["kind"] for item in told["days"]] == ["none", "full"]
    assert (await http.get("/connections/anns/day?symbol=BTC/USD&timeframe=1m&day=2026-01-05", headers=headers)).status_code == 200
    assert (await http.get("/connections/anns/coverage?days=100000", headers=headers)).status_code == 422
    assert (await http.get("/connections/anns/day?day=never", headers=headers)).status_code == 422


async def test_the_map_has_pages_and_a_search(browser, token, feed):
    """Every series of a connection is on some page, twenty to each; words of symbol and timeframe find one, a page past the end is the last."""
    symbols = [f"C{n}/USD" for n in range(23)]
    feed.connections.update("anns", symbols=["BTC/USD", *symbols], timeframes=["1m", "1h"])
    http, headers = browser().http, token("ann")

    async def shown(query):
        text = (await http.get(f"/connections/anns/coverage?{query}", headers=headers)).text
        return re.findall(r"<h2>([^<]*)</h2>", text), text

    pages = [await shown(f"page_number={number}") for number in (1, 2, 3)]
    assert [len(found) for found, _ in pages] == [20, 20, 8]
    assert len({name for found, _ in pages for name in found}) == 48
    assert "Page 2 of 3, 48 series" in pages[1][1]
    assert (await shown("page_number=9"))[0] == pages[2][0]
    assert (await shown("series=c7+1h"))[0] == ["C7/USD 1h"]
    assert "No series of this connection holds" in (await shown("series=nothing"))[1]
    assert (await http.get("/connections/anns/coverage?page_number=0", headers=headers)).status_code == 422


async def test_a_day_of_long_ago_shows_its_own_causes(browser, token, feed):
    """A cell opens the gaps of its day, however many were booked later; one that began on the day before is among them."""
    with feed.lake.metadata.write() as tx:
        (row,) = list_series(tx, "anns")
        old = Interval(START_US - 40 * DAY_US - MINUTE_US, START_US - 40 * DAY_US + MINUTE_US)
        later = [Gap(row.id, Interval(at, at + MINUTE_US), "provider_empty") for at in range(START_US - 30 * DAY_US, START_US, 60 * MINUTE_US)]
        book_gaps(tx, [Gap(row.id, old, "out_of_reach"), *later], 1)
    ask = "/connections/anns/day?symbol=BTC/USD&timeframe=1m&day="
    http, headers = browser().http, token("ann")
    assert len(later) > 500
    for start in (START_US - 41 * DAY_US, START_US - 40 * DAY_US):
        text = (await http.get(ask + isoformat(start)[:10], headers=headers)).text
        assert "out_of_reach" in text
        assert "provider_empty" not in text
    assert "No gap is booked" in (await http.get(ask + isoformat(START_US - 39 * DAY_US)[:10], headers=headers)).text


async def test_the_coverage_of_all_has_pages_and_a_search(browser, token, feed):
    """Every series is on some page, a hundred to each; words of connection, symbol and timeframe find one; nobody finds others' series."""
    feed.connections.update("anns", symbols=["BTC/USD", *(f"C{n}/USD" for n in range(120))])
    http, headers = browser().http, token("ann")

    async def shown(query):
        text = (await http.get(f"/coverage?{query}", headers=headers)).text
        return re.findall(r'scope="row"><a[^>]*>([^<]*)</a>', text), text

    (first, text), (second, _) = await shown(""), await shown("page_number=2")
    assert (len(first), len(second), len({*first, *second})) == (100, 21, 121)
    assert "Page 1 of 2, 121 series" in text
    assert (await shown("page_number=7"))[0] == second
    assert (await shown("series=ANNS+c77"))[0] == ["anns C77/USD 1m"]
    assert "No series holds" in (await shown("series=bobs"))[1]
    status = (await http.get("/connections/anns", headers=headers)).text
    assert 'href="/coverage?series=anns">All 121 series' in status


async def test_pipelines_are_their_owners_and_admins(browser, token, pipeline):
    """The graph shows every stage, markup as text; another user is answered as if it were absent, and cannot switch it."""
    http = browser().http
    for person, status in (("ann", 200), ("root", 200), ("bob", 404)):
        headers = token(person, "read", "manage")
        listed = [row["name"] for row in (await http.get("/api/pipelines", headers=headers)).json()]
        assert listed == (["crossing"] if status == 200 else [])
        for path in ("/api/pipelines/crossing", "/api/pipelines/crossing/executions", "/api/pipelines/crossing/signals", "/pipelines/crossing"):
            assert (await http.get(path, headers=headers)).status_code == status
        absent = await http.post("/api/pipelines/absent/enable", headers=headers)
        switched = await http.post("/api/pipelines/crossing/enable", headers=headers)
        assert switched.status_code == status
        if status == 404:
            assert switched.text.replace("crossing", "absent") == absent.text
    text = (await http.get("/pipelines/crossing", headers=token("ann"))).text
    assert "<b>sma" not in text
    assert "cross" in text
    assert (await http.get("/pipelines", headers=token("ann"))).status_code == 200


async def test_a_notification_is_acknowledged_once_and_by_who_may_see_it(browser, token, feed):
    """Bob cannot; ann can, twice with the same answer; the page says so."""
    with feed.lake.metadata.write() as tx:
        notify(tx, "test", "error", feed.connections.get("anns").id, "It failed", "why", feed.clock.now_us())
    http, ann = browser().http, token("ann", "read", "manage")
    note = (await http.get("/api/notifications", headers=ann)).json()[0]["id"]
    url = f"/api/notifications/{note}/acknowledge"
    assert (await http.post(url, headers=token("bob", "read", "manage"))).status_code == 404
    first = (await http.post(url, headers=ann)).json()
    assert (await http.post(url, headers=ann)).json() == first
    assert "Acknowledge: It failed" not in (await http.get("/notifications", headers=ann)).text


async def test_notifications_have_pages_and_can_be_narrowed_to_what_is_unseen(browser, token, feed):
    """Fifty to a page, newest first; the API tells which were acknowledged; the oldest of thousands can be acknowledged too, and nobody sees another's."""
    with feed.lake.metadata.write() as tx:
        for number in range(1_100):
            notify(tx, "test", "error", feed.connections.get("anns").id, f"No {number}", "why", feed.clock.now_us())
        notify(tx, "test", "error", feed.connections.get("bobs").id, "Of bob", "why", feed.clock.now_us())
    http, ann = browser().http, token("ann", "read", "manage")

    async def asked(query):
        """Return the notifications that the API tells ann."""
        return (await http.get(f"/api/notifications?{query}", headers=ann)).json()

    newest = await asked("limit=1000")
    oldest = await asked(f"limit=1000&before={newest[-1]['id']}")
    assert [row["title"] for row in newest + oldest] == [f"No {number}" for number in range(1_099, -1, -1)]
    last = oldest[-1]["id"]
    assert (await http.post(f"/api/notifications/{last}/acknowledge", headers=ann)).status_code == 200
    assert [row["acknowledged"] is not None for row in await asked(f"before={last + 2}")] == [False, True]
    assert [row["id"] for row in await asked(f"unseen=true&before={last + 2}")] == [last + 1]
    text = (await http.get("/notifications?unseen=true", headers=ann)).text
    assert text.count("Acknowledge: No ") == 50
    older = re.search(r'href="([^"]+)" rel="next"', text).group(1).replace("&amp;", "&")
    assert "unseen=true" in older
    assert "Acknowledge: No 1049" in (await http.get(f"/notifications{older}", headers=ann)).text
    assert "Of bob" not in text


async def test_the_graph_tells_how_long_each_stage_takes(browser, pipeline, feed):
    """The mean time of each kind of plug-in stands in its stage's box."""
    with feed.lake.metadata.write() as tx:
        series = list_series(tx, "anns")[0]
        pipelines.add_executions(tx, [{
            "pipeline_id": pipeline.id, "version": 1, "series_id": series.id, "ts_us": START_US, "as_of_us": START_US, "run_id": "test",
            "created_at_us": START_US, "input_digest": "0" * 64, "stage": stage, "status": "ok", "output_digest": None, "rows_in": 9, "rows_out": 9,
            "parts": [], "error": None, "execution_time_ms": ms} for stage, ms in (("indicator", 12.5), ("signal", 3.25))])
    one = browser()
    await one.sign_in("ann")
    graph = re.search(r"<svg class=\"graph\".*?</svg>", (await one.get("/pipelines/crossing")).text, re.DOTALL)[0]
    assert re.findall(r">([\d.]+ ms)<", graph) == ["12.5 ms", "3.25 ms"]


async def test_signals_are_empty_and_ticks_absent_where_there_are_none(browser, token):
    """A series without signals: an empty list. No ticks were ever taken: 404 with what to do; a symbol must be named."""
    http, headers = browser().http, token("ann")
    none = await http.get("/api/connections/anns/signals?symbol=BTC/USD&timeframe=1m", headers=headers)
    assert (none.status_code, none.json()) == (200, [])
    absent = await http.get("/api/connections/anns/ticks?symbol=BTC/USD", headers=headers)
    assert (absent.status_code, set(absent.json())) == (404, {"error", "id", "cause", "fix", "docs"})
    assert (await http.get("/api/connections/anns/ticks", headers=headers)).status_code == 422


def test_the_written_documentation_is_of_this_api(app):
    """API_DOCUMENTATION.md is what the app's own document says; `python -m console.documentation` writes it anew."""
    written = Path(__file__).parents[2] / "API_DOCUMENTATION.md"
    assert written.read_text(encoding="utf-8") == markdown(document(app))

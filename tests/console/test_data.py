"""Candles, coverage, gaps, exports, health: what the API and the pages say is what the lake holds."""

import html
import io
import re
import zipfile
from xml.etree import ElementTree as ET

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from connections.rows import write_log
from core.clock import MINUTE_US, isoformat, parse_instant
from storage.metadata.tables import gaps, revisions
from storage.series import list_series
from tests.console.conftest import START_US


async def test_candles_are_the_lakes(browser, token, feed):
    """The API's rows are the lake's newest, ascending; ranges are half-open; the limit is kept."""
    http, headers = browser().http, token("ann")
    url = "/api/connections/anns/candles?symbol=BTC/USD&timeframe=1m"
    rows = (await http.get(url, headers=headers)).json()
    held = feed.lake.latest("anns", "BTC/USD", "1m", 100)
    assert [row["close"] for row in rows] == held["close"].to_list()
    assert rows[-1]["ts"] == "2026-01-05T04:59:00Z"
    some = (await http.get(f"{url}&start=2026-01-05T00:10:00Z&end=2026-01-05T00:20:00Z&limit=3", headers=headers)).json()
    assert [row["ts"][11:16] for row in some] == ["00:17", "00:18", "00:19"]


@pytest.mark.parametrize(("query", "status"), [
    ("symbol=BTC/USD&timeframe=7m", 422), ("symbol=ETH/USD&timeframe=1m", 404), ("symbol=BTC/USD&timeframe=1m&limit=0", 422),
    ("symbol=BTC/USD&timeframe=1m&limit=1000000", 422), ("symbol=BTC/USD&timeframe=1m&start=yesterday", 422),
    ("symbol=BTC/USD&timeframe=1m&start=2026-02-01&end=2026-01-01", 422), ("timeframe=1m", 422),
    ("symbol=../../etc/passwd&timeframe=1m", 404), ("symbol=%00&timeframe=1m", 422), ("symbol=x'%20OR%201=1&timeframe=1m", 404)])
async def test_bad_questions_get_one_line(browser, token, query, status):
    """Unknown, reversed, absurd and hostile parameters: a status, one line, no trace."""
    answer = await browser().http.get(f"/api/connections/anns/candles?{query}", headers=token("ann"))
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "id", "cause", "fix", "docs"}
    assert "Traceback" not in answer.text


async def test_exports_hold_the_same_candles(browser, token):
    """CSV, Parquet and XLSX hold the same times and closes as the API; CSV tells `known_at` to the microsecond, as it is needed for `as_of`."""
    http, headers = browser().http, token("ann")
    url = "/api/connections/anns/{}symbol=BTC/USD&timeframe=1m&limit=50"
    rows = (await http.get(url.format("candles?"), headers=headers)).json()
    files = {kind: (await http.get(url.format(f"export?format={kind}&"), headers=headers)).content for kind in ("csv", "parquet", "xlsx")}
    parquet, csv = pl.read_parquet(io.BytesIO(files["parquet"])), pl.read_csv(io.BytesIO(files["csv"]))
    assert parquet["close"].to_list() == csv["close"].to_list() == [row["close"] for row in rows]
    assert csv["ts"].to_list() == [row["ts"] for row in rows]
    assert csv["known_at"].to_list() == [row["known_at"] for row in rows]
    assert [isoformat(int(at.timestamp()) * 1_000_000) for at in parquet["ts"]] == [row["ts"] for row in rows]
    sheet = sheet_of(files["xlsx"])
    assert sheet[0][:6] == ["ts", "open", "high", "low", "close", "volume"]
    assert [float(row[4]) for row in sheet[1:]] == [row["close"] for row in rows]
    days = [25_569 + parse_instant(row["ts"]) / 86_400_000_000 for row in rows]  # 25,569: 1970 by the days of spreadsheets
    assert [float(row[0]) for row in sheet[1:]] == pytest.approx(days, abs=1e-6)  # real dates of a spreadsheet, in UTC


def sheet_of(book):
    """Return the cells of a workbook's first sheet, as its XML holds them."""
    space = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
    with zipfile.ZipFile(io.BytesIO(book)) as parts:
        shared = ["".join(item.itertext()) for item in ET.fromstring(parts.read("xl/sharedStrings.xml"))]
        rows = ET.fromstring(parts.read("xl/worksheets/sheet1.xml")).iter(f"{space}row")

        def read(cell):
            value = cell.findtext(f"{space}v", "")
            return shared[int(value)] if cell.get("t") == "s" else value

        return [[read(cell) for cell in row] for row in rows]


async def test_columns_are_the_same_candles(browser, token):
    """The chart's columns hold what the rows hold, derived ones with their parts."""
    http, headers = browser().http, token("ann")
    for more in ("1m", "1h&derive_from=1m"):
        url = "/api/connections/anns/candles{}?symbol=BTC/USD&limit=50&timeframe=" + more
        rows, columns = [(await http.get(url.format(kind), headers=headers)).json() for kind in ("", "/columns")]
        assert [isoformat(at * 1_000_000) for at in columns["t"]] == [row["ts"] for row in rows]
        for name in ("open", "high", "low", "close", "volume"):
            assert columns[name[0]] == [row[name] for row in rows]
        assert columns.get("parts") == ([row["parts"] for row in rows] if "derive" in more else None)


async def test_health_is_open_and_says_nothing_secret(browser):
    """Monitoring reads states without a login; no owner, address, error or name is in them."""
    http = browser().http
    rows = (await http.get("/api/data-connections/health")).json()
    assert [row["connection"] for row in rows] == ["anns", "bobs", "house"]
    assert set(rows[0]) == {"connection", "status", "last_candle", "lag_seconds", "gaps", "stream"}
    assert (await http.get("/livez")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ok"}
    assert (await http.get("/metrics")).status_code == 401


async def test_a_candle_is_there_as_of_the_instant_it_says(browser, token):
    """`known_at` is exact: asked for as of it, the series holds the candle; a microsecond earlier it does not."""
    http, headers = browser().http, token("ann")
    ask = {"symbol": "BTC/USD", "timeframe": "1m", "limit": 5}
    known = (await http.get("/api/connections/anns/candles", params=ask, headers=headers)).json()[-1]["known_at"]
    assert len(known) == len("2026-01-05T05:00:00.000000Z")
    then = (await http.get("/api/connections/anns/candles", params={**ask, "as_of": known}, headers=headers)).json()
    assert then[-1]["known_at"] == known
    before = isoformat(parse_instant(known) - 1)
    earlier = (await http.get("/api/connections/anns/candles", params={**ask, "as_of": before}, headers=headers)).json()
    assert known not in [row["known_at"] for row in earlier]


async def test_metrics_are_prometheus_text_for_admins(browser, token):
    """An admin's scrape holds lag and gaps of every connection; a user's is refused."""
    http = browser().http
    assert (await http.get("/metrics", headers=token("ann"))).status_code == 403
    text = (await http.get("/metrics", headers=token("root"))).text
    assert 'candlelake_connection_lag_seconds{connection="anns"}' in text


async def test_the_page_shows_what_the_api_says(browser):
    """The table of the newest hundred candles has pages; the chart is told where its data is."""
    one = browser()
    await one.sign_in("ann")
    text = (await one.get("/connections/anns/candles")).text
    assert text.count("2026-01-05T04:59:00Z") >= 1
    assert 'data-url="/api/connections/anns/candles/columns?symbol=BTC/USD&amp;timeframe=1m"' in text
    second = (await one.get("/connections/anns/candles?start=2026-01-05&end=2026-01-06&page_number=2")).text
    assert "Page 2 of 3, 300 candles" in second


async def test_an_order_without_prefect_says_so(browser, token):
    """When Prefect's server does not answer, the line says what to start; nothing hangs, and the refusal is audited."""
    answer = await browser().http.post("/api/connections/anns/runs", headers=token("ann", "manage", "read"), json={"flow": "fetch"})
    assert answer.status_code == 503
    assert "candlelake up" in answer.json()["error"]


@pytest.mark.parametrize("body", [{"flow": "cleanup"}, {"flow": "backfill"}, {"flow": "backfill", "symbol": "BTC/USD"}, {"flow": 1}, {}])
async def test_orders_that_make_no_sense_are_refused(browser, token, body):
    """Only flows that people order, with all that they need."""
    answer = await browser().http.post("/api/connections/anns/runs", headers=token("ann", "manage", "read"), json=body)
    assert answer.status_code == 422


async def test_the_api_says_whose_money_a_connection_reaches(browser, token, feed):
    """Null without credentials; unknown until a test was told; then what that test heard, in the list and by itself."""
    http, headers = browser().http, token("root", "manage", "read")
    feed.connections.create(ConnectionInput(slug="public", provider="ccxt:kraken", symbols=("BTC/USD",), timeframes=("1m",)))

    async def told():
        rows = (await http.get("/api/connections", headers=headers)).json()
        alone = (await http.get("/api/connections/house", headers=headers)).json()
        kinds = {row["slug"]: row["account"] for row in rows}
        assert kinds["house"] == alone["account"]
        assert kinds["public"] is None
        return alone["account"]

    assert await told() == "unknown"
    with feed.lake.metadata.write() as tx:
        row = feed.connections.get("house")
        write_log(tx, (row.id, row.slug), "test", "success", "tested", feed.clock.now_us() + 1, account="demo")
    assert await told() == "demo"


async def test_a_test_of_a_connection_says_each_step(browser, token):
    """The address does not answer: the steps say so, over API and page alike."""
    http, headers = browser().http, token("root", "manage", "read")
    await http.patch("/api/connections/house", headers=headers, json={
        "base_url": "http://127.0.0.1:9", "credentials": {"api_key": "k", "secret": "s"}})
    result = (await http.post("/api/connections/house/test", headers=headers)).json()
    assert result["type"] == "error"
    assert [step["name"] for step in result["steps"]] == ["address", "tls", "login", "permission", "candle"]
    one = browser()
    await one.sign_in("root")
    assert "class=\"steps\"" in (await one.post("/connections/house/test")).text


async def test_the_ledger_and_the_revisions_have_pages_and_filters(browser, token, feed):
    """250 gaps of two causes and 150 revisions: every one is on some page, by call and by page; a cause, a series and a range narrow them down."""
    http, headers = browser().http, token("ann")
    now_us, minute = feed.clock.now_us(), MINUTE_US
    with feed.lake.metadata.write() as tx:
        series = list_series(tx, "anns")[0]
        tx.execute(gaps.insert(), [{
            "series_id": series.id, "start_us": START_US - (2 * n + 2) * minute, "end_us": START_US - (2 * n + 1) * minute, "attempts": 1,
            "cause": "provider_empty" if n % 5 else "market_closed", "first_seen_us": now_us, "last_seen_us": now_us, "proof": {}} for n in range(250)])
        values = {"open": 1.0, "high": 2.0, "low": 1.0, "close": 1.5, "volume": 3.0, "spread": None, "source": "rest", "run_id": "test"}
        tx.execute(revisions.insert(), [{
            "series_id": series.id, "ts_us": START_US + n * minute, "known_at_us": now_us + n, "old_known_at_us": now_us - 1, "old": values,
            "new": values | {"close": 2.0}} for n in range(150)])

    async def asked(kind, **query):
        answer = await http.get(f"/api/connections/anns/{kind}", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    for kind, count, name in (("gaps", 250, "start"), ("revisions", 150, "ts")):
        pages = [await asked(kind, limit=100, skip=skip) for skip in (0, 100, 200, 300)]
        assert [len(rows) for rows in pages] == [min(100, max(0, count - skip)) for skip in (0, 100, 200, 300)]
        found = [row[name] for rows in pages for row in rows]
        assert found == sorted(set(found), reverse=True)
        shown, link = [], f"/connections/anns/{kind}"
        while link:
            text = (await http.get(link, headers=headers)).text
            shown += re.findall(r'<tr><th scope="row">[^<]*</th><td><time datetime="([^"]*)"', text)
            older = re.search(r'<a href="(\?[^"]*)" rel="next">', text)
            link = f"/connections/anns/{kind}{older[1].replace('&amp;', '&')}" if older else None
        assert shown == found
    assert len(await asked("gaps", cause="market_closed")) == 50
    assert await asked("gaps", symbol="ETH/USD") == []
    one = await asked("gaps", start=isoformat(START_US - 4 * minute), end=isoformat(START_US - 2 * minute))
    assert [row["start"] for row in one] == [isoformat(START_US - 4 * minute)]
    text = (await http.get("/connections/anns/gaps?cause=no_trade", headers=headers)).text
    assert "No gap like this is booked" in text
    assert (await http.get("/api/connections/anns/gaps?limit=100000", headers=headers)).status_code == 422


async def test_the_newest_candles_are_pages_of_a_table(browser, feed):
    """A hundred to a page, newest first, on to the oldest and back, each candle once; within a range the number of pages is told."""
    one = browser()
    await one.sign_in("ann")
    seen, path = [], "/connections/anns/candles"
    for _ in range(3):
        text = (await one.get(path)).text
        table = text.partition('id="table"')[2]
        seen += re.findall(r'<tr><td><time datetime="([^"]+)"', table)
        found = re.search(r'href="([^"]+)">Older', table)
        path = f"/connections/anns/candles{html.unescape(found.group(1))}" if found else None
    assert path is None
    assert "Page 3<" in text
    assert ">Newer</a>" in text
    assert seen == [at.strftime("%Y-%m-%dT%H:%M:%SZ") for at in feed.lake.candles("anns", "BTC/USD", "1m")["ts"].to_list()[::-1]]
    assert "Page 1 of 2, 120 candles" in (await one.get("/connections/anns/candles?start=2026-01-05&end=2026-01-05T02:00")).text
    assert "Page 3<" in (await one.get("/connections/anns/candles?page_number=77")).text

"""Candles, coverage, gaps, exports, health: what the API and the pages say is what the lake holds."""

import io

import polars as pl
import pytest

from connections.inputs import ConnectionInput
from connections.rows import write_log
from core.clock import isoformat, parse_instant


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
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text


async def test_exports_hold_the_same_candles(browser, token):
    """CSV, Parquet and XLSX hold the same closes as the API."""
    http, headers = browser().http, token("ann")
    url = "/api/connections/anns/export?symbol=BTC/USD&timeframe=1m&limit=50&format="
    parquet = pl.read_parquet(io.BytesIO((await http.get(url + "parquet", headers=headers)).content))
    csv = pl.read_csv(io.BytesIO((await http.get(url + "csv", headers=headers)).content))
    xlsx = (await http.get(url + "xlsx", headers=headers)).content
    assert parquet["close"].to_list() == csv["close"].to_list()
    assert parquet.height == 50
    assert xlsx[:2] == b"PK"


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

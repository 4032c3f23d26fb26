"""Derived timeframes in the viewer: made when somebody looks, equal to what the lake derives, bounded, told as derived everywhere."""

import csv
import io

import pytest

from console import derived_view
from core.clock import isoformat
from tests.console.conftest import START_US

ASK = {"symbol": "BTC/USD", "timeframe": "1h", "derive_from": "1m"}
API = "/api/connections/anns/candles"


async def test_the_api_derives_what_the_lake_derives(browser, token, feed):
    """Ann's 300 minutes are five hours of sixty parts; each value is the lake's own, and nothing is stored of it."""
    http, headers = browser().http, token("ann")
    rows = (await http.get(API, params=ASK, headers=headers)).json()
    truth = feed.lake.candles("anns", "BTC/USD", "1h", derive_from="1m")
    assert [(row["ts"], row["open"], row["high"], row["low"], row["close"], row["volume"], row["parts"]) for row in rows] == [
        (f"{ts:%Y-%m-%dT%H:%M:%SZ}", *values) for ts, *values in truth.select("ts", "open", "high", "low", "close", "volume", "parts").rows()]
    assert len(rows) == 5
    assert {(row["source"], row["derived_from"], row["anchor"], row["is_complete"]) for row in rows} == {("derived", "1m", "utc", True)}
    assert [row["ts"] for row in (await http.get(API, params={**ASK, "limit": 2}, headers=headers)).json()] == [row["ts"] for row in rows[-2:]]
    part = {"start": rows[1]["ts"], "end": rows[3]["ts"]}
    assert [row["ts"] for row in (await http.get(API, params={**ASK, **part}, headers=headers)).json()] == [row["ts"] for row in rows[1:3]]
    before = (await http.get(API, params={**ASK, "end": rows[2]["ts"]}, headers=headers)).json()
    assert [row["ts"] for row in before] == [row["ts"] for row in rows[:2]]
    known = isoformat(START_US)
    assert (await http.get(API, params={**ASK, "as_of": known}, headers=headers)).json() == []
    with feed.lake.metadata.read() as tx:
        assert tx.exec_driver_sql("SELECT COUNT(*) FROM series WHERE timeframe = '1h'").scalar_one() == 0


async def test_a_day_begins_where_its_anchor_says(browser, token):
    """New York's day of 17:00 holds the minutes from 22:00 UTC of the day before in winter."""
    rows = (await browser().http.get(API, params={**ASK, "timeframe": "1d", "anchor": "new_york"}, headers=token("ann"))).json()
    assert [(row["ts"], row["anchor"], row["is_complete"]) for row in rows] == [("2026-01-04T22:00:00Z", "new_york", False)]


@pytest.mark.parametrize(("change", "word"), [
    ({"timeframe": "7m"}, "timeframe"), ({"timeframe": "1m"}, "derive"), ({"anchor": "server"}, "anchor"), ({"anchor": "moon"}, "anchor"),
    ({"derive_from": None, "timeframe": "1m", "anchor": "new_york"}, "anchor"), ({"derive_from": "1x"}, "timeframe"),
    ({"start": "2010-01-01", "end": "2025-01-01"}, "range"), ({"limit": 10_001}, "limit")])
async def test_what_cannot_be_derived_is_said_in_one_line(browser, token, change, word):
    """A length that divides no day, an anchor without a broker, more than two million parts: refused, with what is allowed."""
    params = {name: value for name, value in {**ASK, **change}.items() if value is not None}
    answer = await browser().http.get(API, params=params, headers=token("ann"))
    assert answer.status_code == 422
    assert word in answer.text.casefold()


async def test_nobody_derives_from_others_series(browser, token):
    """Bob is answered as if ann's series were absent."""
    assert (await browser().http.get(API, params=ASK, headers=token("bob"))).status_code == 404


async def test_an_export_holds_what_is_shown(browser, token):
    """The file has the derived rows and says that they are derived, in its name too."""
    answer = await browser().http.get("/api/connections/anns/export", params={**ASK, "format": "csv"}, headers=token("ann"))
    assert "BTC-USD_1h_derived.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["parts"] for row in rows] == ["60"] * 5
    assert {row["source"] for row in rows} == {"derived"}


async def test_the_page_offers_and_shows_them(browser, feed):
    """What is not stored is offered apart, with where it begins; the chart asks for it and follows no stream; the table tells the parts."""
    feed.connections.update("anns", timeframes=["1m", "1d"])
    one = browser()
    await one.sign_in("ann")
    page = "/connections/anns/candles?symbol=BTC/USD&timeframe="
    plain = (await one.get(f"{page}1m")).text
    assert '<optgroup label="derived, not stored"><option>5m</option>' in plain
    assert "derive_from" not in plain
    text = (await one.get(f"{page}4h&anchor=utc")).text
    assert "timeframe=4h&amp;derive_from=1m&amp;anchor=utc" in text
    assert "data-live" not in text
    assert "<option selected>4h</option>" in text
    assert "made of 240<" in text
    assert "made of 60 of 240" in text
    assert "<option selected>45m</option>" in (await one.get(f"{page}45m")).text
    refused = await one.get(f"{page}4h&anchor=%22moon")
    assert refused.status_code == 200
    assert "received" in refused.text


def test_what_is_offered_can_be_made():
    """Only lengths that a stored one divides, shortest first; none where only days or months are kept."""
    assert derived_view.offered(["1m"]) == list(derived_view.OFFERED)
    assert derived_view.offered(["4h"]) == ["8h", "12h", "1d", "1w"]
    assert derived_view.offered(["1mo"]) == []
    assert derived_view.base_of(["1h", "5m"], "4h") == "5m"
    assert derived_view.base_of(["1h", "5m"], "15m") == "5m"
    assert derived_view.base_of(["1h"], "15m") is None


async def test_a_series_without_candles_derives_nothing(browser, token, feed):
    """A new series has none, and says so with an empty list."""
    feed.connections.update("anns", symbols=["BTC/USD", "ETH/USD"])
    answer = await browser().http.get(API, params={**ASK, "symbol": "ETH/USD"}, headers=token("ann"))
    assert (answer.status_code, answer.json()) == (200, [])

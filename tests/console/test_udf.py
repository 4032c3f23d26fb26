"""TradingView's datafeed contract, as its documents state it, and OpenBB's widgets."""

from datetime import UTC, datetime

import polars as pl
import pytest

from connections.service import ConnectionInput
from core.calendar import FxWeek, MarketCalendar
from core.candles import CANDLE_SCHEMA
from core.clock import HOUR_US, SECOND_US, parse_instant
from core.interval import Interval
from storage import Batch
from storage.calendars import put_calendar
from storage.series import grids_of, list_series
from tests.console.conftest import START_US

START = START_US // SECOND_US
URL = "/api/udf"


async def test_config_and_time(browser, token, clock):
    """The flags that the library reads first are there; the time is whole seconds as text."""
    http, headers = browser().http, token("ann")
    config = (await http.get(f"{URL}/config", headers=headers)).json()
    assert config["supports_search"] is True
    assert config["supports_group_request"] is False
    assert {"1", "60", "1D"} <= set(config["supported_resolutions"])
    assert (await http.get(f"{URL}/time")).text == str(clock.now_us() // SECOND_US)


async def test_symbols_tells_what_is_stored(browser, token):
    """Name, session, zone, scale and the resolutions that are stored; an unknown one is an error with its reason."""
    http, headers = browser().http, token("ann")
    found = (await http.get(f"{URL}/symbols", params={"symbol": "anns:BTC/USD"}, headers=headers)).json()
    assert (found["ticker"], found["session"], found["timezone"], found["pricescale"]) == ("anns:BTC/USD", "24x7", "Etc/UTC", 100)
    assert (found["supported_resolutions"], found["intraday_multipliers"], found["has_daily"]) == (["1"], ["1"], False)
    missing = await http.get(f"{URL}/symbols", params={"symbol": "anns:NO"}, headers=headers)
    assert (missing.status_code, missing.json()["s"], missing.json()["errmsg"]) == (404, "error", "unknown_symbol")


async def test_history_is_half_open_ascending_and_of_equal_lengths(browser, token, feed):
    """Bars of [from, to), in seconds, oldest first, as the lake holds them."""
    params = {"symbol": "anns:BTC/USD", "resolution": "1", "from": START + 60, "to": START + 240}
    found = (await browser().http.get(f"{URL}/history", params=params, headers=token("ann"))).json()
    assert found["s"] == "ok"
    assert found["t"] == [START + 60, START + 120, START + 180]
    assert [len(found[name]) for name in "ohlcv"] == [3] * 5
    assert found["c"] == feed.lake.candles("anns", "BTC/USD", "1m", end="2026-01-05T00:04:00Z")["close"].to_list()[1:]


async def test_countback_outweighs_from(browser, token):
    """The library asks for so many bars before `to`; it gets them although `from` is later."""
    params = {"symbol": "anns:BTC/USD", "resolution": "1", "from": START + 540, "to": START + 600, "countback": 5}
    found = (await browser().http.get(f"{URL}/history", params=params, headers=token("ann"))).json()
    assert found["t"] == [START + 300 + 60 * n for n in range(5)]


async def test_where_nothing_is_the_library_is_told_so_and_stops(browser, token):
    """Behind the last bar: no_data with the time of the one before; before the first: no_data alone, so that it asks no more."""
    http, headers = browser().http, token("ann")
    params = {"symbol": "anns:BTC/USD", "resolution": "1"}
    later = (await http.get(f"{URL}/history", params=params | {"from": START + 90_000, "to": START + 99_000}, headers=headers)).json()
    assert later == {"s": "no_data", "nextTime": START + 299 * 60}
    earlier = {"from": START - 9000, "to": START, "countback": 300}
    assert (await http.get(f"{URL}/history", params=params | earlier, headers=headers)).json() == {"s": "no_data"}
    refused = await http.get(f"{URL}/history", params=params | {"resolution": "7", "from": 0, "to": START}, headers=headers)
    assert (refused.status_code, refused.json()["s"]) == (422, "error")


@pytest.fixture
def broker(feed):
    """Ann's FX broker whose server's midnight is 22:00 UTC: days, weeks and months open on the evening before."""
    feed.connections.create(ConnectionInput(
        slug="broker", provider="mtapi:mt5", owner="ann", symbols=("EURUSD",), timeframes=("1h", "1d", "1w", "1mo"),
        credentials={"user": "1", "password": "x", "server": "Demo"}, config={"server_clock": [{"offset_minutes": 120, "dst": "none"}]}))
    with feed.lake.metadata.read() as tx:
        rows = {row.series.timeframe.name: row for row in list_series(tx, "broker")}
        grids = grids_of(tx, list(rows.values()))
    since = parse_instant("2025-10-31")
    for row in rows.values():
        interval = Interval(since, parse_instant("2026-01-05"))
        opened = [ts for ts in grids[row.id].slots(interval) if row.series.timeframe.name in {"1w", "1mo"} or not FxWeek().closed(Interval(ts, ts + HOUR_US))]
        frame = pl.DataFrame({"ts": opened, "open": 1.1, "high": 1.2, "low": 1.0, "close": 1.15, "volume": 5.0, "spread": None})
        frame = frame.with_columns(
            pl.col("ts").cast(pl.Datetime("us", "UTC")), close=pl.Series([1.1 + n / 1e5 for n in range(len(opened))])).cast(dict(CANDLE_SCHEMA))
        feed.lake.write([Batch(row.id, frame.select(CANDLE_SCHEMA.names()), "rest")], run_id="test")


async def test_an_fx_symbol_has_the_week_of_its_market(browser, token, broker, feed):
    """Session and zone are those of the series' calendar: New York's FX week, or what was set for the symbol; prices keep a broker's five digits."""
    http, headers = browser().http, token("ann")

    async def told():
        """Return what a chart is told of the symbol."""
        found = (await http.get(f"{URL}/symbols?symbol=broker:EURUSD", headers=headers)).json()
        return found["session"], found["timezone"], found["type"], found["pricescale"], found["has_daily"], found["has_weekly_and_monthly"]

    assert await told() == ("1700-1700:23456", "America/New_York", "forex", 100_000, True, True)
    with feed.lake.metadata.write() as tx:
        put_calendar(tx, feed.connections.get("broker").id, "EURUSD", MarketCalendar.from_spec({"zone": "EET", "weekly": [{"from": "Sat 00:00", "to": "Mon 00:00"}]}),
                     origin="set", now_us=1)
    assert (await told())[:2] == ("0000-0000:23456", "Europe/Athens")


async def test_days_weeks_and_months_are_dated_by_their_trading_day(browser, token, broker, feed):
    """A bar of a day is at 00:00 UTC of its trading day, of a week and a month at that of its first one, whenever it opened; hours keep their open."""
    http, headers = browser().http, token("ann")

    async def dates(resolution, count, to):
        """Return the dates of so many bars before an instant."""
        query = {"symbol": "broker:EURUSD", "resolution": resolution, "from": 0, "to": parse_instant(to) // SECOND_US, "countback": count}
        found = (await http.get(f"{URL}/history", params=query, headers=headers)).json()
        return [datetime.fromtimestamp(at, UTC).strftime("%a %Y-%m-%d %H:%M") for at in found["t"]]

    assert await dates("1D", 6, "2025-12-13") == [
        "Fri 2025-12-05 00:00", "Mon 2025-12-08 00:00", "Tue 2025-12-09 00:00", "Wed 2025-12-10 00:00", "Thu 2025-12-11 00:00", "Fri 2025-12-12 00:00"]
    assert await dates("1W", 2, "2025-12-15") == ["Mon 2025-12-01 00:00", "Mon 2025-12-08 00:00"]
    assert await dates("1M", 2, "2026-01-01") == ["Mon 2025-11-03 00:00", "Mon 2025-12-01 00:00"]
    assert await dates("60", 1, "2025-12-08") == ["Sun 2025-12-07 23:00"]
    opened = feed.lake.candles("broker", "EURUSD", "1d", start="2025-12-07", end="2025-12-08")["ts"].to_list()
    assert [at.strftime("%a %H:%M") for at in opened] == ["Sun 22:00"]


async def test_pages_of_bars_join_without_a_hole_or_a_repetition(browser, token, broker):
    """As the library asks: page after page, each ending where the last one began; each time once, ascending, until no_data. Ranges say the same."""
    http, headers = browser().http, token("ann")
    for resolution in ("60", "1D", "1W", "1M"):
        to, pages = parse_instant("2026-02-01") // SECOND_US, []
        query = {"symbol": "broker:EURUSD", "resolution": resolution}
        while True:
            found = (await http.get(f"{URL}/history", params=query | {"from": 0, "to": to, "countback": 7}, headers=headers)).json()
            if found["s"] == "no_data":
                break
            assert 0 < len(found["t"]) <= 7
            pages, to = [*found["t"], *pages], found["t"][0]
        assert found == {"s": "no_data"}
        assert pages == sorted(set(pages)), resolution
        middle = pages[len(pages) // 2]
        halves = [(await http.get(f"{URL}/history", params=query | {"from": since, "to": until}, headers=headers)).json()["t"]
                  for since, until in ((0, middle), (middle, parse_instant("2026-02-01") // SECOND_US))]
        assert halves[0] + halves[1] == pages, resolution


async def test_a_search_keeps_to_type_and_exchange(browser, token, broker):
    """The boxes of the library's search: crypto or forex, one connection, so many at most."""
    http, headers = browser().http, token("ann")

    async def found(**query):
        """Return the tickers of a search."""
        return [item["ticker"] for item in (await http.get(f"{URL}/search", params=query, headers=headers)).json()]

    assert await found(query="usd") == ["anns:BTC/USD", "broker:EURUSD"]
    assert await found(query="", type="forex") == ["broker:EURUSD"]
    assert await found(query="", type="crypto") == ["anns:BTC/USD"]
    assert await found(query="", exchange="broker") == ["broker:EURUSD"]
    assert await found(query="", limit=1) == ["anns:BTC/USD"]


async def test_search_and_symbols_know_only_ones_own(browser, token):
    """Another user's ticker is answered like an absent one; the search holds only the reader's."""
    http = browser().http
    for path in ("symbols", "history"):
        more = {"resolution": "1", "from": 0, "to": START}
        answers = [await http.get(f"{URL}/{path}", params={"symbol": name} | more, headers=token("bob")) for name in ("anns:BTC/USD", "gone:BTC/USD")]
        assert answers[0].status_code == answers[1].status_code == 404
        assert answers[0].text == answers[1].text
    for person, slugs in (("bob", {"bobs"}), ("root", {"anns", "bobs", "house"})):
        found = (await http.get(f"{URL}/search", params={"query": "btc"}, headers=token(person))).json()
        assert {item["exchange"] for item in found} == slugs
    assert (await http.get(f"{URL}/search", params={"query": "zzz"}, headers=token("root"))).json() == []


async def test_widgets_name_endpoints_that_are_there(browser, token):
    """OpenBB Workspace: each widget has a name, a type and an endpoint below the backend's address that answers."""
    http, headers = browser().http, token("ann")
    found = (await http.get("/api/widgets.json", headers=headers)).json()
    assert found["candlelake_chart"]["data"]["defaultSymbol"] == "anns:BTC/USD"
    for widget in found.values():
        assert widget["name"]
        endpoint = widget["endpoint"] + ("/config" if widget["type"] == "advanced_charting" else "")
        assert (await http.get(f"/api/{endpoint}", headers=headers)).status_code == 200

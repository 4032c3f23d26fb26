"""TradingView's datafeed contract, as its documents state it, and OpenBB's widgets."""

from core.clock import SECOND_US
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

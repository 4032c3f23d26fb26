"""The bridges answer as far as mtapi is known."""

from __future__ import annotations

from datetime import datetime

import httpx
import polars as pl
import pytest

from core.clock import ManualClock, parse_instant
from sandbox.box import DEMO_PASSWORD, Switches
from sandbox.server import running
from sandbox.sources import BUNDLED

LOGIN = {"user": "50000001", "password": DEMO_PASSWORD, "server": "Sandbox-Demo"}


def test_price_history_is_the_file_on_the_server_clock(mt5):
    """Bars of a range equal the Parquet's rows, three hours ahead in summer, both ends included."""
    rows = pl.read_parquet(BUNDLED / "oanda_EURUSD_M1_201405.parquet").filter(
        pl.col("ts").is_between(datetime.fromisoformat("2014-05-14T07:00Z"), datetime.fromisoformat("2014-05-14T09:00Z")))
    bars = mt5("PriceHistory", symbol="EURUSD", from_="2014-05-14T10:00:00", to="2014-05-14T12:00:00", timeFrame=1).json()
    assert bars[0]["time"] == "2014-05-14T10:00:00"
    assert bars[-1]["time"] == "2014-05-14T12:00:00"
    assert [bar["closePrice"] for bar in bars] == rows["close"].to_list()
    assert [bar["spread"] for bar in bars] == ((rows["ask_close"] - rows["close"]) * 1e5).round(0).cast(int).to_list()
    assert set(bars[0]) == {
        "time", "openPrice", "highPrice", "lowPrice", "closePrice", "tickVolume", "spread", "volume"}


def test_broker_time_files_are_served_as_written(mt5):
    """A file in the broker's wall clock comes back with its own times."""
    rows = pl.read_parquet(BUNDLED / "mt5_GBPUSD_H1_brokertime.parquet").tail(50)
    bars = mt5("PriceHistoryEx", symbol="GBPUSD", from_="2030-01-01T00:00:00", numBars=50, timeFrame=60).json()
    assert [bar["time"] for bar in bars] == rows["ts"].dt.strftime("%Y-%m-%dT%H:%M:%S").to_list()
    assert [bar["tickVolume"] for bar in bars] == rows["volume"].cast(int).to_list()


def test_tokens_are_stable_and_the_callers_choice_is_honoured(client):
    """The same account gets the same token; an id of the caller becomes the token."""
    first = client.get("/mt5/ConnectEx", params=LOGIN).text
    assert client.get("/mt5/ConnectEx", params=LOGIN).text == first
    assert client.get("/mt4/ConnectEx", params=LOGIN).text != first
    assert client.get("/mt5/ConnectEx", params={**LOGIN, "id": "mine"}).text == "mine"
    assert client.get("/mt5/CheckConnect", params={"id": "mine"}).text == "OK"


def test_string_answers_quoted_by_switch(box, mt5):
    """OK comes bare or as JSON."""
    assert mt5("CheckConnect").text == "OK"
    box.set(quoted=True)
    assert mt5("CheckConnect").text == '"OK"'


def test_sessions_end_and_come_back_by_token(mt5):
    """After Disconnect the token is invalid until ConnectByToken."""
    assert mt5("Disconnect").text == "OK"
    assert mt5("SymbolList").json()["code"] == "INVALID_TOKEN"
    assert mt5("ConnectByToken").status_code == 200
    assert "EURUSD" in mt5("SymbolList").json()


def test_idle_sessions_expire(box, mt5):
    """A session that was idle too long is not known any more."""
    box.set(idle_seconds=-1.0)
    assert mt5("CheckConnect").json()["code"] == "INVALID_TOKEN"


@pytest.mark.parametrize(("endpoint", "query", "code"), [
    ("GetQuote", {"symbol": "eurusd"}, "INVALID_SYMBOL"),
    ("PriceHistory", {"symbol": "EURUSD", "timeFrame": 90}, "DONE"),
    ("PriceHistory", {"symbol": "EURUSD", "timeFrame": 1, "from_": "yesterday"}, "DONE"),
    ("PriceHistoryMonth", {"symbol": "EURUSD", "timeFrame": 60, "year": 2014, "month": 13, "day": 1}, "DONE"),
    ("GetQuote", {"symbol": "EURUSD", "id": ""}, "NULL_ARGUMENT"),
])
def test_errors_are_201_with_a_body(mt5, endpoint, query, code):
    """A refusal is HTTP 201 with message, code and stackTrace."""
    answer = mt5(endpoint, **query)
    assert answer.status_code == 201
    assert answer.json()["code"] == code
    assert set(answer.json()) == {"message", "code", "stackTrace"}


def test_wrong_logins_are_refused(client):
    """A wrong password is INVALID_ACCOUNT, a wrong server DONE; ConnectEx honours the status asked for."""
    wrong = client.get("/mt5/ConnectEx", params={**LOGIN, "password": "no", "errorReplyStatusCode": 400})
    assert (wrong.status_code, wrong.json()["code"]) == (400, "INVALID_ACCOUNT")
    lost = client.get("/mt5/ConnectEx", params={**LOGIN, "server": "Nowhere"})
    assert (lost.status_code, lost.json()["code"]) == (201, "DONE")


def test_success_may_be_201(box, mt5):
    """By switch good answers carry 201 too."""
    box.set(success_status=201)
    assert mt5("AccountSummary").status_code == 201


def test_unknown_names_are_ignored_and_missing_ones_default(mt5):
    """A misspelt `from` is ignored: history begins at its beginning; nothing after `to`'s default."""
    bars = mt5("PriceHistory", symbol="EURUSD", fromDate="2014-05-15", to="2007-01-02T00:00:00", timeFrame=60).json()
    assert bars[0]["time"] == "2007-01-01T23:00:00"
    assert mt5("PriceHistory", symbol="EURUSD", from_="2014-05-15T00:00:00", timeFrame=60).json() == []


def test_unknown_paths_are_404_and_posts_refused(client):
    """An endpoint that is none is 404; a POST is 405."""
    assert client.get("/mt5/Nothing").status_code == 404
    assert client.post("/mt5/ConnectEx").status_code == 405
    assert client.get("/elsewhere/x").status_code == 404


def test_order_and_end_switches(box, mt5):
    """Bars may come newest first, and without the one that opens at `to`."""
    ask = {"symbol": "EURUSD", "from_": "2014-05-14T10:00:00", "to": "2014-05-14T10:05:00", "timeFrame": 1}
    up = mt5("PriceHistory", **ask).json()
    box.set(order="desc", end_inclusive=False)
    assert mt5("PriceHistory", **ask).json() == up[:-1][::-1]


def test_days_are_cut_at_server_midnight(mt5):
    """A daily bar is the server's day, built of its hours."""
    day = mt5("PriceHistory", symbol="GBPUSD", from_="2022-03-03T00:00:00", to="2022-03-03T00:00:00", timeFrame=1440).json()
    rows = pl.read_parquet(BUNDLED / "mt5_GBPUSD_H1_brokertime.parquet").filter(
        pl.col("ts").dt.strftime("%Y-%m-%d") == "2022-03-03")
    assert len(day) == 1
    assert day[0]["time"] == "2022-03-03T00:00:00"
    assert day[0]["highPrice"] == rows["high"].max()
    assert day[0]["tickVolume"] == rows["volume"].sum()


def test_h4_may_be_off_the_grid(box, mt5):
    """By switch four hours are cut from where the range begins."""
    box.set(off_grid_h4=True)
    bars = mt5("PriceHistory", symbol="GBPUSD", from_="2022-03-03T01:00:00", to="2022-03-03T20:00:00", timeFrame=240).json()
    assert [bar["time"][11:13] for bar in bars] == ["01", "05", "09", "13", "17"]


def test_counting_back_month_and_many(mt5):
    """PriceHistoryEx counts back from `from`; Month is 30 days back; Many wraps each symbol."""
    back = mt5("PriceHistoryEx", symbol="EURUSD", from_="2014-05-14T10:00:00", numBars=5, timeFrame=1).json()
    assert [bar["time"][14:16] for bar in back] == ["56", "57", "58", "59", "00"]
    month = mt5("PriceHistoryMonth", symbol="EURUSD", year=2014, month=5, day=15, timeFrame=60).json()
    assert month[0]["time"] == "2014-04-15T00:00:00"
    many = mt5("PriceHistoryExMany", symbol=["EURUSD", "NOPE"], from_="2014-05-14T10:00:00", numBars=5, timeFrame=1).json()
    assert many[0] == {"symbol": "EURUSD", "bars": back, "exception": None}
    assert many[1]["exception"]["code"] == "INVALID_SYMBOL"
    high_low = mt5("PriceHistoryHighLow", symbol="EURUSD", from_=back[0]["time"], to=back[-1]["time"], timeFrame=1).json()
    assert high_low["highPrice"] == max(bar["highPrice"] for bar in back)
    assert mt5("PriceHistoryTodayMany", symbols="EURUSD", timeFrame=60).json() == [{"symbol": "EURUSD", "bars": []}]


def test_symbols_and_suffix(box, mt5):
    """Symbols is an object by name; a broker's suffix is part of the exact name."""
    box.set(suffix="m")
    assert set(mt5("Symbols").json()) == set(mt5("SymbolList").json())
    assert mt5("SymbolParams", symbol="EURUSDm").json()["symbolInfo"]["digits"] == 5
    assert mt5("SymbolParams", symbol="EURUSD").json()["code"] == "INVALID_SYMBOL"
    assert len(mt5("SymbolParamsMany").json()) == len(mt5("SymbolList").json())
    assert len(mt5("SymbolSessions", symbol="EURUSDm").json()["quotes"]) == 7


def test_account_quote_and_clock(box, mt5):
    """Details repeat the password; times are naive server time; the zone's unit is a switch."""
    details = mt5("AccountDetails").json()
    assert details["password"] == LOGIN["password"]
    assert details["serverTime"] == "2025-10-28T07:01:30"  # US summer time: UTC+3
    assert mt5("ServerTimezone").json() == 3
    box.set(timezone_unit="minutes", dst="eu")
    assert mt5("ServerTimezone").json() == 120
    assert mt5("Account").json()["login"] == 50000001
    quote = mt5("GetQuote", symbol="EURUSD").json()
    assert quote["ask"] > quote["bid"] > 1
    assert mt5("OpenedOrders").json() == []
    assert mt5("OrderHistory").json()["orders"] == []
    assert mt5("ConnectionStatus").json()["isConnected"] is True


def test_off_hours(box, mt5):
    """Off hours: not connected, no quotes, not synced, while data still answers."""
    box.set(off_hours=True)
    assert mt5("CheckConnect").json()["code"] == "SERVICE_NOT_AVAILABLE"
    assert mt5("GetQuote", symbol="EURUSD").json()["bid"] == 0
    assert mt5("AccountSummary").json()["synced"] is False
    assert mt5("IsTradeSession", symbol="EURUSD").json() is False
    assert mt5("SymbolList").json()


def test_mt4_speaks_its_own_way(client):
    """QuoteHistory counts back with text timeframes; the market is MT5's."""
    token = client.get("/mt4/ConnectEx", params=LOGIN).text
    ask = {"id": token, "symbol": "EURUSD", "timeframe": "M1", "from": "2014-05-14T10:00:00", "count": 3}
    bars = client.get("/mt4/QuoteHistory", params=ask).json()
    assert [bar["time"][11:] for bar in bars] == ["09:58:00", "09:59:00", "10:00:00"]
    assert set(bars[0]) == {"time", "open", "high", "low", "close", "volume"}
    assert client.get("/mt4/QuoteHistory", params={**ask, "timeframe": "1"}).json()["code"] == "DONE"
    assert client.get("/mt4/QuoteHistory", params={**ask, "count": 40_000}).json()["code"] == "DONE"
    assert client.get("/mt4/QuoteHistoryMany", params=ask).json()[0]["bars"] == bars
    assert client.get("/mt4/GetQuote", params=ask).status_code == 404
    assert set(client.get("/mt4/Quote", params=ask).json()) == {"symbol", "bid", "ask", "time", "high", "low"}
    assert "EURUSD" in client.get("/mt4/Symbols", params=ask).json()
    assert client.get("/mt4/SymbolParams", params=ask).json()["symbol"]["point"] == pytest.approx(1e-5)
    assert "method" not in client.get("/mt4/AccountSummary", params=ask).json()


def test_the_last_bar_is_open_and_grows_until_it_closes():
    """A bar that is forming is served with what has happened of it; closed, it is the file's."""
    clock = ManualClock(parse_instant("2014-05-14T07:00:20Z"))
    with running(clock=clock, switches=Switches(dst="none")) as box, httpx.Client(base_url=box.url) as client:
        token = client.get("/mt5/ConnectEx", params=LOGIN).text
        ask = {"id": token, "symbol": "EURUSD", "from": "2014-05-14T09:00:00", "to": "2099-01-01T00:00:00", "timeFrame": 1}
        early = client.get("/mt5/PriceHistory", params=ask).json()
        clock.set(parse_instant("2014-05-14T07:00:50Z"))
        late = client.get("/mt5/PriceHistory", params=ask).json()
        clock.set(parse_instant("2014-05-14T07:01:00Z"))
        closed = client.get("/mt5/PriceHistory", params=ask).json()
    assert [len(early), len(late)] == [1, 1]
    assert early != late != closed[:1]
    assert early[0]["tickVolume"] < closed[0]["tickVolume"]
    assert closed[0]["lowPrice"] <= early[0]["lowPrice"] <= early[0]["highPrice"] <= closed[0]["highPrice"]

"""Every fault can be seen from outside, and is off again afterwards."""

from __future__ import annotations

import httpx
import pytest

from core.errors import InputError
from sandbox.faults import KINDS, Faults

KLINES = "/api.binance.com/api/v3/klines"
ASK = {"symbol": "BTCBUSD", "interval": "1m", "startTime": "1670889600000", "limit": "100"}
MINUTE = 60_000


def times(rows):
    """Return the open times of klines."""
    return [row[0] for row in rows]


@pytest.mark.parametrize("status", [418, 429, 451, 500, 502, 503, 504])
def test_status_with_retry_after(box, client, status):
    """A status fault answers with the status, HTML, and the Retry-After asked for; `count` ends it."""
    box.faults.add("status", KLINES, status=status, retry_after=7, count=1)
    answer = client.get(KLINES, params=ASK)
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
    assert answer.text.startswith("<html>")
    assert client.get(KLINES, params=ASK).status_code == 200


def test_bodies_that_lie(box, client):
    """200 with HTML, cut JSON, {}, null, a redirect elsewhere."""
    good = client.get(KLINES, params=ASK).content
    seen = {}
    for kind in ("html", "truncated", "empty_object", "null", "redirect"):
        box.faults.add(kind, count=1)
        seen[kind] = client.get(KLINES, params=ASK, follow_redirects=False)
    assert "<html>" in seen["html"].text
    assert seen["html"].status_code == 200
    assert seen["truncated"].content == good[: len(good) // 2]
    assert (seen["empty_object"].text, seen["null"].text) == ("{}", "null")
    assert (seen["redirect"].status_code, seen["redirect"].headers["Location"]) == (302, "http://localhost.invalid/")


def test_connections_that_fail(box, client):
    """A hang never answers, a drop resets the connection."""
    box.faults.add("hang", KLINES, count=1)
    with pytest.raises(httpx.ReadTimeout):
        client.get(KLINES, params=ASK, timeout=httpx.Timeout(60, read=0.3))
    box.faults.add("drop", KLINES, count=1)
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
        client.get(KLINES, params=ASK)
    assert client.get(KLINES, params=ASK).status_code == 200


def test_slow_and_huge_bodies(box, client):
    """Slow bytes come one by one but whole; a huge body goes far beyond any candle page."""
    box.faults.add("slow", "/api.binance.com/*/time", seconds=0.0, count=1)
    assert "serverTime" in client.get("/api.binance.com/api/v3/time").json()
    box.faults.add("huge", KLINES, count=1)
    size = 0
    with client.stream("GET", KLINES, params=ASK) as answer:
        for piece in answer.iter_raw():
            size += len(piece)
            if size > 20_000_000:
                break
    assert size > 20_000_000


def test_pages_that_miss_or_repeat_rows(box, client):
    """Empty, short, holed, doubled and shuffled pages."""
    good = times(client.get(KLINES, params=ASK).json())
    seen = {}
    for kind in ("empty_page", "short_page", "missing_rows", "duplicate_rows", "unsorted"):
        box.faults.add(kind, KLINES, count=1)
        seen[kind] = times(client.get(KLINES, params=ASK).json())
    assert seen["empty_page"] == []
    assert seen["short_page"] == good[:-3]
    assert seen["missing_rows"] == good[:49] + good[52:]
    assert seen["duplicate_rows"] == good + good[-3:]
    assert seen["unsorted"] != good
    assert sorted(seen["unsorted"]) == good


def test_rows_that_are_wrong(box, client):
    """Off-grid times, NaN, negative prices, high below low: one row in the middle."""
    seen = {}
    for kind in ("off_grid", "nan", "negative_price", "high_below_low"):
        box.faults.add(kind, KLINES, count=1)
        seen[kind] = client.get(KLINES, params=ASK).json()
    assert [row[0] % MINUTE for row in seen["off_grid"] if row[0] % MINUTE] == [20_000]
    assert [row[4] for row in seen["nan"] if row[4] == "nan"] == ["nan"]
    assert sum(float(row[3]) < 0 for row in seen["negative_price"]) == 1
    assert sum(float(row[2]) < float(row[3]) for row in seen["high_below_low"]) == 1


def test_late_revision_changes_closed_candles_in_a_range(box, client):
    """Candles in the range come with other values, sound ones; the others stay."""
    good = client.get(KLINES, params=ASK).json()
    begin = 1_670_889_600
    box.faults.add("late_revision", KLINES, since=begin + 600, until=begin + 1200, factor=1.5)
    revised = client.get(KLINES, params=ASK).json()
    changed = [index for index, (one, other) in enumerate(zip(good, revised, strict=True)) if one != other]
    assert changed == list(range(10, 20))
    assert all(float(row[3]) <= float(row[4]) <= float(row[2]) for row in revised)


def test_clock_skew(box, client):
    """The server's time runs off by the seconds asked for."""
    before = client.get("/api.binance.com/api/v3/time").json()["serverTime"]
    box.faults.add("clock_skew", "/api.binance.com/*", seconds=-90)
    assert client.get("/api.binance.com/api/v3/time").json()["serverTime"] == before - 90_000


def test_chance_is_seeded():
    """The same seed strikes the same requests; probability 0.5 strikes some and spares some."""
    def strikes(seed):
        faults = Faults(seed)
        faults.add("status", probability=0.5)
        return [bool(faults.strike("/x", KINDS)) for _ in range(50)]

    assert strikes(1) == strikes(1) != strikes(2)
    assert 10 < sum(strikes(1)) < 40


def test_patterns_and_removal(box, client):
    """A fault strikes only paths that match, and not after its removal."""
    fault = box.faults.add("status", "/api.kraken.com/*", status=502)
    assert client.get(KLINES, params=ASK).status_code == 200
    assert client.get("/api.kraken.com/0/public/Time").status_code == 502
    box.faults.remove(fault)
    assert client.get("/api.kraken.com/0/public/Time").status_code == 200


def test_levers_over_http(client, box):
    """Other processes switch faults and switches, read the log with secrets masked, and reset."""
    client.get("/mt5/ConnectEx", params={"user": "1", "password": "s3cret", "server": "x"})
    log = client.get("/_sandbox/requests").text
    assert "s3cret" not in log
    assert "ConnectEx" in log
    assert client.post("/_sandbox/faults", json={"kind": "null", "path": "/api.kraken.com/*"}).json()["active"] == 1
    assert client.get("/api.kraken.com/0/public/Time").text == "null"
    assert client.post("/_sandbox/switches", json={"suffix": "m", "idle_seconds": 10}).status_code == 200
    assert box.switches.suffix == "m"
    assert client.post("/_sandbox/reset").json() == {"reset": True}
    assert (box.faults.active, box.switches.suffix, box.requests) == ([], "", [])
    assert "EURUSD" in client.get("/_sandbox").json()["served"]["broker"]


@pytest.mark.parametrize(("lever", "body"), [
    ("faults", {"kind": "no"}), ("faults", {"kind": "null", "probability": 2}), ("faults", {"kind": "null", "x": 1}),
    ("faults", {"kind": "null", "count": "many"}), ("switches", {"order": "random"}), ("switches", {"x": 1}),
    ("switches", {"quoted": "yes"}), ("nothing", {}), ("faults", [1])])
def test_wrong_levers_are_told(client, lever, body):
    """A lever, fault or switch that is none is a 400 with one line."""
    answer = client.post(f"/_sandbox/{lever}", json=body)
    assert answer.status_code == 400
    assert "\n" not in answer.json()["error"]


def test_web_pages_cannot_pull_levers(client):
    """A request with an Origin is refused; a body that is no JSON is told."""
    assert client.post("/_sandbox/reset", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post("/_sandbox/faults", content=b"{").status_code == 400


def test_unknown_faults_are_input_errors():
    """The Python lever refuses unknown kinds and settings."""
    with pytest.raises(InputError):
        Faults().add("earthquake")
    with pytest.raises(InputError):
        Faults().add("null", hits=3)

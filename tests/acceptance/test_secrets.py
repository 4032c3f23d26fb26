"""A planted secret, used through every command and every failure, is found nowhere afterwards."""

import base64
import json
import re
from urllib.parse import quote

import pytest

from sandbox.box import Account
from tests.acceptance.canary import CANARY, echoes, forms, found_in

TAILS = {name: f"{name}-{CANARY}" for name in ("mt5", "mt4", "key", "secret", "wrong")}
BROKER = {"user": "50000001", "server": "Sandbox-Demo"}
RANGE = ("2024-05-06", "2024-05-10")


@pytest.fixture
def box(home, serve, monkeypatch):
    """A broker that knows the canary as its password, and exchanges; what they serve is now."""
    monkeypatch.setenv("CANDLELAKE_REQUEST_TIMEOUT", "4")
    return serve(data=None, mode="replay", accounts=[Account(50000001, TAILS["mt5"], "Sandbox-Demo")])


def test_the_search_finds_every_form():
    """The search itself is sound: each form of the canary is found in the midst of other bytes."""
    for form in forms(CANARY):
        assert found_in(b"xx" + form + b"yy")
    assert found_in(base64.b64encode(b'{"a": "' + CANARY.encode() + b'"}'))
    assert not found_in(b"nothing here")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_planted_secret_is_found_nowhere(box, candlelake, start_child, home, tmp_path) -> None:
    """Added, tested, refused, echoed by the provider, timed out, traced: no file of the home and no output holds it."""
    said: list[str] = []

    def do(*words, codes=(0, 1, 2, 3), stdin=""):
        is_plain = "mt4" in words or words[1:2] == ("activate",)  # of the others errors are told whole
        extra = () if is_plain else ("--debug",)
        answer = candlelake(*words, *extra, stdin=stdin)
        said.append(f"{words[:2]}: {answer.code}\n{answer.out}\n{answer.err}")
        assert answer.code in codes, said[-1]

    outside = tmp_path.parent / f"{tmp_path.name}-credentials.json"  # not below the folder that is searched
    outside.write_text(json.dumps({**BROKER, "password": TAILS["mt5"]}))
    for platform in ("mt5", "mt4"):
        do("connections", "add", platform, "--provider", f"mtapi:{platform}", "--base-url", f"{box.url}/{platform}", "--symbol", "EURUSD",
           "--timeframe", "1h", "--credentials", outside, "--json", codes=(0,))
    do("connections", "add", "binance", "--provider", "ccxt:binance", "--base-url", box.url, "--symbol", "BTC/USDT", "--timeframe", "1h",
       "--credentials", "-", codes=(0,), stdin=json.dumps({"api_key": TAILS["key"], "secret": TAILS["secret"]}))
    for slug, symbol in (("mt5", "EURUSD"), ("mt4", "EURUSD"), ("binance", "BTC/USDT")):
        do("connections", "test", slug, "--json", codes=(0,))
        do("fetch", slug, codes=(0, 3))
        do("backfill", slug, symbol, "1h", *RANGE, codes=(0, 3))
        path, own = (f"/{slug}/*", TAILS["mt5"]) if slug != "binance" else ("/api.binance.com/*", TAILS["secret"])
        echo = echoes(own)
        for fault in (
            {"kind": "status", "status": 502, "body": echo}, {"kind": "status", "status": 429, "body": echo, "retry_after": 0},
            {"kind": "status", "status": 400, "body": echo}, {"kind": "status", "status": 200, "body": echo},
            {"kind": "html"}, {"kind": "truncated"}, {"kind": "hang", "count": 1},
            {"kind": "redirect", "location": f"http://127.0.0.1:9/?password={quote(TAILS['mt5'])}"},
        ):
            box.faults.clear()
            box.faults.add(fault["kind"], path, **{key: value for key, value in fault.items() if key != "kind"})
            do("connections", "activate", slug)
            do("connections", "test", slug)
            do("fetch", slug)
        box.faults.clear()
        do("connections", "activate", slug)
    for slug in ("mt5", "mt4"):  # wrong password, host that is not there
        do("connections", "update", slug, "--credentials", "-", stdin=json.dumps({**BROKER, "password": TAILS["wrong"]}), codes=(0,))
        do("connections", "test", slug, codes=(1,))
        do("fetch", slug, codes=(1,))
        do("connections", "update", slug, "--base-url", "http://127.0.0.1:9/mt5", "--credentials", outside, codes=(0,))
        do("connections", "test", slug, codes=(1,))
        do("fetch", slug, codes=(1,))
    do("connections", "add", "bad", "--provider", "mtapi:mt5", "--credentials", "-", codes=(2,), stdin=json.dumps({"pasword": CANARY}))
    do("connections", "add", "bad", "--provider", "mtapi:mt5", "--credentials", "-", codes=(2,), stdin=CANARY)
    do("connections", "add", "bad", "--provider", "mtapi:mt5", "--base-url", f"http://u:{quote(CANARY, safe='')}@localhost/", codes=(2, 1))
    for words in (
        ("connections", "list", "--json"), ("connections", "show", "mt5", "--json"), ("connections", "show", "binance", "--json"),
        ("connections", "logs", "mt5", "--json"), ("connections", "logs", "binance"), ("audit",), ("flush",), ("verify",), ("doctor",),
        ("config",), ("gaps", "--json"), ("coverage",), ("query", "FROM connections"), ("export", "binance", "BTC/USDT", "1h", tmp_path / "out.csv"),
        ("backup", tmp_path / "backup"), ("connections", "delete", "mt4"), ("connections", "delete", "mt4", "--yes", "--purge"),
    ):
        do(*words)
    child = start_child("fetch", "binance", "--debug", CANDLELAKE_LOG_LEVEL="DEBUG")
    said.append(child.communicate()[0])

    assert any("Traceback" in text for text in said)
    assert (home / "metadata.db").exists()
    searched = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"metadata.db", "keys"} <= {path.name for path in searched}
    assert any(path.suffix == ".parquet" for path in searched)
    leaks = [f"{path.relative_to(tmp_path)}: {found_in(path.read_bytes())}" for path in searched if found_in(path.read_bytes())]
    leaks += [re.sub(r"\s+", " ", text)[:1500] for text in said if found_in(text.encode())]
    outside.unlink()
    assert leaks == []

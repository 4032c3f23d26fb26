"""Abuse of the console that the other modules do not try; docs/security.md lists all twenty-five kinds and their tests."""

import asyncio
import json
import re
from datetime import timedelta

import pytest
from fastapi.routing import APIRoute

from console import policy
from console.app import LOGINS_AT_ONCE
from core.errors import NotPermittedError
from core.secrets import redact
from storage import access, audit, people, pipelines
from tests.console.conftest import PASSWORD
from tests.console.home import YAML
from tests.console.test_policies import ABSENT, FILLED, filled

CANARY = "canary-5d1e77"
HOSTILE = ["'; DROP TABLE series; --", "BTC/USD' OR '1'='1", "x') UNION SELECT * FROM users --", "\"; ATTACH '/etc/passwd'", "%00", "$(id)"]


async def test_no_body_of_any_kind_comes_back(app, browser, token, caplog):
    """A4: each changing call gets wrong types, unknown fields, broken JSON and a wrong content type; no answer or log has the canary."""
    caplog.set_level("DEBUG")
    http, headers = browser().http, token("root", "read", "manage")
    bodies = [
        {"json": {"password": CANARY, "credentials": CANARY}}, {"json": [CANARY]}, {"json": {CANARY: CANARY}},
        {"content": b'{"secret": "' + CANARY.encode(), "headers": {"content-type": "application/json"}},
        {"content": CANARY.encode() * 50, "headers": {"content-type": "application/xml"}},
        {"data": {"csrf": "", "password": CANARY * 40, "code": CANARY * 40, "credentials": CANARY}}]
    asked = 0
    for route in app.routes:
        if not isinstance(route, APIRoute) or not route.methods - policy.SAFE:
            continue
        for method in route.methods - policy.SAFE:
            for body in bodies:
                sent = {**body, "headers": {**headers, **body.get("headers", {})}}
                names = ABSENT if route.path.endswith("/test") else FILLED  # a real test waits for a provider
                answer = await http.request(method, filled(route.path, names), **sent)
                assert answer.status_code < 500 or answer.status_code == 503, (method, route.path, answer.text[:300])
                assert CANARY not in answer.text, (method, route.path, answer.text[:400])
                assert CANARY not in str(answer.headers), (method, route.path)
                asked += 1
    assert asked > 150
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("httpx", "httpcore", "asyncio", "hpack"))]
    assert not [line for line in ours if CANARY in line]


async def test_a_name_used_again_shows_nothing_of_its_former_owner(browser, token, feed):
    """A1: bob takes the name of a connection that ann has deleted; its log, by call, page and download, is of his own alone."""
    http, ann, bob = browser().http, token("ann", "read", "manage"), token("bob", "read", "manage")
    assert (await http.patch("/api/connections/anns", headers=ann, json={"name": "Ann's own"})).status_code == 200
    before = (await http.get("/api/connections/anns/logs", headers=ann)).json()
    assert before
    assert (await http.delete("/api/connections/anns?purge=true", headers=ann)).status_code == 200
    assert (await http.post("/api/connections", headers=bob, json={"slug": "anns", "provider": "ccxt:kraken"})).status_code == 201
    seen = (await http.get("/api/connections/anns/logs", headers=bob)).json()
    assert seen
    assert not {row["id"] for row in seen} & {row["id"] for row in before}
    assert not [row for row in seen if row["action"] in {"delete", "update"}]
    for path in ("/connections/anns/logs", "/connections/anns/logs.jsonl", "/connections/anns"):
        assert "candles removed" not in (answer := (await http.get(path, headers=bob)).text)
        assert "credential fields" not in answer


@pytest.mark.slow
async def test_reading_changes_nothing_and_no_method_is_smuggled(app, browser, feed):
    """A10: every GET leaves the metadata as it is, and a GET that calls itself POST or DELETE is a GET."""
    one = browser()
    await one.sign_in("root")
    before = [feed.connections.get(slug) for slug in ("anns", "bobs", "house")]
    for route in app.routes:
        if isinstance(route, APIRoute) and "GET" in route.methods and "/live" not in route.path and not route.path.startswith("/login/oidc"):
            for trick in ({}, {"x-http-method-override": "DELETE"}, {"x-method-override": "POST"}):
                answer = await one.http.get(filled(route.path) + "?_method=DELETE&symbol=BTC/USD&timeframe=1m", headers=trick)
                assert answer.status_code < 500 or answer.status_code == 503, (route.path, answer.text[:300])
    assert [feed.connections.get(slug) for slug in ("anns", "bobs", "house")] == before


async def test_spraying_over_names_slows_the_address_down(browser, clock):
    """A12: one guess for each of many names runs into the address's own count, whatever the forwarding header says."""
    http = browser().http
    statuses = [(await http.post("/login", data={"name": f"name{n}", "password": "Winter2026!!"}, headers={"x-forwarded-for": f"198.18.0.{n}"}))
                .status_code for n in range(12)]
    assert statuses[:5] == [401] * 5
    assert statuses[-1] == 429
    clock.advance(timedelta(hours=1))
    assert (await http.post("/login", data={"name": "ann", "password": PASSWORD})).status_code == 303


async def test_guesses_at_once_are_no_way_around_the_wait(browser, monkeypatch):
    """A12, A19: of sixty guesses sent together, no more are looked at than one after the other would be, but for those under way."""
    looked, real = [], people.verify_password
    monkeypatch.setattr(people, "verify_password", lambda *given: (looked.append(given[1]), real(*given))[1])
    http = browser().http
    answers = await asyncio.gather(*(http.post("/login", data={"name": "ann", "password": f"guess {number}"}) for number in range(60)))
    assert {answer.status_code for answer in answers} == {401, 429}
    assert access.FREE_TRIES <= len(looked) <= access.FREE_TRIES + LOGINS_AT_ONCE
    assert len(looked) == sum(answer.status_code == 401 for answer in answers)


async def test_an_admin_who_is_locked_out_gets_in_by_the_command_line(browser, feed):
    """A12: guesses against the admin's name do not shut the admin out for good: a code of the command line sets a new password."""
    attacker, http = browser().http, browser().http
    for _ in range(7):
        await attacker.post("/login", data={"name": "root", "password": "guess"})
    assert (await http.post("/login", data={"name": "root", "password": PASSWORD})).status_code == 429
    with feed.lake.metadata.write() as tx:  # what `candlelake users code root` does
        code = access.make_code(tx, "password", people.get_user(tx, "root").id, feed.clock.now_us())
        for key in ("user:root", "address:127.0.0.1"):
            access.forget_failures(tx, key)
    assert (await http.post("/password", data={"code": code.reveal(), "password": "another seven lamps at noon"})).status_code == 303
    assert (await http.post("/login", data={"name": "root", "password": "another seven lamps at noon"})).status_code == 303


async def test_an_unknown_name_costs_as_much_work_as_a_wrong_password(browser, monkeypatch):
    """A13: both run one argon2 verification; a clock at the other end learns nothing."""
    seen = []
    real = people._HASHER.verify
    monkeypatch.setattr(people, "_HASHER", type("Counting", (), {
        "verify": lambda _, known, given: (seen.append(known[:30]), real(known, given))[1], "check_needs_rehash": lambda *_: False})())
    for name in ("ann", "nobody-of-that-name", "root"):
        await browser().http.post("/login", data={"name": name, "password": "not the right one"})
    assert len(seen) == 3
    assert len(set(seen)) == 1  # the same parameters, so the same cost


async def test_doors_for_admins_are_shut_to_others(browser, token):
    """A15: users, audit log and metrics are not theirs; the API's own document needs a sign-in; files outside static/ do not exist."""
    http = browser().http
    for path in ("/users", "/audit", "/metrics"):
        assert (await http.get(path, headers=token("ann"))).status_code == 403
    for path in ("/api/openapi.json", "/api/docs"):
        assert (await http.get(path)).status_code in {303, 401}
    for path in ("/docs", "/redoc", "/openapi.json", "/admin", "/.env", "/.git/config", "/static/../policy.py", "/static/%2e%2e/policy.py",
                 "/static/..%2fpolicy.py", "/static//etc/passwd", "/static/....//policy.py"):
        answer = await http.get(path)
        assert answer.status_code in {303, 400, 401, 404}, path
        assert "Who may ask what" not in answer.text, path


@pytest.mark.parametrize("symbol", ["../../etc/passwd", "..", ".", "a\0b", "x" * 300, "CON", "BTC/USD.", "BTC/USD ", "🚀/USD", "%2e%2e", "\n", "\u202eUSD"])
async def test_strange_symbols_stay_where_they_are(browser, token, feed, symbol):
    """A17: asked for, they are not there; added, they are refused or kept by an encoded name; nothing leaves the home."""
    http, headers = browser().http, token("root", "read", "manage")
    answer = await http.get("/api/connections/anns/candles", params={"symbol": symbol, "timeframe": "1m"}, headers=headers)
    assert answer.status_code in {404, 422}, answer.text
    before = {path for path in feed.settings.home.parent.rglob("*") if path.is_dir()}
    given = await http.patch("/api/connections/anns", json={"symbols": ["BTC/USD", symbol]}, headers=headers)
    assert given.status_code in {200, 422}, given.text
    grown = {path for path in feed.settings.home.parent.rglob("*") if path.is_dir()} - before
    assert all(path.is_relative_to(feed.settings.home) for path in grown)


@pytest.mark.parametrize("text", HOSTILE)
async def test_statements_are_not_smuggled_through_any_field(app, browser, token, feed, text):
    """A18: every query parameter of every reading call takes hostile text as a value; the tables are all there afterwards."""
    http, headers = browser().http, token("root")
    document = (await http.get("/api/openapi.json", headers=headers)).json()
    asked = 0
    for path, methods in document["paths"].items():
        names = [item["name"] for item in methods.get("get", {}).get("parameters", []) if item["in"] == "query"]
        if not names or path.endswith("/live"):
            continue
        answer = await http.get(filled(path), params=dict.fromkeys(names, text), headers=headers)
        assert answer.status_code < 500 or answer.status_code == 503, (path, answer.text[:300])
        asked += 1
    assert asked > 8
    with feed.lake.metadata.read() as tx:
        assert len(people.list_users(tx)) == 5
    assert feed.lake.candles("anns", "BTC/USD", "1m").height == 300


async def test_too_much_is_refused_at_once(browser, token):
    """A19: spans of centuries and rows without end get one line, not an answer of that size."""
    http, headers = browser().http, token("ann")
    base = "/api/connections/anns"
    for path in (f"{base}/candles?symbol=BTC/USD&timeframe=1m&limit=100000000", f"{base}/logs?limit=100000000",
                 f"{base}/candles?symbol=BTC/USD&timeframe=1m&start=1970-01-01&end=99999-01-01", f"{base}/candles?symbol=BTC/USD&timeframe=1m&limit=-1"):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 422, (path, answer.text[:200])
    history = await http.get("/api/udf/history?symbol=anns:BTC/USD:1m&resolution=1&from=0&to=99999999999999", headers=headers)
    assert history.status_code in {200, 404, 422}
    assert len(history.content) < 1_000_000


async def test_one_request_does_not_make_everybody_wait(browser, token, feed):
    """A19: a user's connection of more series than one transaction should add is refused, new or changed; so is a limit that is none."""
    http, headers = browser().http, token("ann", "read", "manage")
    many = {"symbols": [f"S{number}/USD" for number in range(501)], "timeframes": ["1m", "1h"]}
    for answer in (await http.post("/api/connections", headers=headers, json={"slug": "wide", "provider": "ccxt:kraken", **many}),
                   await http.patch("/api/connections/anns", headers=headers, json=many)):
        assert answer.status_code == 422
        assert "1002 series" in answer.text
    endless = await http.patch("/api/connections/anns", headers={**headers, "content-type": "application/json"},
                               content='{"settings": {"max_order_quantity": Infinity}}')
    assert endless.status_code == 422
    assert feed.connections.get("anns").symbols == ("BTC/USD",)


@pytest.mark.parametrize("text", [
    "a: 2001-99-99", "a: !!int abc", "a: !!float x", "a: !!timestamp x", "a: !!python/object:os.system x", "a: " + "9" * 5000, "? [a]\n: b",
    "[" * 3000, "&a [*a]", "a: \x85\x07", "--- a\n--- b", "- a", "name: \ue000"])
async def test_a_definition_that_is_none_is_refused(browser, token, text):
    """A19, A22: YAML whose dates, numbers and tags are none, that is too deep, or that names objects: one line, by call and by page."""
    http, headers = browser().http, token("ann", "read", "manage")
    assert (await http.post("/api/pipelines", headers=headers, json={"definition": text})).status_code == 422
    assert (await http.post("/pipelines/new", headers=headers, data={"definition": text})).status_code == 422


async def test_no_page_fails_over_what_an_address_or_a_form_holds(app, browser, feed):
    """A17, A19: every parameter and field of every page takes numbers without end, other digits, NUL and absurd dates without a server error."""
    one, asked = browser(), 0
    await one.sign_in("root")
    for route in app.routes:
        if not isinstance(route, APIRoute) or route.path.startswith("/api/") or route.path in {"/logout", "/login/oidc"}:
            continue
        for method in sorted(route.methods):
            fields = route.dependant.query_params if method == "GET" else route.dependant.body_params
            for name in [field.alias for field in fields]:
                for value in ("9" * 5000, "\u00b2", "\0", "9999-12-31T23:59:59-14:00"):
                    known = {"symbol": "BTC/USD", "timeframe": "1m"} | {name: value}
                    sent = {"params": known} if method == "GET" else {"data": {"csrf": one.csrf, **{field.alias: "x" for field in fields}, name: value}}
                    answer = await one.http.request(method, filled(route.path), **sent)
                    assert answer.status_code < 500 or answer.status_code == 503, (method, route.path, name, value[:20], answer.text[:300])
                    assert value != "\0" or answer.status_code == 422, (method, route.path, name, answer.status_code)
                    asked += 1
    assert asked > 150


async def test_exports_hold_no_formulas(browser, token, feed):
    """A20: an export holds times and numbers alone; whatever a broker calls its symbol, no cell begins with =, +, @ or a tab."""
    http, headers = browser().http, token("ann")
    answer = await http.get("/api/connections/anns/export?symbol=BTC/USD&timeframe=1m&format=csv", headers=headers)
    lines = answer.text.splitlines()
    assert len(lines) == 301
    cells = [cell for line in lines[1:] for cell in line.split(",")]
    assert all(re.fullmatch(r"(-?[\d.]+(e[+-]?\d+)?)?|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z|[a-z_]+|test", cell) for cell in cells)
    assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in cells)


async def test_a_log_line_is_one_line_without_escapes(browser, token, feed):
    """A21: line breaks, ANSI escapes and text that runs backwards from a broker's error are gone from log, page and download."""
    from connections.rows import read_connection, write_log

    text = redact("refused\r\n2026-01-05 admin login ok\x1b[31m\u202eevil\x07")
    with feed.lake.metadata.write() as tx:
        write_log(tx, (read_connection(tx, "anns").id, "anns"), "connect", "error", text, feed.clock.now_us())
    one = browser()
    await one.sign_in("ann")
    shown = [(await one.get(path)).text for path in ("/connections/anns/logs", "/connections/anns/logs.jsonl")]
    shown.append((await one.get("/api/connections/anns/logs", headers=token("ann"))).text)
    for answer in shown:
        assert "refused" in answer
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e\u2066-\u2069]", answer)
    lines = [json.loads(line) for line in shown[1].splitlines()]
    assert all("\n" not in line["message"] and "\r" not in line["message"] for line in lines)


async def test_a_deed_and_its_entry_stand_or_fall_together(browser, token, feed, monkeypatch):
    """A25: when the audit log cannot be written, no user, connection or pipeline is made or changed, and Prefect is asked for nothing."""
    one = browser()
    await one.sign_in("root")

    def broken(*_, **__):
        """Fail as a full disk would."""
        raise NotPermittedError("no audit log, no deed")

    with monkeypatch.context() as patched:
        patched.setattr(audit, "record", broken)
        assert (await one.post("/users", name="mallory", role="super_admin")).status_code == 403
        before = [feed.connections.get(slug) for slug in ("anns", "bobs", "house")]
        headers = token("root", "read", "manage")
        for method, path, body in (
            ("POST", "/api/connections", {"slug": "new", "provider": "ccxt:kraken"}), ("PATCH", "/api/connections/anns", {"name": "x"}),
            ("POST", "/api/connections/anns/deactivate", None), ("DELETE", "/api/connections/bobs", None),
            ("POST", "/api/connections/anns/runs", {"flow": "fetch"}), ("POST", "/api/pipelines", {"definition": YAML})):
            answer = await one.http.request(method, path, json=body, headers=headers)
            assert "no audit log" in answer.text, (path, answer.text)
    assert [feed.connections.get(slug) for slug in ("anns", "bobs", "house")] == before
    assert len(feed.connections.list()) == 3
    with feed.lake.metadata.read() as tx:
        assert "mallory" not in [user.name for user in people.list_users(tx)]
        assert pipelines.list_pipelines(tx) == []
        assert audit.verify_audit(tx) is None

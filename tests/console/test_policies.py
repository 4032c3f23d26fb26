"""Every route by every role and kind of token; what is somebody else's does not exist."""

import re

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from console import policy
from console.app import document
from core.errors import NotPermittedError
from storage import access, people
from tests.console.home import PEOPLE, YAML, furnished_home, session_of, token_of
from tests.console.prefect import NUMBER

# Which people each policy lets in, and the routes of each: whatever is not named here is for who may see connections.
CONNECTED = {"root", "staff", "ann", "bob"}
ALLOWED = {
    policy.SIGNED_IN: set(PEOPLE), policy.ACCOUNT: set(PEOPLE), policy.LEAVE: set(PEOPLE), policy.ENROL: set(PEOPLE), policy.CONNECTIONS: CONNECTED,
    policy.ADMINS: {"root", "staff"}, policy.SUPER_ADMINS: {"root"},
}
OPEN = {policy.PUBLIC, policy.ENTRANCE}
ENDS_OTHERS = "/account/sessions/end"
NAMED = {
    policy.PUBLIC: {"GET /livez", "GET /readyz", "GET /api/data-connections/health", "GET /api/udf/time", "GET /errors"},
    policy.ENTRANCE: {"GET /login", "POST /login", "GET /login/oidc", "GET /login/oidc/back", "GET /setup", "POST /setup", "GET /password",
                      "POST /password"},
    policy.LEAVE: {"POST /logout"},
    policy.SIGNED_IN: {"GET /", "GET /account", "GET /api/docs", "GET /api/openapi.json", "GET /api/account", "GET /api/account/tokens",
                       "GET /api/account/sessions", "POST /api/account/tokens/{token_id}/revoke"},
    policy.ACCOUNT: {"POST /account/password", "POST /account/sessions/end", "POST /account/tokens", "POST /account/tokens/{token_id}/revoke"},
    policy.ENROL: {"GET /account/second-factor", "POST /account/second-factor", "POST /account/second-factor/confirm",
                   "POST /account/second-factor/remove"},
    policy.ADMINS: {"GET /metrics"},
    policy.SUPER_ADMINS: {"GET /users", "POST /users", "POST /users/{name}", "POST /users/{name}/code",
                          "POST /users/{name}/second-factor/reset", "GET /audit", "GET /audit/chain", "GET /api/users", "GET /api/audit",
                          "GET /api/audit/chain"},
}
FILLED = {"{slug}": "anns", "{number}": NUMBER, "{name}": "carl", "{token_id}": "99", "{note}": "99", "{provider}": "ccxt:nobody"}
ABSENT = FILLED | {"{slug}": "absent"}
REASONS = {  # why somebody is not let in, by the words that they read
    "sign in": "sign in first", "scope": "lacks the scope", "policy": "may not do this; it needs:", "demonstration": "shows a demonstration",
    "verified": "not verified yet", "factors": "has to have a second factor", "reload the page": "reload the page", "from another site": "from another site",
    "token": "a token cannot change who signs in, and how",
}


def routes(app):
    """Return every route of the app as method, path, policy."""
    return [(method, route.path, policy.policy_of(route)) for route in app.routes if isinstance(route, APIRoute)
            for method in sorted(route.methods - {"HEAD"})]


def filled(path, names=FILLED):
    """Return a path with something for each of its names."""
    for name, value in names.items():
        path = path.replace(name, value)
    return path


def expected(rule, changes, who):
    """Return what a cell of the table has to be: in, or the reason why not."""
    is_closed = rule not in OPEN
    why_not = {
        "demonstration": changes and who.console == "demonstration" and rule not in {policy.ENTRANCE, policy.LEAVE},
        "sign in": is_closed and who.person is None,
        "verified": is_closed and who.console == "verified",
        "factors": is_closed and who.console == "factors" and who.person == "root" and rule not in {policy.ENROL, policy.LEAVE},
        "scope": is_closed and ("manage" if changes else "read") not in who.scopes,
        "token": changes and rule in {policy.ACCOUNT, policy.ENROL, policy.SUPER_ADMINS} and "authorization" in who.headers,
        "policy": is_closed and who.person not in ALLOWED[rule],
        who.lacks: changes and who.lacks != "" and (is_closed or who.lacks == "from another site"),
    }
    return next((reason for reason, holds in why_not.items() if holds), "in")


async def cell(app, method, path, headers):
    """Ask an app through its ASGI door, without a client's work around it; return how it ended, in the words of `expected`."""
    sent, url = [], path.encode()
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "http", "path": path, "raw_path": url, "query_string": b"", "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *((name.encode(), value.encode()) for name, value in headers.items())],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "asgi": {"version": "3.0"}, "extensions": {}}

    async def receive():
        """Give an empty body."""
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        """Keep the answer."""
        sent.append(message)

    await app(scope, receive, send)
    status, text = sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:]).decode(errors="replace")
    if status == 303 and (b"location", b"/login") in sent[0]["headers"] and path != "/logout":
        return "sign in"
    if status in {401, 403}:
        return next((name for name, words in REASONS.items() if words in text), f"{status} {text[:200]}")
    return "in" if status < 500 or status == 503 else f"{status} {text[:300]}"


def turn(who, method, path, rule):
    """Return when a cell is asked: what ends sessions comes last, other people's browsers' after one's own."""
    if path == ENDS_OTHERS:
        return 3 if expected(rule, method not in policy.SAFE, who) == "in" else 1
    return 2 if path == "/logout" else 0


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A home with one of everything, its console, and askers of every kind; shared: nothing here may change what others look at."""
    with furnished_home(tmp_path_factory.mktemp("policies")) as made:
        yield made


def test_every_route_has_the_policy_that_was_meant(app):
    """The few routes with a policy of their own are these; all others are for people who may see connections."""
    table = routes(app)
    assert len(table) > 100
    named = {route: rule for rule, found in NAMED.items() for route in found}
    assert {f"{method} {path}": rule for method, path, rule in table} == {
        route: named.get(route, policy.CONNECTIONS) for route in (f"{method} {path}" for method, path, _ in table)}
    assert set(named) <= {f"{method} {path}" for method, path, _ in table}


@pytest.mark.slow
async def test_every_route_lets_in_whom_its_policy_names_and_nobody_else(furnished):
    """The whole table, generated from the routes: each method and path by each kind of asker, role, scope, session and console."""
    feed, app, callers = furnished
    table = routes(app)
    asked, seen, wrong = 0, set(), []
    for who, method, path, rule in sorted(((who, *route) for who in callers for route in table), key=lambda item: turn(item[0], *item[1:])):
        wanted = expected(rule, method not in policy.SAFE, who)
        headers = session_of(feed, who.person) if path == ENDS_OTHERS and wanted == "in" else who.headers
        found = await cell(who.app, method, filled(path, ABSENT), headers)
        if rule in OPEN and (found == "sign in" or found.startswith("401")):
            found = "in"  # the route itself sends them to the sign-in page, or takes no such sign-in
        asked, seen = asked + 1, seen | {wanted}
        if found != wanted:
            wrong.append((who.name, method, path, wanted, found))
    assert not wrong, wrong[:5]
    assert asked == len(table) * len(callers)
    assert asked > 3000
    assert seen == {"in", *REASONS}


async def test_an_app_with_a_route_without_a_policy_does_not_start(app):
    """Default deny: nobody forgets a policy unseen."""
    async def nothing():
        """Answer nothing."""

    app.add_api_route("/forgotten", nothing)
    with pytest.raises(NotPermittedError, match="/forgotten names no policy"):
        policy.check_routes(app)
    assert isinstance(app, FastAPI)


async def test_a_read_token_changes_nothing_anywhere(app, browser, token):
    """Every changing route refuses a token with the scope read alone."""
    http, headers = browser().http, token("root")
    for method, path, rule in routes(app):
        if method not in policy.SAFE and rule not in OPEN:
            answer = await http.request(method, filled(path), headers=headers)
            assert answer.status_code == 403, (method, path, answer.status_code)
            assert "lacks the scope manage" in answer.text


async def test_what_is_another_users_is_answered_like_what_is_not_there(app, browser, token, feed):
    """Bob asks for ann's connection by every route that names one: 404, the same words as for an absent slug, nothing changed."""
    http, headers = browser().http, token("bob", "read", "manage")
    before = feed.connections.get("anns")
    bodies = {"/api/connections/{slug}/runs": {"flow": "fetch"}, "/api/connections/{slug}": {"name": "mine"}}
    forms = {"/connections/{slug}/runs": {"flow": "fetch"}, "/connections/{slug}/delete": {"confirm": "anns"}}
    query = "?symbol=BTC/USD&timeframe=1m"
    seen = 0
    for method, path, _ in routes(app):
        if "{slug}" not in path:
            continue
        seen += 1
        answers = []
        for slug in ("anns", "absent"):
            url = filled(path, FILLED | {"{slug}": slug})
            answer = await http.request(method, url + (query if path.endswith(("candles", "columns", "export")) else ""), headers=headers,
                                        json=bodies.get(path), data=None if path in bodies else forms.get(path))
            answers.append((answer.status_code, re.sub(r"anns|absent", "SLUG", answer.text)))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path, answers[0])
    assert seen > 25
    assert feed.connections.get("anns") == before


async def test_every_other_id_of_somebody_else_is_answered_like_an_absent_one(furnished):
    """Pipelines, notifications and tokens of ann, asked for by bob: the status and the words of what is not there, whatever the route."""
    feed, app, _ = furnished
    askers = {"token": token_of(feed, "bob", "read", "manage"), "page": session_of(feed, "bob")}
    with feed.lake.metadata.read() as tx:
        theirs = access.list_tokens(tx, people.get_user(tx, "ann").id)[0].id
    ids = {"{name}": ("crossing", "absent"), "{note}": ("1", "9999999"), "{token_id}": (str(theirs), "9999999")}
    bodies = {"/api/pipelines/{name}": {"definition": YAML}, "/api/pipelines/{name}/runs": {"start": "2026-01-01", "end": "2026-01-02"}}
    forms = {"/pipelines/{name}/edit": {"definition": YAML}, "/pipelines/{name}/runs": {"flow": "replay", "start": "2026-01-01", "end": "2026-01-02"}}
    asked = 0
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        for who, headers in askers.items():
            for method, path, rule in routes(app):
                held = [name for name in ids if name in path]
                if not held or rule is policy.SUPER_ADMINS or (rule is policy.ACCOUNT and who != "page"):
                    continue
                answers = []
                for value in ids[held[0]]:
                    answer = await http.request(method, filled(path, FILLED | {held[0]: value}), headers=headers, json=bodies.get(path), data=forms.get(path))
                    answers.append((answer.status_code, re.sub(rf"(?<= ){value}(?!\d)" if value.isdigit() else value, "ID", answer.text)))
                assert answers[0] == answers[1], (who, method, path)
                assert answers[0][0] == 404, (who, method, path, answers[0][1][:200])
                asked += 1
    assert asked > 25


async def test_lists_hold_only_ones_own(browser, token):
    """Users see their own connections, admins all, in lists, coverage and notifications."""
    http = browser().http
    found = {}
    for person in ("ann", "bob", "staff", "root"):
        rows = (await http.get("/api/connections", headers=token(person))).json()
        found[person] = [row["slug"] for row in rows]
        covered = (await http.get("/api/coverage", headers=token(person))).json()
        assert {row["connection"] for row in covered} <= set(found[person])
    assert found == {"ann": ["anns"], "bob": ["bobs"], "staff": ["anns", "bobs", "house"], "root": ["anns", "bobs", "house"]}


async def test_whose_a_connection_is_is_not_the_senders_to_say(browser, token, feed):
    """Mass assignment: owner, status and the like are unknown fields; what a user makes is theirs."""
    http, headers = browser().http, token("ann", "read", "manage")
    given = {"slug": "new", "provider": "ccxt:kraken"}
    for extra in ({"owner": "bob"}, {"is_admin_owned": True}, {"status": "active"}, {"id": 1}):
        assert (await http.post("/api/connections", headers=headers, json=given | extra)).status_code == 422
        assert (await http.patch("/api/connections/anns", headers=headers, json=extra)).status_code == 422
    assert (await http.post("/api/connections", headers=headers, json=given)).status_code == 201
    row = feed.connections.get("new")
    assert (row.owner, row.is_admin_owned) == ("ann", False)


async def test_a_user_cannot_send_requests_elsewhere(browser, token):
    """SSRF: a base URL is an admin's decision, and even an admin's must be an address that we may connect to."""
    http = browser().http
    mine = await http.patch("/api/connections/anns", headers=token("ann", "read", "manage"), json={"base_url": "https://example.com"})
    assert mine.status_code == 403
    theirs = await http.post("/api/connections", headers=token("root", "read", "manage"), json={
        "slug": "files", "provider": "ccxt:kraken", "base_url": "file:///etc/passwd"})
    assert theirs.status_code in {409, 422}


async def test_every_call_is_documented(app):
    """The OpenAPI document holds every route under /api and nothing outside it but the probes."""
    held = {(method.upper(), path) for path, methods in document(app)["paths"].items() for method in methods}
    ours = {(method, path) for method, path, _ in routes(app) if path.startswith("/api/") or path in {"/livez", "/readyz", "/metrics"}}
    assert held == ours - {("GET", "/api/openapi.json"), ("GET", "/api/docs")}

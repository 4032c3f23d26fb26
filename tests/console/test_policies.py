"""Every route by every role and kind of token; what is somebody else's does not exist."""

import re

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from console import policy
from console.app import document
from core.errors import NotPermittedError
from tests.console.conftest import PEOPLE

# Which people each policy lets in; nobody means a visitor without a session.
EVERYBODY = {"nobody", *PEOPLE}
ALLOWED = {
    policy.PUBLIC: EVERYBODY, policy.ENTRANCE: EVERYBODY, policy.SIGNED_IN: set(PEOPLE), policy.LEAVE: set(PEOPLE),
    policy.ENROL: set(PEOPLE),
    policy.CONNECTIONS: {"root", "staff", "ann", "bob"}, policy.ADMINS: {"root", "staff"}, policy.SUPER_ADMINS: {"root"},
}
FILLED = {"{slug}": "anns", "{number}": "0b6f4c1e-0000-4000-8000-000000000000", "{name}": "carl", "{token_id}": "99"}


def routes(app):
    """Return every route of the app as method, path, policy."""
    return [(method, route.path, policy.policy_of(route)) for route in app.routes if isinstance(route, APIRoute)
            for method in sorted(route.methods - {"HEAD"})]


def filled(path):
    """Return a path with something for each of its names."""
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


async def test_an_app_with_a_route_without_a_policy_does_not_start(app):
    """Default deny: nobody forgets a policy unseen."""
    async def nothing():
        """Answer nothing."""

    app.add_api_route("/forgotten", nothing)
    with pytest.raises(NotPermittedError, match="/forgotten names no policy"):
        policy.check_routes(app)
    assert isinstance(app, FastAPI)


async def test_every_route_lets_in_whom_its_policy_names_and_nobody_else(app, browser, token):
    """The whole table, generated from the routes: each method and path by each of the people, with session or token."""
    table = routes(app)
    assert len(table) > 45
    for person in sorted(EVERYBODY):
        http = browser().http
        headers = {} if person == "nobody" else token(person, "read", "manage")
        for method, path, rule in table:
            answer = await http.request(method, filled(path), headers=headers)
            refused = (answer.status_code in {401, 403} and "needs:" in answer.text) or answer.status_code == 401 or (
                answer.status_code == 303 and answer.headers["location"] == "/login" and path != "/logout")
            is_entrance = rule in {policy.PUBLIC, policy.ENTRANCE}
            assert is_entrance or refused == (person not in ALLOWED[rule]), (person, method, path, answer.status_code, answer.text[:200])
            assert answer.status_code < 500 or answer.status_code == 503, (person, method, path, answer.text[:300])


async def test_a_read_token_changes_nothing_anywhere(app, browser, token):
    """Every changing route refuses a token with the scope read alone."""
    http, headers = browser().http, token("root")
    for method, path, rule in routes(app):
        if method not in policy.SAFE and rule not in {policy.PUBLIC, policy.ENTRANCE}:
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
            url = path.replace("{slug}", slug).replace("{number}", FILLED["{number}"])
            answer = await http.request(method, url + (query if path.endswith(("candles", "export")) else ""), headers=headers,
                                        json=bodies.get(path), data=None if path in bodies else forms.get(path))
            answers.append((answer.status_code, re.sub(r"anns|absent", "SLUG", answer.text)))
        assert answers[0] == answers[1], (method, path)
        assert answers[0][0] == 404, (method, path, answers[0])
    assert seen > 25
    assert feed.connections.get("anns") == before


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

"""Page, API and command line do the same: what one of the first two can, the others can, unless a reason is written here."""

import json

import pytest
from fastapi.routing import APIRoute

from cli.main import app as commands
from cli.main import run
from core.settings import settings

SLUG, NAME = "/{slug}", "/{name}"
PAGES, API, PIPES, PIPE_API = "/connections", "/api/connections", "/pipelines", "/api/pipelines"
# What people do: the pages that do it, the calls that do it, the commands that do it.
OPERATIONS = {
    "list connections": (["GET /connections", "GET /"], ["GET /api/connections"], ["connections list"]),
    "show a connection": ([f"GET {PAGES}{SLUG}"], [f"GET {API}{SLUG}"], ["connections show"]),
    "add a connection": (
        [f"GET {PAGES}/new", f"POST {PAGES}/new", f"GET {PAGES}/provider"],
        [f"POST {API}", "GET /api/providers", "GET /api/providers/{provider}"], ["connections add"]),
    "change a connection": ([f"GET {PAGES}{SLUG}/edit", f"POST {PAGES}{SLUG}/edit"], [f"PATCH {API}{SLUG}"], ["connections update"]),
    "delete a connection": ([f"GET {PAGES}{SLUG}/delete", f"POST {PAGES}{SLUG}/delete"], [f"DELETE {API}{SLUG}"], ["connections delete"]),
    "test a connection": ([f"POST {PAGES}{SLUG}/test"], [f"POST {API}{SLUG}/test"], ["connections test"]),
    "switch a connection on": ([f"POST {PAGES}{SLUG}/activate"], [f"POST {API}{SLUG}/activate"], ["connections activate"]),
    "switch a connection off": ([f"POST {PAGES}{SLUG}/deactivate"], [f"POST {API}{SLUG}/deactivate"], ["connections deactivate"]),
    "fetch, backfill, repair, clean up": (
        [f"GET {PAGES}{SLUG}/runs", f"POST {PAGES}{SLUG}/runs", f"GET {PAGES}{SLUG}/runs/{{number}}",
         f"POST {PAGES}{SLUG}/runs/{{number}}/cancel", f"GET {PAGES}{SLUG}/cleanup"],
        [f"POST {API}{SLUG}/runs", f"GET {API}{SLUG}/runs/{{number}}", f"POST {API}{SLUG}/runs/{{number}}/cancel", f"GET {API}{SLUG}/cleanup"],
        ["fetch", "backfill", "repair", "cleanup"]),
    "read candles": (
        [f"GET {PAGES}{SLUG}/candles"], [f"GET {API}{SLUG}/candles", f"GET {API}{SLUG}/candles/columns", f"GET {API}{SLUG}/export"], ["candles", "export"]),
    "follow candles": ([f"GET {PAGES}{SLUG}/candles"], [f"GET {API}{SLUG}/live"], ["stream"]),
    "read gaps": ([f"GET {PAGES}{SLUG}/gaps", f"GET {PAGES}{SLUG}/day"], [f"GET {API}{SLUG}/gaps"], ["gaps"]),
    "read revisions": ([f"GET {PAGES}{SLUG}/revisions"], [f"GET {API}{SLUG}/revisions"], ["revisions"]),
    "read coverage": (["GET /coverage", f"GET {PAGES}{SLUG}/coverage"], ["GET /api/coverage", f"GET {API}{SLUG}/coverage/days"], ["coverage"]),
    "read the log of a connection": (
        [f"GET {PAGES}{SLUG}/logs", f"GET {PAGES}{SLUG}/logs.jsonl"], [f"GET {API}{SLUG}/logs"], ["connections logs"]),
    "read the proof": ([f"GET {PAGES}{SLUG}/proof"], [f"GET {API}{SLUG}/proof"], ["report"]),
    "read notifications": (["GET /notifications"], ["GET /api/notifications"], ["notifications list"]),
    "acknowledge a notification": (
        ["POST /notifications/{note}/acknowledge"], ["POST /api/notifications/{note}/acknowledge"], ["notifications acknowledge"]),
    "list the people": (["GET /users"], ["GET /api/users"], ["users list"]),
    "read the audit log": (["GET /audit", "GET /audit/chain"], ["GET /api/audit", "GET /api/audit/chain"], ["users audit"]),
    "see one's account, tokens and sessions": (
        ["GET /account"], ["GET /api/account", "GET /api/account/tokens", "GET /api/account/sessions"], ["tokens list", "users list"]),
    "end a token": (
        ["POST /account/tokens/{token_id}/revoke"], ["POST /api/account/tokens/{token_id}/revoke"], ["tokens revoke"]),
    "list pipelines": ([f"GET {PIPES}"], [f"GET {PIPE_API}"], ["pipelines list"]),
    "show a pipeline": (
        [f"GET {PIPES}{NAME}"], [f"GET {PIPE_API}{NAME}", f"GET {PIPE_API}{NAME}/executions", f"GET {PIPE_API}{NAME}/signals",
                                 f"GET {PIPE_API}{NAME}/equity", f"GET {API}{SLUG}/signals"],
        ["pipelines show", "pipelines stats", "orders list", "positions", "orders equity"]),
    "define a pipeline": (
        [f"GET {PIPES}/new", f"POST {PIPES}/new", f"GET {PIPES}{NAME}/edit", f"POST {PIPES}{NAME}/edit"],
        [f"POST {PIPE_API}", f"PUT {PIPE_API}{NAME}"], ["pipelines create", "pipelines import"]),
    "switch a pipeline": (
        [f"POST {PIPES}{NAME}/enable", f"POST {PIPES}{NAME}/disable"],
        [f"POST {PIPE_API}{NAME}/enable", f"POST {PIPE_API}{NAME}/disable"], ["pipelines enable", "pipelines disable"]),
    "replay and compare pipelines": (
        [f"POST {PIPES}{NAME}/runs", f"GET {PIPES}{NAME}/runs/{{number}}", f"POST {PIPES}{NAME}/runs/{{number}}/cancel"],
        [f"POST {PIPE_API}{NAME}/runs", f"GET {PIPE_API}{NAME}/runs/{{number}}", f"POST {PIPE_API}{NAME}/runs/{{number}}/cancel"],
        ["pipelines replay", "pipelines compare"]),
}
PAGE_ONLY = {
    "a browser's way in and out: programs send a token": [
        "GET /login", "POST /login", "GET /login/oidc", "GET /login/oidc/back", "POST /logout", "GET /setup", "POST /setup",
        "GET /password", "POST /password"],
    "a token must not change how its owner, or anybody, gets in; admins have `users` and `tokens` on the command line": [
        "POST /account/tokens", "GET /account/second-factor",
        "POST /account/second-factor", "POST /account/second-factor/confirm", "POST /account/second-factor/remove", "POST /users", "POST /users/{name}", "POST /users/{name}/code", "POST /users/{name}/second-factor/reset", "POST /account/password",
        "POST /account/sessions/end"],
    "help: docs/errors.md holds the same": ["GET /errors"],
    "a part of the form, over the call of the API": [f"GET {PAGES}/symbols"],
}
API_ONLY = {
    "asked by machines": ["GET /livez", "GET /readyz", "GET /metrics", "GET /api/data-connections/health"],
    "other people's charts": [f"GET /api/udf/{name}" for name in ("config", "history", "search", "symbols", "time")] + ["GET /api/widgets.json"],
    "the API about itself": ["GET /api/docs", "GET /api/openapi.json"],
    "lists for the forms, shown in them as one types": [f"GET {API}{SLUG}/symbols", "GET /api/providers/{provider}/symbols"],
    "ticks are rows without a page; the command line has `ticks`": [f"GET {API}{SLUG}/ticks"],
}


def is_api(path):
    """Whether a path is for programs."""
    return path.startswith("/api/") or path in {"/livez", "/readyz", "/metrics"}


def words(group, before=()):
    """Yield every command as its words."""
    for command in group.registered_commands:
        yield " ".join((*before, command.name or command.callback.__name__.replace("_", "-")))
    for inner in group.registered_groups:
        yield from words(inner.typer_instance, (*before, inner.name))


def test_every_route_has_its_place(app):
    """Each page and each call of the API is part of an operation that the others have too, or is alone for a written reason."""
    there = {f"{method} {route.path}" for route in app.routes if isinstance(route, APIRoute) for method in route.methods - {"HEAD"}}
    pages = {item for pages, _, _ in OPERATIONS.values() for item in pages} | {item for items in PAGE_ONLY.values() for item in items}
    calls = {item for _, calls, _ in OPERATIONS.values() for item in calls} | {item for items in API_ONLY.values() for item in items}
    assert there - pages - calls == set()
    assert (pages | calls) - there == set()
    assert {item for item in pages if is_api(item.split()[1])} == set()
    assert {item for item in calls if not is_api(item.split()[1])} == set()


def test_every_operation_is_on_the_command_line():
    """Each operation names pages, calls and commands, and the commands exist."""
    known = set(words(commands))
    for name, (pages, calls, lines) in OPERATIONS.items():
        assert pages, name
        assert calls, name
        assert lines, name
        assert set(lines) <= known, name


@pytest.fixture
def shown(feed, monkeypatch, capsys):
    """Run a command over the home of the console; returns its JSON, when it is a reading one."""

    def call(*line, reads=True):
        monkeypatch.setenv("CANDLELAKE_HOME", str(feed.settings.home))
        monkeypatch.setenv("CANDLELAKE_KEY_FILE", str(feed.settings.key_file))
        settings.cache_clear()
        capsys.readouterr()
        code = run([*line, *(["--json"] if reads else [])])
        out = capsys.readouterr()
        assert code == 0, out.err
        return json.loads(out.out) if reads else None

    yield call
    settings.cache_clear()


async def test_the_api_and_the_command_line_show_the_same(browser, token, shown, feed):
    """Candles, coverage, gaps, logs and connections: the same rows with the same values by both, and on the page."""
    http, root = browser().http, token("root")

    async def asked(path):
        """Return what the API says."""
        answer = await http.get(path, headers=root)
        assert answer.status_code == 200, answer.text
        return answer.json()

    candles = await asked("/api/connections/anns/candles?symbol=BTC/USD&timeframe=1m&limit=50")
    rows = candles["candles"] if isinstance(candles, dict) else candles
    lines = shown("candles", "anns", "BTC/USD", "1m", "--limit", "50")
    assert len(rows) == 50
    assert [(row["ts"], row["open"], row["close"], row["volume"]) for row in rows] == [
        (row["ts"], row["open"], row["close"], row["volume"]) for row in lines]

    coverage = {(row["connection"], row["symbol"], row["timeframe"]): row for row in await asked("/api/coverage")}
    for row in shown("coverage"):
        told = coverage[row["connection"], row["symbol"], row["timeframe"]]
        assert {name: told[name] for name in row} == row
    gaps = await asked("/api/connections/anns/gaps")
    assert [(row["start"], row["end"], row["cause"]) for row in gaps] == [(row["start"], row["end"], row["cause"]) for row in shown("gaps", "anns")]
    logs = await asked("/api/connections/anns/logs")
    assert {(row["action"], row["status"], row["message"]) for row in logs} == {
        (row["action"], row["status"], row["message"]) for row in shown("connections", "logs", "anns")}
    assert sorted(row["slug"] for row in await asked("/api/connections")) == sorted(row["slug"] for row in shown("connections", "list"))

    visitor = browser()
    await visitor.sign_in("root")
    page = (await visitor.get("/connections/anns/candles?symbol=BTC/USD&timeframe=1m")).text
    assert f"{rows[-1]['close']:.10g}" in page


async def test_what_one_does_the_others_see(browser, token, shown, feed):
    """Switched off on the page, it is off in the API and on the command line; switched on there, it is on everywhere."""
    visitor, http, root = browser(), browser().http, token("root")
    await visitor.sign_in("root")

    async def states():
        """Return whether it is active, by API and command line."""
        return ((await http.get("/api/connections/anns", headers=root)).json()["is_active"],
                shown("connections", "show", "anns")["is_active"])

    await visitor.post("/connections/anns/deactivate")
    assert await states() == (False, False)
    shown("connections", "activate", "anns", reads=False)
    assert await states() == (True, True)
    assert feed.connections.get("anns").is_active

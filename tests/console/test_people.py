"""What pages, API and command line tell of people: users, the audit log, one's own tokens and sessions; ending a token."""

import json
import re

from sqlalchemy import select

from cli.main import run
from core.settings import settings
from storage import access, audit, people
from storage.metadata.tables_people import audit_head, audit_log
from tests.console.home import token_of


async def test_the_people_are_listed_without_a_secret(browser, token, feed):
    """Super admins read by API what the page shows; nothing of a password, a session or a token's value is in it."""
    http, root = browser().http, token("root")
    answer = await http.get("/api/users", headers=root)
    rows = {row["name"]: row for row in answer.json()}
    assert {name: row["role"] for name, row in rows.items()} == {
        "root": "super_admin", "staff": "staff_admin", "clerk": "staff_admin", "ann": "user", "bob": "user"}
    assert (rows["staff"]["permissions"], rows["clerk"]["permissions"]) == (["manage-data-connections"], [])
    assert all(row["has_password"] and not row["has_second_factor"] for row in rows.values())
    assert set(rows["ann"]) == {"name", "role", "email", "is_active", "is_email_verified", "is_kyc_done", "has_password", "has_second_factor",
                                "permissions", "created"}
    assert "argon2" not in answer.text
    for person in ("staff", "clerk", "ann"):
        assert (await http.get("/api/users", headers=token(person))).status_code == 403


async def test_people_are_found_by_words_a_page_at_a_time(browser, token, feed):
    """Page and API sift by name, e-mail and role; of many people a page shows some, and its links keep the words."""
    http, root, boss = browser().http, token("root"), browser()
    await boss.sign_in("root")
    with feed.lake.metadata.write() as tx:
        for number in range(120):
            people.add_user(tx, f"clone-{number:03d}", "user", feed.clock.now_us(), f"n{number}@example.org")
    text = (await boss.get("/users?query=CLONE")).text
    assert text.count("<li>") == 50
    assert "Page 1 of 3, 120 people" in text
    assert 'href="?query=CLONE&amp;page_number=2"' in text
    assert "clone-119" in (await boss.get("/users?query=clone&page_number=3")).text
    assert re.findall(r"<b>([^<]+)</b>", (await boss.get("/users?query=n7@example.org")).text) == ["clone-007"]
    assert re.findall(r"<b>([^<]+)</b>", (await boss.get("/users?query=staff_admin cle")).text) == ["clerk"]
    assert "Nobody matches" in (await boss.get("/users?query=nobody-here")).text
    found = await http.get("/api/users", params={"query": "staff_admin"}, headers=root)
    assert [row["name"] for row in found.json()] == ["clerk", "staff"]


async def test_the_audit_log_is_read_by_filter_and_page(browser, token, feed, monkeypatch, capsys):
    """Person, kind, outcome and subject sift the same rows by page, API and command line; `before` leads on until nothing is left."""
    http, root, ann = browser().http, token("root"), token("ann", "read", "manage")
    for path in ("anns/deactivate", "anns/activate", "anns/deactivate"):
        await http.post(f"/api/connections/{path}", headers=ann)
    await http.delete("/api/connections/anns", headers=ann)

    async def asked(**query):
        """Return rows of the audit log."""
        answer = await http.get("/api/audit", headers=root, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    mine = await asked(actor="ann")
    assert [row["action"] for row in mine] == ["connection.delete", "connection.deactivate", "connection.activate", "connection.deactivate"]
    assert {row["via"] for row in mine} == {"api"}
    assert [row["action"] for row in await asked(outcome="failed")] == ["connection.delete"]
    assert len(await asked(action="connection.deactivate", subject="ANN")) == 2
    assert await asked(actor="ann", subject="house") == []
    pages, before = [], {}
    while found := await asked(actor="ann", limit=3, **before):
        pages.append(len(found))
        before = {"before": found[-1]["id"]}
    assert pages == [3, 1]
    monkeypatch.setenv("CANDLELAKE_HOME", str(feed.settings.home))
    settings.cache_clear()
    capsys.readouterr()
    assert run(["users", "audit", "--actor", "ann", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == mine
    settings.cache_clear()
    boss = browser()
    await boss.sign_in("root")
    text = (await boss.get("/audit?action=connection.deactivate&subject=anns")).text
    assert text.count("<td>connection.deactivate</td>") == 2
    assert "<td>connection.delete</td>" not in text
    assert "No such deed" in (await boss.get("/audit?actor=nobody")).text
    assert (await http.get("/api/audit", headers=token("staff"))).status_code == 403


async def test_pages_of_the_audit_log_lead_to_each_other(browser, feed, token):
    """More than a page: a link to the older ones that keeps the filter, and one back."""
    http, ann = browser().http, token("ann", "read", "manage")
    for number in range(101):
        await http.post(f"/api/connections/anns/{'activate' if number % 2 else 'deactivate'}", headers=ann)
    boss = browser()
    await boss.sign_in("root")
    text = (await boss.get("/audit?actor=ann")).text
    assert text.count("<td>ann</td>") == 100
    older = re.search(r'href="(\?actor=ann&amp;before=\d+)">Older', text).group(1).replace("&amp;", "&")
    text = (await boss.get(f"/audit{older}")).text
    assert text.count("<td>ann</td>") == 1
    assert 'href="?actor=ann">Newest' in text


async def test_a_changed_audit_log_is_found_by_page_api_and_command_line(browser, token, feed, monkeypatch, capsys):
    """Whole, all three say so; a row that somebody edited is named by all three, and the command ends with 1."""
    http, root, boss = browser().http, token("root"), browser()
    await boss.sign_in("root")
    with feed.lake.metadata.write() as tx:
        audit.record(tx, "ann", "page", "deed", "one", "done", feed.clock.now_us())
    monkeypatch.setenv("CANDLELAKE_HOME", str(feed.settings.home))
    settings.cache_clear()
    assert run(["users", "audit", "--check"]) == 0
    whole = (await http.get("/api/audit/chain", headers=root)).json()
    head = whole.pop("head")
    assert whole == {"is_whole": True, "first_broken": None}
    page = (await boss.get("/audit/chain")).text
    assert "is whole" in page
    assert head in page
    assert head in capsys.readouterr().out
    assert run(["users", "audit", "--check", "--head", head]) == 0
    newest = int(head.split(":")[0])
    with feed.lake.metadata.write() as tx:
        tx.execute(audit_log.delete().where(audit_log.c.id == newest))
        tx.execute(audit_head.update().values(last_id=newest - 1, chain=tx.execute(select(audit_log.c.chain).where(audit_log.c.id == newest - 1)).scalar()))
    assert run(["users", "audit", "--check"]) == 0  # who writes both leaves no trace here
    assert run(["users", "audit", "--check", "--head", head]) == 1  # but elsewhere
    assert (await http.get("/api/audit/chain", params={"head": head}, headers=root)).json()["first_broken"] == newest
    assert (await http.get("/api/audit/chain", params={"head": "none"}, headers=root)).status_code == 422
    assert run(["users", "audit", "--head", head]) == 2
    with feed.lake.metadata.write() as tx:
        tx.execute(audit_log.update().where(audit_log.c.id == 1).values(actor="bob"))
    assert run(["users", "audit", "--check"]) == 1
    assert (await http.get("/api/audit/chain", headers=root)).json()["first_broken"] == 1
    assert "row 1 is missing or does not follow" in (await boss.get("/audit/chain")).text
    settings.cache_clear()


async def test_one_sees_and_ends_ones_own_tokens_by_api(browser, token, feed):
    """A program reads whose token it has and which others there are; one that is ended opens nothing more, and nobody ends another's."""
    http, ann, spare = browser().http, token("ann", "read", "manage"), token("ann", "read")
    me = (await http.get("/api/account", headers=spare)).json()
    assert (me["name"], me["role"], me["scopes"], me["sees_connections"]) == ("ann", "user", ["read"], True)
    answer = await http.get("/api/account/tokens", headers=ann)
    assert [(row["scopes"], row["state"]) for row in answer.json()] == [(["read"], "live"), (["manage", "read"], "live")]
    assert all(value["authorization"].removeprefix("Bearer ") not in answer.text for value in (ann, spare))
    assert {row["hint"] for row in answer.json()} == {value["authorization"][-4:] for value in (ann, spare)}
    lost = answer.json()[0]["id"]
    assert (await http.post(f"/api/account/tokens/{lost}/revoke", headers=token("bob", "read", "manage"))).status_code == 404
    assert (await http.post(f"/api/account/tokens/{lost}/revoke", headers=spare)).status_code == 403
    assert (await http.get("/api/account", headers=spare)).status_code == 200
    ended = await http.post(f"/api/account/tokens/{lost}/revoke", headers=ann)
    assert (ended.status_code, ended.json()["state"]) == (200, "revoked")
    assert (await http.get("/api/account", headers=spare)).status_code == 401
    found = (await http.get("/api/audit?action=token.revoke", headers=token("root"))).json()
    assert [(row["actor"], row["via"], row["outcome"]) for row in found] == [("ann", "api", "done")]


async def test_no_call_of_the_api_makes_or_keeps_an_entrance(app, browser, token, feed):
    """Whoever stole a token of a super admin finds no call that makes users, tokens, codes or sessions, or changes a role or a password."""
    http, root = browser().http, token_of(feed, "root", "read", "manage")
    before = _entrances(feed)
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        for path in ("users", "users/ann", "users/ann/code", "account", "account/tokens", "account/password", "account/sessions/end", "audit"):
            answer = await http.request(method, f"/api/{path}", headers=root, json={"name": "mallory", "role": "super_admin"})
            assert answer.status_code in {404, 405}, (method, path)
    assert _entrances(feed) == before


async def test_ones_sessions_are_listed_by_api(browser, token):
    """Each browser that is signed in with when it began; asked by session, it knows its own, and nobody else's is there."""
    one, two, bob = browser(), browser(), browser()
    for visitor, name in ((one, "ann"), (two, "ann"), (bob, "bob")):
        await visitor.sign_in(name)
    assert [row["is_this"] for row in (await one.get("/api/account/sessions")).json()].count(True) == 1
    rows = (await browser().http.get("/api/account/sessions", headers=token("ann"))).json()
    assert [(set(row), row["is_this"]) for row in rows] == [({"began", "last_used", "is_this"}, False)] * 2


def _entrances(feed):
    """Return all that lets people in."""
    with feed.lake.metadata.read() as tx:
        return [row.as_dict() for row in people.list_users(tx)], [row.id for row in access.list_tokens(tx)]

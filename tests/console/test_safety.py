"""Headers, bounds, escaping, secrets: what a browser, an attacker and a bad form meet."""

import re

import pytest

from console.guard import BODY_MAX
from core.errors import InputError, NotFoundError
from core.secrets import Secret
from storage import audit, people
from tests.console.conftest import PASSWORD


async def test_every_answer_carries_the_guards_headers(browser):
    """Pages, API, errors, static files: a strict CSP without inline code, no sniffing, no frames, no referrer."""
    one = browser()
    for path in ("/login", "/connections", "/api/connections", "/nowhere", "/static/style.css", "/livez"):
        headers = (await one.get(path)).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert path.startswith("/static") or headers["cache-control"] == "no-store"


async def test_no_page_has_inline_code(browser):
    """Nothing in a template would need a weaker policy: no inline script, style or handler."""
    one = browser()
    await one.sign_in("root")
    for path in ("/connections", "/connections/new", "/connections/anns", "/connections/anns/candles", "/connections/anns/gaps",
                 "/connections/anns/logs", "/connections/anns/runs", "/connections/anns/edit", "/connections/anns/delete", "/connections/anns/revisions",
                 "/coverage", "/notifications", "/account", "/users", "/audit", "/api/docs"):
        answer = await one.get(path)
        assert answer.status_code == 200, (path, answer.text[:400])
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", answer.text), path


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", ""])
async def test_other_host_names_are_refused(browser, host):
    """DNS rebinding: the console answers under its own names only."""
    assert (await browser().http.get("/livez", headers={"host": host})).status_code == 400


async def test_large_bodies_are_refused(browser):
    """A body beyond the bound is refused by its length, and while it streams."""
    http = browser().http

    async def stream():
        """Yield more than is taken, without saying how much."""
        for _ in range(30):
            yield b"x" * (BODY_MAX // 20)

    assert (await http.post("/login", content=b"x" * (BODY_MAX + 1))).status_code == 413
    assert (await http.post("/login", content=stream(), headers={"content-type": "application/x-www-form-urlencoded"})).status_code == 413


async def test_secrets_are_never_sent_back(browser, token):
    """Bad bodies of every kind: no canary in any answer; stored credentials show by their names only."""
    http, headers = browser().http, token("ann", "read", "manage")
    canary = "canary-9f2c"
    bodies = [{"slug": "x", "provider": "ccxt:kraken", "credentials": {"api_key": {"deep": canary}}},
              {"slug": canary * 20, "provider": "ccxt:kraken", "credentials": {"secret": canary}},
              {"slug": "x", "provider": "ccxt:kraken", "credentials": canary}, {"secret": canary}, [canary]]
    for body in bodies:
        answer = await http.post("/api/connections", headers=headers, json=body)
        assert answer.status_code == 422
        assert canary not in answer.text
    broken = await http.post("/api/connections", headers={**headers, "content-type": "application/json"}, content=f'{{"secret": "{canary}')
    assert broken.status_code == 422
    assert canary not in broken.text
    shown = await http.get("/api/connections/anns", headers=headers)
    assert shown.json()["credential_fields"] == ["api_key", "secret"]
    assert "canary" not in shown.text


async def test_no_page_shows_a_stored_secret(browser):
    """The planted credentials of the connections are on no page of an admin."""
    one = browser()
    await one.sign_in("root")
    for path in ("/connections/anns", "/connections/anns/edit", "/connections/anns/logs", "/audit", "/users"):
        assert "canary-" not in (await one.get(path)).text


async def test_a_blank_credentials_field_keeps_what_is_stored(browser, feed):
    """Saving the form without entering the secret again loses nothing, and changes the rest."""
    one = browser()
    await one.sign_in("ann")
    answer = await one.post("/connections/anns/edit", name="Ann's", symbols="BTC/USD ETH/USD", timeframes="1m")
    assert answer.status_code == 303
    row = feed.connections.get("anns")
    assert (row.name, row.symbols, row.credential_fields) == ("Ann's", ("BTC/USD", "ETH/USD"), ("api_key", "secret"))


async def test_what_others_wrote_is_text(browser, feed):
    """Stored XSS: names, errors and log lines with markup arrive as text on every page that shows them."""
    evil = "<img src=x onerror=alert(1)>"
    one = browser()
    await one.sign_in("ann")
    feed.connections.update("anns", name=evil)
    with feed.lake.metadata.write() as tx:
        from connections.rows import notify, write_log

        row = feed.connections.get("anns")
        write_log(tx, (row.id, "anns"), "connect", "error", evil, feed.clock.now_us())
        notify(tx, "test", "error", row.id, evil, evil, feed.clock.now_us())
    for path in ("/connections", "/connections/anns", "/connections/anns/logs", "/connections/anns/edit", "/notifications"):
        text = (await one.get(path)).text
        assert "<img" not in text
    assert "&lt;img" in (await one.get("/connections/anns/logs")).text


async def test_a_connection_is_deleted_only_by_its_name_and_candles_only_on_demand(browser, feed):
    """Without the typed slug nothing happens; with candles it is refused; with purge it is gone."""
    one = browser()
    await one.sign_in("ann")
    assert (await one.post("/connections/anns/delete", confirm="ann")).status_code == 422
    assert (await one.post("/connections/anns/delete", confirm="anns")).status_code == 409
    assert feed.lake.latest("anns", "BTC/USD", "1m", 1).height == 1
    assert (await one.post("/connections/anns/delete", confirm="anns", purge="true")).status_code == 303
    with pytest.raises(NotFoundError):
        feed.connections.get("anns")


async def test_deeds_are_in_the_audit_log_and_its_chain_tells_of_changes(browser, feed):
    """Who did what and how it ended, refusals too; a changed or a missing row is found."""
    one = browser()
    await one.sign_in("ann")
    await one.post("/connections/anns/deactivate")
    await one.post("/connections/anns/delete", confirm="anns")
    with feed.lake.metadata.read() as tx:
        rows = audit.list_audit(tx)
        assert audit.verify_audit(tx) is None
    found = [(row.actor, row.action, row.subject, row.outcome) for row in rows]
    assert ("ann", "connection.deactivate", "anns", "done") in found
    assert ("ann", "connection.delete", "anns", "failed") in found
    from storage.metadata.tables_people import audit_log

    with feed.lake.metadata.write() as tx:
        tx.execute(audit_log.update().where(audit_log.c.action == "connection.deactivate").values(actor="bob"))
    with feed.lake.metadata.read() as tx:
        assert audit.verify_audit(tx) is not None


async def test_passwords_that_are_guessed_are_refused(browser):
    """Short, common, or holding the name: one line that does not repeat them."""
    boss = browser()
    await boss.sign_in("root")
    page = await boss.post("/users", name="dora", role="user")
    code = re.search(r'class="token">([0-9a-f]{32})<', page.text).group(1)
    for password in ("short", "password1234", "dora-dora-dora", "aaaaaaaaaaaaaaaa"):
        answer = await browser().http.post("/password", data={"code": code, "password": password})
        assert answer.status_code == 422
        assert password not in answer.text
    for password in ("123456789012", "qwertyuiop12", "1q2w3e4r5t6y", "iloveyou2026!", "passwordpassword", "zyxwvutsrqpo", "09876543210987"):
        with pytest.raises(InputError, match="easily guessed") as caught:
            people.check_password(Secret(password), "dora")
        assert password not in str(caught.value)
    people.check_password(Secret(PASSWORD), "dora")


@pytest.mark.parametrize("settings_of", [{"console_read_only": True}])
async def test_a_demonstration_offers_nothing_that_it_refuses(browser, settings_of):
    """Every button that would change something is switched off there; those that look, sign out or switch the theme are not."""
    boss, seen = browser(), 0
    await boss.sign_in("root")
    for path in ("/connections/anns", "/connections/anns/edit", "/connections/anns/delete", "/connections/anns/runs", "/connections/new", "/pipelines/new",
                 "/account", "/account/second-factor", "/users", "/connections", "/audit"):
        text = (await boss.get(path)).text.partition("<main")[2]
        outside = re.sub(r"<form\b.*?</form>", "", text, flags=re.DOTALL)
        changing = [form for form in re.findall(r"<form\b.*?</form>", text, flags=re.DOTALL) if 'method="post"' in form.partition(">")[0]]
        for button in re.findall(r"<button\b[^>]*>", " ".join(changing) + outside):
            if 'type="button"' not in button:
                assert " disabled" in button, (path, button)
                seen += 1
    assert seen > 15
    assert '<button class="quiet">Sign out</button>' in (await boss.get("/connections")).text


@pytest.mark.parametrize("settings_of", [{"console_read_only": True}])
async def test_a_demonstration_changes_nothing(browser, token, settings_of):
    """Read-only: people sign in and out and see all; every change is refused."""
    one = browser()
    assert (await one.sign_in("root")).status_code == 303
    assert "demonstration" in (await one.get("/connections")).text
    assert (await one.post("/connections/anns/deactivate")).status_code == 403
    assert (await one.http.post("/api/connections", headers=token("root", "manage"), json={})).status_code == 403
    assert (await one.post("/logout")).status_code == 303


@pytest.mark.parametrize(("settings_of", "field"), [
    ({"console_require_verified_email": True}, "is_email_verified"), ({"console_require_kyc": True}, "is_kyc_done")])
async def test_gates_of_the_host_platform(browser, feed, settings_of, field):
    """With the gate on, a user comes in only when the mark is set."""
    one = browser()
    await one.sign_in("ann", PASSWORD)
    assert (await one.get("/connections")).status_code == 403
    with feed.lake.metadata.write() as tx:
        people.change_user(tx, "ann", feed.clock.now_us(), **{field: True})
    assert (await one.get("/connections")).status_code == 200


class TestOrigins:
    """Pages of other web origins, as OpenBB Workspace is one."""

    @pytest.fixture
    def settings_of(self):
        """One origin may read."""
        return {"console_origins": "https://pro.openbb.co"}

    async def test_a_named_origin_reads_the_api_with_a_token(self, browser, token):
        """Preflight and answer name the origin, never allow credentials, and reach the API alone."""
        http, there = browser().http, {"origin": "https://pro.openbb.co"}
        asked = await http.request("OPTIONS", "/api/widgets.json", headers={
            **there, "access-control-request-method": "GET", "access-control-request-headers": "authorization"})
        assert asked.status_code == 204
        assert asked.headers["access-control-allow-headers"] == "authorization"
        answer = await http.get("/api/connections", headers={**there, **token("ann")})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://pro.openbb.co"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert "access-control-allow-credentials" not in answer.headers
        page = await http.get("/login", headers=there)
        assert "access-control-allow-origin" not in page.headers

    async def test_other_origins_read_nothing(self, browser, token):
        """Another origin, one that only begins alike, and null get no permission."""
        for origin in ("https://evil.example", "https://pro.openbb.co.evil.example", "null"):
            answer = await browser().http.get("/api/connections", headers={"origin": origin, **token("ann")})
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["cross-origin-resource-policy"] == "same-origin"


async def test_own_files_are_kept_by_browsers_and_travel_packed(browser):
    """A file whose name holds its version is never asked for again, the others are asked for each time and come once; all of them packed."""
    http = browser().http
    chart = await http.get("/static/vendor/lightweight-charts-5.2.1.js", headers={"accept-encoding": "gzip"})
    assert "immutable" in chart.headers["cache-control"]
    assert chart.headers["content-encoding"] == "gzip"
    sheet = await http.get("/static/style.css")
    assert sheet.headers["cache-control"] == "no-cache"
    assert (await http.get("/static/style.css", headers={"if-none-match": sheet.headers["etag"]})).status_code == 304
    assert (await http.get("/connections/anns")).headers["cache-control"] == "no-store"

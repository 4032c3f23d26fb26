"""Signing in, sessions, tokens, codes: who is let in, who is not, and for how long."""

import re
from datetime import timedelta

import pytest

from storage import access, people
from tests.console.conftest import PASSWORD


async def test_signing_in_gives_a_session_and_out_ends_it_at_the_server(browser):
    """The cookie is HttpOnly and SameSite=Strict; after signing out the old cookie opens nothing."""
    one = browser()
    answer = await one.sign_in("ann")
    assert answer.status_code == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    old = one.http.cookies["candlelake_session"]
    assert (await one.get("/connections")).status_code == 200
    assert (await one.post("/logout")).status_code == 303
    thief = browser()
    thief.http.cookies.set("candlelake_session", old)
    assert (await thief.get("/connections")).headers["location"] == "/login"


async def test_a_login_makes_a_new_session(browser):
    """A session that was fixed before the login is not the one after it, and ends."""
    one = browser()
    await one.sign_in("ann")
    first = one.http.cookies["candlelake_session"]
    await one.sign_in("ann")
    assert one.http.cookies["candlelake_session"] != first
    thief = browser()
    thief.http.cookies.set("candlelake_session", first)
    assert (await thief.get("/connections")).status_code == 303


async def test_wrong_names_and_wrong_passwords_are_answered_alike(browser):
    """Nobody learns from the answer which names exist."""
    one = browser()
    answers = [await one.http.post("/login", data={"name": name, "password": "not the right one"}) for name in ("ann", "nobody")]
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].text == answers[1].text


async def test_failed_logins_wait_longer_and_longer_and_others_do_not(browser, clock):
    """After five failures a name waits; the right password waits too; time heals; a spoofed address changes nothing."""
    one = browser()
    for n in range(5):
        await one.http.post("/login", data={"name": "ann", "password": "wrong"}, headers={"x-forwarded-for": f"10.0.0.{n}"})
    answer = await one.http.post("/login", data={"name": "ann", "password": PASSWORD})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    clock.advance(timedelta(hours=1))
    assert (await one.sign_in("ann")).status_code == 303


async def test_a_clock_that_was_wrong_locks_nobody_out_and_keeps_nobody_in(browser, clock):
    """Failures counted and a session begun while the clock was a year ahead: once it is right one may sign in, and has to."""
    one, other = browser(), browser()
    clock.advance(timedelta(days=365))
    await other.sign_in("bob")
    for _ in range(6):
        await one.http.post("/login", data={"name": "ann", "password": "wrong"})
    clock.advance(-timedelta(days=365))
    assert (await other.get("/connections")).headers["location"] == "/login"
    assert (await one.sign_in("ann")).status_code == 303


@pytest.mark.parametrize("moved", [access.IDLE_US + 1, access.ABSOLUTE_US + 1])
async def test_a_session_ends_by_itself(browser, clock, moved):
    """Unused for eight hours, or seven days old, a session is over."""
    one = browser()
    await one.sign_in("ann")
    clock.advance(timedelta(microseconds=moved))
    assert (await one.get("/connections")).headers["location"] == "/login"


async def test_a_session_in_use_lives_on(browser, clock):
    """Each use puts the idle end off, up to the absolute one."""
    one = browser()
    await one.sign_in("ann")
    for _ in range(4):
        clock.advance(timedelta(microseconds=access.IDLE_US) - timedelta(hours=1))
        assert (await one.get("/connections")).status_code == 200


async def test_a_user_who_is_switched_off_is_out_at_once(browser):
    """Sessions and tokens of an inactive user open nothing from then on."""
    boss, one = browser(), browser()
    await one.sign_in("ann")
    await boss.sign_in("root")
    assert (await boss.post("/users/ann", role="user")).status_code == 303
    assert (await one.get("/connections")).headers["location"] == "/login"
    assert (await browser().sign_in("ann")).status_code == 401


async def test_the_last_super_admin_stays(browser):
    """Nobody can lock everybody out."""
    boss = browser()
    await boss.sign_in("root")
    answer = await boss.post("/users/root", role="user", is_active="true")
    assert answer.status_code == 403
    assert "last super admin" in answer.text


@pytest.mark.parametrize("site", [{"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}])
async def test_forms_of_other_sites_are_refused(browser, site):
    """CSRF: with cookie and even with the token, a foreign origin changes nothing; so for the login itself."""
    one = browser()
    await one.sign_in("ann")
    answer = await one.http.post("/connections/anns/deactivate", data={"csrf": one.csrf}, headers=site)
    assert answer.status_code == 403
    assert (await one.http.post("/login", data={"name": "ann", "password": PASSWORD}, headers=site)).status_code == 403


async def test_a_form_without_the_token_is_refused(browser, feed):
    """CSRF: no token, a wrong one, or another session's changes nothing."""
    one, two = browser(), browser()
    await one.sign_in("ann")
    await two.sign_in("bob")
    for value in ("", "x" * 43, two.csrf):
        assert (await one.http.post("/connections/anns/deactivate", data={"csrf": value})).status_code == 403
    assert feed.connections.get("anns").is_active


async def test_tokens_are_bound_to_scope_time_and_owner(browser, token, clock, feed):
    """A read token cannot change, an expired or revoked one opens nothing, and one in the URL is not looked at."""
    http = browser().http
    read, manage = token("ann"), token("ann", "read", "manage")
    assert (await http.get("/api/connections", headers=read)).status_code == 200
    assert (await http.post("/api/connections/anns/deactivate", headers=read)).status_code == 403
    assert (await http.post("/api/connections/anns/deactivate", headers=manage)).status_code == 200
    value = read["authorization"].split()[1]
    assert (await http.get(f"/api/connections?token={value}&access_token={value}")).status_code == 401
    with feed.lake.metadata.write() as tx:
        access.revoke_token(tx, access.list_tokens(tx, people.get_user(tx, "ann").id)[0].id, None, clock.now_us())
    assert (await http.get("/api/connections", headers=manage)).status_code == 401
    clock.advance(timedelta(days=31))
    assert (await http.get("/api/connections", headers=read)).status_code == 401


async def test_tokens_and_sessions_are_not_in_the_database(browser, token, feed, tmp_path):
    """A copy of the metadata store lets nobody in."""
    one = browser()
    await one.sign_in("ann")
    secrets = [one.http.cookies["candlelake_session"], token("ann")["authorization"].split()[1], PASSWORD]
    feed.lake.metadata.engine.dispose()
    held = b"".join(file.read_bytes() for file in (tmp_path / "home").glob("metadata.db*"))
    assert all(secret.encode() not in held for secret in secrets)


async def test_a_token_of_an_admin_sets_a_password_once(browser, clock):
    """A new user gets a one-time code; it works once, for a day, and sets the password."""
    boss, new = browser(), browser()
    await boss.sign_in("root")
    page = await boss.post("/users", name="carl", role="user")
    code = re.search(r'class="token">([0-9a-f]{32})<', page.text).group(1)
    assert (await new.http.post("/password", data={"code": code, "password": "short"})).status_code == 422
    assert (await new.http.post("/password", data={"code": code, "password": "a chair under the pear tree"})).status_code == 303
    assert (await new.http.post("/password", data={"code": code, "password": "another chair elsewhere"})).status_code == 422
    assert (await new.sign_in("carl", "a chair under the pear tree")).status_code == 303


async def test_the_first_admin_needs_the_code(tmp_path, clock):
    """An empty house leads to /setup; only the printed code makes the first admin, and only once."""
    from console.app import make_app
    from console.prefect_api import PrefectDesk
    from core.settings import Settings
    from feed import open_feed
    from tests.console.conftest import Browser

    config = Settings(_env_file=None, home=tmp_path / "new", key_file=tmp_path / "new.keys")
    with open_feed(config, clock) as feed:
        one = Browser(make_app(feed, PrefectDesk("http://127.0.0.1:9/api")))
        assert (await one.get("/login")).headers["location"] == "/setup"
        with feed.lake.metadata.write() as tx:
            code = access.make_code(tx, "setup", None, clock.now_us()).reveal()
        form = {"name": "eve", "password": "a long phrase of words"}
        assert (await one.http.post("/setup", data={"code": "0" * 32, **form})).status_code == 422
        assert (await one.http.post("/setup", data={"code": code, **form})).status_code == 303
        assert (await one.get("/users")).status_code == 200
        assert (await one.http.post("/setup", data={"code": code, **form})).status_code == 403
        await one.http.aclose()

"""One's own account: another password, other browsers signed out; and the way back for whoever has lost their password."""

import re

from tests.console.conftest import PASSWORD

ANOTHER = "another seven lamps at dusk"


async def test_a_password_is_changed_by_whoever_knows_the_present_one(browser):
    """A wrong present password, or a new one that is guessed, changes nothing; the right one ends every other session and makes this one new."""
    one, other = browser(), browser()
    await one.sign_in("ann")
    await other.sign_in("ann")
    for given, wanted in (("not the present one", ANOTHER), (PASSWORD, "short"), (PASSWORD, "password1234")):
        answer = await one.post("/account/password", password=given, new_password=wanted)
        assert answer.status_code == 422
        assert wanted not in answer.text
    before = one.http.cookies["candlelake_session"]
    assert (await one.post("/account/password", password=PASSWORD, new_password=ANOTHER)).status_code == 303
    assert one.http.cookies["candlelake_session"] != before
    assert (await one.get("/account")).status_code == 200
    assert (await other.get("/account")).headers["location"] == "/login"
    assert (await browser().sign_in("ann")).status_code == 401
    assert (await browser().sign_in("ann", ANOTHER)).status_code == 303


async def test_guesses_of_the_present_password_are_slowed_down(browser):
    """A browser left open is no way to try passwords."""
    one = browser()
    await one.sign_in("ann")
    statuses = [(await one.post("/account/password", password=f"guess {n}", new_password=ANOTHER)).status_code for n in range(7)]
    assert statuses[0] == 422
    assert statuses[-1] == 429


async def test_other_browsers_are_listed_and_signed_out(browser):
    """The account shows each live session; one button ends all but this one, and nobody else's."""
    one, two, bob = browser(), browser(), browser()
    for visitor, name in ((one, "ann"), (two, "ann"), (bob, "bob")):
        await visitor.sign_in(name)
    text = (await one.get("/account")).text
    assert len(re.findall("<li>since ", text)) == 2
    assert text.count("this browser") == 1
    assert (await one.post("/account/sessions/end")).status_code == 303
    assert (await two.get("/account")).headers["location"] == "/login"
    assert len(re.findall("<li>since ", (await one.get("/account")).text)) == 1
    assert (await bob.get("/account")).status_code == 200


async def test_whoever_sees_no_connections_begins_at_their_account(browser):
    """A staff admin without the permission is led to the account, which says what is lacking, and no link leads to a closed door."""
    one = browser()
    answer = await one.sign_in("clerk")
    assert answer.headers["location"] == "/account"
    assert (await one.get("/")).headers["location"] == "/account"
    text = (await one.get("/account")).text
    assert "manage-data-connections" in text
    for link in re.findall(r'<a href="(/[^"#]*)"', text):
        assert (await one.get(link)).status_code in {200, 303}, link


async def test_a_lost_password_is_replaced_with_a_code_of_an_admin(browser):
    """The users' page gives a new one-time code for somebody who is there already; it sets a password once."""
    boss = browser()
    await boss.sign_in("root")
    await boss.get("/users")
    page = await boss.post("/users/ann/code")
    code = re.search(r'class="token">([0-9a-f]{32})<', page.text).group(1)
    assert (await browser().http.post("/password", data={"code": code, "password": ANOTHER})).status_code == 303
    assert (await browser().sign_in("ann", ANOTHER)).status_code == 303
    assert (await browser().http.post("/password", data={"code": code, "password": PASSWORD})).status_code == 422

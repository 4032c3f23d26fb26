"""Second factors: set up with an app, asked for at sign-in, each code once, required by role, reset by an admin."""

import re
from datetime import timedelta

import pyotp
import pytest
from sqlalchemy import select

from core.errors import DecryptionError
from storage import audit, factors, people
from storage.keys import KeyRing
from storage.metadata.tables_factors import second_factors
from storage.vault import Vault
from tests.console.conftest import PASSWORD

PAGE = "/account/second-factor"


@pytest.fixture
def vault(feed):
    """The vault of the home."""
    return Vault(feed.lake.metadata, KeyRing.load(feed.settings), feed.clock)


@pytest.fixture
def app_of(feed, vault):
    """Give a user a confirmed second factor; returns what their app shows now, and the recovery codes."""

    def give(name):
        with feed.lake.metadata.write() as tx:
            user = people.get_user(tx, name)
            shown = pyotp.TOTP(factors.begin_factor(tx, vault, user).reveal())
            codes = factors.confirm_factor(tx, vault, user, shown.at(feed.clock.now_us() // 1_000_000), feed.clock.now_us())
        feed.clock.advance(timedelta(minutes=2))
        return lambda: shown.at(feed.clock.now_us() // 1_000_000), [item.reveal() for item in codes]

    return give


async def sign_in(visitor, name, code=""):
    """Sign in with a code; returns the status."""
    return (await visitor.http.post("/login", data={"name": name, "password": PASSWORD, "code": code})).status_code


async def test_set_up_in_the_browser(browser, feed):
    """Begin, scan, confirm: the key and its picture are on the page until confirmed, ten recovery codes after, never again."""
    visitor = browser()
    await visitor.sign_in("ann")
    assert "Set one up" in (await visitor.get(PAGE)).text
    assert (await visitor.post(PAGE)).status_code == 303
    shown = (await visitor.get(PAGE)).text
    assert "<svg" in shown
    assert "style=" not in shown
    key = re.search(r'class="token">([A-Z2-7]{32})<', shown).group(1)
    assert (await visitor.post(f"{PAGE}/confirm", code="000000")).status_code == 422
    code = pyotp.TOTP(key).at(feed.clock.now_us() // 1_000_000)
    done = await visitor.post(f"{PAGE}/confirm", code=f"{code[:3]} {code[3:]}")
    assert len(re.findall(r"<code>[0-9a-f]{8}-[0-9a-f]{8}</code>", done.text)) == 10
    after = (await visitor.get(PAGE)).text
    assert key not in after
    assert "10 recovery codes" in after
    with feed.lake.metadata.read() as tx:
        stored = tx.execute(select(second_factors)).mappings().one()
    assert key.encode() not in bytes(stored["ciphertext"])
    assert not any(code in str(stored["recovery"]) for code in re.findall(r"[0-9a-f]{8}-[0-9a-f]{8}", done.text))


async def test_signing_in_takes_the_code_once(browser, app_of, clock):
    """No code, a wrong one, an old one and one that was used are refused with the answer of a wrong password; the next is taken."""
    code, _ = app_of("ann")
    visitor = browser()
    answers = set()
    for given in ("", "12345", "0" * 6, code()[:5] + str((int(code()[5]) + 1) % 10)):
        answer = await visitor.http.post("/login", data={"name": "ann", "password": PASSWORD, "code": given})
        answers.add((answer.status_code, answer.text))
    wrong = await visitor.http.post("/login", data={"name": "ann", "password": "not this one", "code": code()})
    assert answers == {(401, wrong.text)}
    clock.advance(timedelta(minutes=20))
    spent = code()
    assert await sign_in(visitor, "ann", spent) == 303
    assert await sign_in(browser(), "ann", spent) == 401
    clock.advance(timedelta(seconds=30))
    assert await sign_in(browser(), "ann", spent) == 401  # still within the drift, but spent
    assert await sign_in(browser(), "ann", code()) == 303
    assert await sign_in(browser(), "bob") == 303


async def test_guessing_is_slowed_down(browser, app_of, clock):
    """With the right password, wrong codes run into the throttle as wrong passwords do."""
    code, _ = app_of("ann")
    statuses = [await sign_in(browser(), "ann", f"{number:06}") for number in range(8)]
    assert 429 in statuses
    assert await sign_in(browser(), "ann", code()) == 429
    clock.advance(timedelta(minutes=20))
    assert await sign_in(browser(), "ann", code()) == 303


async def test_recovery_codes_count_once_each(browser, app_of, feed):
    """A recovery code lets in once; the others stay."""
    _, codes = app_of("ann")
    assert await sign_in(browser(), "ann", codes[3].upper()) == 303
    assert await sign_in(browser(), "ann", codes[3]) == 401
    assert await sign_in(browser(), "ann", codes[4]) == 303
    with feed.lake.metadata.read() as tx:
        assert factors.find_factor(tx, people.get_user(tx, "ann").id).recovery_left == 8


async def test_removing_takes_a_code(browser, app_of, clock):
    """A browser left open cannot remove it without a code; with one it goes, and can be set up again."""
    code, _ = app_of("ann")
    visitor = browser()
    await sign_in(visitor, "ann", code())
    await visitor.get(PAGE)
    clock.advance(timedelta(minutes=2))
    assert (await visitor.post(PAGE)).status_code == 422  # there is one already
    assert (await visitor.post(f"{PAGE}/remove", code="000000")).status_code == 422
    assert (await visitor.post(f"{PAGE}/remove", code=code())).status_code == 303
    assert await sign_in(browser(), "ann") == 303


async def test_an_admin_resets_it(browser, app_of, feed, clock):
    """Only a super admin can; the person's sessions end, and the log says who did it."""
    code, _ = app_of("ann")
    ann, bob, root = browser(), browser(), browser()
    await sign_in(ann, "ann", code())
    await bob.sign_in("bob")
    assert (await bob.post("/users/ann/second-factor/reset")).status_code == 403
    await root.sign_in("root")
    assert "Reset the second factor of ann" in (await root.get("/users")).text
    assert (await root.post("/users/ann/second-factor/reset")).status_code == 303
    assert (await ann.get("/account")).status_code != 200
    assert await sign_in(browser(), "ann") == 303
    with feed.lake.metadata.read() as tx:
        assert ("root", "factor.reset", "ann") in [(row.actor, row.action, row.subject) for row in audit.list_audit(tx, 20)]


class TestRequired:
    """Roles that have to have one."""

    @pytest.fixture
    def settings_of(self):
        """Staff has to."""
        return {"console_require_totp": "super_admin,staff_admin"}

    async def test_until_it_is_set_up_nothing_else_opens(self, browser, token, feed):
        """A staff admin lands on the page that sets one up and reaches no other; their token neither; a user is not asked."""
        staff = browser()
        landed = await staff.http.post("/login", data={"name": "staff", "password": PASSWORD})
        assert landed.headers["location"] == PAGE
        assert (await staff.get("/connections")).status_code == 403
        assert PAGE in (await staff.get("/connections")).text
        assert (await staff.get("/api/connections", headers=token("staff"))).status_code == 403
        await staff.get(PAGE)
        await staff.post(PAGE)
        key = re.search(r'class="token">([A-Z2-7]{32})<', (await staff.get(PAGE)).text).group(1)
        code = pyotp.TOTP(key).at(feed.clock.now_us() // 1_000_000)
        assert (await staff.post(f"{PAGE}/confirm", code=code)).status_code == 200
        assert (await staff.get("/connections")).status_code == 200
        ann = browser()
        await ann.sign_in("ann")
        assert (await ann.get("/connections")).status_code == 200


async def test_a_token_cannot_change_how_its_owner_signs_in(browser, token):
    """A stolen token sets up no factor and removes none."""
    answer = await browser().http.post(PAGE, headers=token("ann", "read", "manage"))
    assert answer.status_code == 403


def test_keys_rotate_over_second_factors(feed, vault, app_of, clock):
    """Rotation seals factors anew, the old key can be retired only then, and a ciphertext moved to another user does not open."""
    code, _ = app_of("ann")
    app_of("bob")
    old = vault._ring.first
    assert vault.rotate() >= 2
    vault.retire(old)
    with feed.lake.metadata.write() as tx:
        ann, bob = people.get_user(tx, "ann").id, people.get_user(tx, "bob").id
        assert factors.use_factor_code(tx, vault, ann, code(), clock.now_us())
        stolen = tx.execute(select(second_factors.c.ciphertext).where(second_factors.c.user_id == bob)).scalar_one()
        tx.execute(second_factors.update().where(second_factors.c.user_id == ann).values(ciphertext=stolen))
    clock.advance(timedelta(minutes=2))
    with pytest.raises(DecryptionError), feed.lake.metadata.write() as tx:
        factors.use_factor_code(tx, vault, ann, code(), clock.now_us())

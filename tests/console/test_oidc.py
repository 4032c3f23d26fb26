"""Sign-in through an OpenID Connect provider: a real one on loopback, honest, careless and hostile."""

from datetime import timedelta

import pytest
from joserfc import jwk

from console import oidc
from core.errors import InputError, ProviderUnavailableError, UnsupportedError
from core.settings import Settings
from storage import audit, people
from tests.console.issuer import CLIENT, CLIENT_SECRET, running_issuer

BACK = "/login/oidc/back"


@pytest.fixture(scope="module")
def served():
    """One provider for all tests."""
    with running_issuer() as issuer:
        yield issuer


@pytest.fixture
def issuer(served, clock):
    """The provider as new, its clock the console's."""
    fresh, url = type(served)(served.key), served.url
    served.__dict__.update(fresh.__dict__)
    served.sign = served.signed
    served.url, served.now = url, clock.now_us() // 1_000_000
    return served


@pytest.fixture
def settings_of(issuer):
    """A console that offers it."""
    return {"oidc_issuer": issuer.url, "oidc_client_id": CLIENT, "oidc_client_secret": CLIENT_SECRET, "oidc_label": "Example ID"}


@pytest.fixture
def ann(feed):
    """Give ann the address that the provider verifies."""
    with feed.lake.metadata.write() as tx:
        return people.change_user(tx, "ann", feed.clock.now_us(), email="Ann@example.org")


async def go(visitor, issuer):
    """Leave for the provider, agree there, come back; returns the last answer."""
    left = await visitor.get("/login/oidc")
    assert left.status_code == 303
    return await visitor.get(issuer.authorize(left.headers["location"]).removeprefix("http://127.0.0.1"))


async def is_in(visitor):
    """Whether a visitor is signed in."""
    return (await visitor.get("/account")).status_code == 200


async def test_a_user_known_by_verified_email_signs_in(browser, issuer, ann, feed):
    """The sign-in page offers it; who agrees at the provider is in, the next time by the identity itself, and the log says so."""
    visitor = browser()
    assert "Sign in with Example ID" in (await visitor.get("/login")).text
    back = await go(visitor, issuer)
    assert back.status_code == 200
    assert "Signed in as ann" in back.text
    assert await is_in(visitor)
    issuer.person = {"sub": "person-1", "email": "moved@example.org", "email_verified": False}
    again = browser()
    assert (await go(again, issuer)).status_code == 200
    assert await is_in(again)
    with feed.lake.metadata.read() as tx:
        assert [row.actor for row in audit.list_audit(tx, 10) if row.action == "login.oidc"] == ["ann", "ann"]
        assert audit.verify_audit(tx) is None


@pytest.mark.parametrize("person", [
    {"sub": "p", "email": "ann@example.org", "email_verified": False}, {"sub": "p", "email": "ann@example.org"},
    {"sub": "p", "email": "ann@example.org", "email_verified": "true"}, {"sub": "p", "email": "eve@example.org", "email_verified": True},
    {"sub": "p"}, {"sub": 7}, {"sub": "x" * 300, "email": "ann@example.org", "email_verified": True}])
async def test_nobody_gets_in_by_an_address_that_is_not_proved(browser, issuer, ann, person):
    """An unverified address, a stranger's, none at all, or a subject that is none: refused, and no identity is linked."""
    issuer.person = person
    visitor = browser()
    assert (await go(visitor, issuer)).status_code == 401
    assert not await is_in(visitor)


async def test_inactive_and_ambiguous_users_stay_out(browser, issuer, ann, feed):
    """A deactivated user is not let in, known identity or not; an address that two users have names neither."""
    visitor = browser()
    await go(visitor, issuer)
    with feed.lake.metadata.write() as tx:
        people.change_user(tx, "ann", 0, is_active=False)
    assert (await go(browser(), issuer)).status_code == 401
    issuer.person = {**issuer.person, "sub": "person-2"}
    with feed.lake.metadata.write() as tx:
        people.change_user(tx, "ann", 0, is_active=True)
        people.change_user(tx, "bob", 0, email="ann@example.org")
    assert (await go(browser(), issuer)).status_code == 401


@pytest.mark.parametrize("claims", [
    {"iss": "https://other.example"}, {"aud": "another"}, {"nonce": "another"}, {"exp": 1}, {"azp": "another"}, {"iat": 4_000_000_000}])
async def test_a_token_for_another_sign_in_is_refused(browser, issuer, ann, claims):
    """Issuer, audience, nonce, times and authorized party are each checked."""
    issuer.claims = claims
    visitor = browser()
    assert (await go(visitor, issuer)).status_code == 401
    assert not await is_in(visitor)


async def test_a_token_signed_by_another_key_or_by_none_is_refused(browser, issuer, ann):
    """A foreign key under the same key id, the public key used as a secret (HS256), and no signature at all."""
    issuer.signing = jwk.RSAKey.generate_key(2048, {"kid": "one"})
    assert (await go(browser(), issuer)).status_code == 401
    for sign in (issuer.signed_by_public_key, issuer.unsigned):
        issuer.sign = sign
        visitor = browser()
        assert (await go(visitor, issuer)).status_code == 401
        assert not await is_in(visitor)


async def test_what_another_browser_began_is_not_finished_here(browser, issuer, ann, clock):
    """A code or state brought by a browser without its cookie, with another's, or too late is refused."""
    left = await browser().get("/login/oidc")
    back = issuer.authorize(left.headers["location"]).removeprefix("http://127.0.0.1")
    stranger = browser()
    assert (await stranger.get(back)).status_code == 401
    await stranger.get("/login/oidc")
    assert (await stranger.get(back)).status_code == 401
    slow = browser()
    left = await slow.get("/login/oidc")
    clock.advance(timedelta(seconds=601))
    issuer.now += 601
    late = issuer.authorize(left.headers["location"]).removeprefix("http://127.0.0.1")
    assert (await slow.get(late)).status_code == 401
    refused = browser()
    left = await refused.get("/login/oidc")
    state = issuer.authorize(left.headers["location"]).rpartition("state=")[2]
    assert (await refused.get(f"{BACK}?error=access_denied&state={state}")).status_code == 401


async def test_a_code_counts_once(browser, issuer, ann):
    """The provider's refusal of a spent code is a refusal here."""
    visitor = browser()
    left = await visitor.get("/login/oidc")
    cookie = visitor.http.cookies["candlelake_oidc"]
    back = issuer.authorize(left.headers["location"]).removeprefix("http://127.0.0.1")
    assert (await visitor.get(back)).status_code == 200
    thief = browser()
    thief.http.cookies.set("candlelake_oidc", cookie, domain="127.0.0.1", path="/login/oidc")
    assert (await thief.get(back)).status_code == 401


async def test_the_session_cookie_is_strict_and_nothing_of_the_provider_stays(browser, issuer, ann):
    """The session is set from a page of ours; the pending cookie goes; no secret, code or token is in the answer."""
    visitor = browser()
    back = await go(visitor, issuer)
    cookies = back.headers.get_list("set-cookie")
    assert any("candlelake_session=" in item and "samesite=strict" in item.lower() and "httponly" in item.lower() for item in cookies)
    assert any(item.startswith('candlelake_oidc=""') for item in cookies)
    assert CLIENT_SECRET not in back.text
    assert "code-0" not in back.text


@pytest.mark.parametrize(("broken", "words"), [
    ((500, b"{}"), "HTTP 500"), ((200, b"<html>"), "no JSON object"), ((200, b"[1]"), "no JSON object"),
    ((200, b" " * 1_100_000), "too long"), ((302, b""), "HTTP 302")])
async def test_a_provider_that_answers_nonsense_is_named(browser, issuer, ann, broken, words):
    """One line that says what came; the page to sign in by password stays."""
    issuer.broken = broken
    answer = await browser().get("/login/oidc")
    assert answer.status_code == 503
    assert words in answer.text
    assert 'name="password"' in answer.text


def test_addresses_have_to_be_https(issuer):
    """Plain http is taken on loopback alone, and a provider cannot send elsewhere what belongs on https."""
    plain = Settings(_env_file=None, oidc_issuer="http://id.example.org", oidc_client_id="x")
    with pytest.raises(InputError, match="https"):
        oidc.begin(plain, "http://127.0.0.1/back", 0)
    ours = Settings(_env_file=None, oidc_issuer=issuer.url, oidc_client_id="x")
    issuer.document = {"token_endpoint": "ftp://127.0.0.1/token"}
    with pytest.raises(InputError, match="token_endpoint"):
        oidc.begin(ours, "http://127.0.0.1/back", 0)
    issuer.document = {"issuer": "https://else.example"}
    with pytest.raises(ProviderUnavailableError, match="another name"):
        oidc.begin(ours, "http://127.0.0.1/back", 0)


def test_without_settings_it_is_not_there():
    """A console without an issuer says what to set."""
    with pytest.raises(UnsupportedError, match="CANDLELAKE_OIDC_ISSUER"):
        oidc.begin(Settings(_env_file=None), "http://127.0.0.1/back", 0)

"""Demo or real: a connection's account is what its provider said last, and nobody's guess."""

from datetime import timedelta

import pytest

from connections.accounts import AccountSeen, account_of
from core.clock import isoformat
from core.errors import NetworkError


@pytest.fixture
def known(service, clock):
    """Return what is known of the account; each look is a moment later than what came before."""
    def look():
        clock.advance(timedelta(seconds=1))
        with service.lake.metadata.read() as tx:
            return account_of(tx, "small")

    return look


async def test_an_account_is_what_its_provider_said_last(service, given, venue, clock, known):
    """Unknown before anybody asked, and when the provider does not say; real money is called so; a failed test changes nothing."""
    service.create(given())
    assert known() == AccountSeen("unknown")
    assert "`candlelake connections test small` asks" in known().line("small")
    for is_demo, kind, words in ((True, "demo", "demo account, as small said"), (False, "real", "REAL account, as small said"),
                                 (None, "unknown", "take it for real money")):
        venue.is_demo, asked_us = is_demo, clock.now_us()
        assert (await service.test("small")).type == "success"
        assert known() == AccountSeen(kind, asked_us)
        assert words in known().line("small")
        assert kind == "unknown" or isoformat(asked_us) in known().line("small")
    seen, venue.fault, venue.is_demo = known(), NetworkError("no answer"), True
    assert (await service.test("small")).type == "error"
    assert known() == seen


@pytest.mark.parametrize(("changes", "kind"), [
    ({"name": "Other"}, "demo"), ({"settings": {"max_open_orders": 2}}, "demo"), ({"symbols": ["ETH/USD"]}, "demo"),
    ({"credentials": {"user": "8", "password": "right"}}, "unknown"),
    ({"base_url": "http://127.0.0.1:4280/other", "credentials": {"user": "7", "password": "right"}}, "unknown"),
])
async def test_another_login_is_another_account(service, given, known, changes, kind):
    """What may lead to another account makes it unknown until its provider is asked again; other changes do not."""
    service.create(given())
    await service.test("small")
    assert known().kind == "demo"
    service.update("small", **changes)
    assert known().kind == kind
    await service.test("small")
    assert known().kind == "demo"
    service.delete("small")
    service.create(given())  # of the same name, and nobody knows whose it is
    assert known().kind == "unknown"

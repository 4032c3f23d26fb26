"""Names of providers, and how they are opened."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import ccxt
import pytest

from core.errors import InputError
from providers import registry
from providers.base import Capabilities, ConnectionSpec, Unlimited
from providers.registry import ProviderEntry, check_provider, describe, open_provider, provider_names

ENTRY = ProviderEntry(
    describe=lambda: Capabilities("house", "fx", ("1m",), {"*": 10}), open=lambda spec, budget: (spec, budget))  # type: ignore[arg-type, return-value]
NOT_AN_ENTRY = "something else"


@pytest.fixture
def _plugins(monkeypatch):
    """Offer four plug-ins, two of them under names of ours."""
    points = EntryPoints([
        EntryPoint("house", f"{__name__}:ENTRY", registry.GROUP), EntryPoint("broken", f"{__name__}:NOT_AN_ENTRY", registry.GROUP),
        EntryPoint("replay", f"{__name__}:ENTRY", registry.GROUP), EntryPoint("ccxt:kraken", f"{__name__}:ENTRY", registry.GROUP)])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    monkeypatch.setattr(registry, "entry_points", points.select)
    registry._plugins.cache_clear()
    yield
    registry._plugins.cache_clear()


def test_every_exchange_of_ccxt_has_a_name():
    """The ids read off ccxt's folder are exactly the ones it knows itself."""
    names = provider_names()
    assert [name.removeprefix("ccxt:") for name in names if name.startswith("ccxt:")] == sorted(ccxt.exchanges)
    assert names[:3] == ["mtapi:mt5", "mtapi:mt4", "replay"]
    assert len(names) == len(set(names))


def test_names_come_without_importing_ccxt_or_polars():
    """Listing and checking names costs the CLI no heavy import."""
    code = ("import sys; from providers.registry import check_provider, provider_names; provider_names(); "
            "check_provider('ccxt:kraken'); print('ccxt' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "near"), [
    ("krakn", "ccxt:kraken"), ("kraken", "ccxt:kraken"), ("mtapi:mt6", "mtapi:mt5"), ("mt4", "mtapi:mt4"), ("Replay", "replay"),
    ("", "candlelake connections add"), ("zzzzzzzzzzzzz", "list them"),
])
def test_unknown_names_are_input_errors_with_near_ones(name, near):
    """A mistyped provider is answered with what was received, what is allowed and the nearest names."""
    for call in (check_provider, describe):
        with pytest.raises(InputError) as caught:
            call(name)
        assert near in str(caught.value)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize("name", ["mtapi:mt5", "mtapi:mt4", "replay"])
def test_builtin_providers_describe_themselves(name):
    """Descriptions name the provider and limit a page of every timeframe they offer."""
    capabilities = describe(name)
    assert capabilities.provider == name
    assert all(capabilities.page_candles.get(each, capabilities.page_candles["*"]) > 0 for each in capabilities.timeframes)


@pytest.mark.usefixtures("_plugins")
def test_plugins_join_and_cannot_take_our_names(caplog):
    """A plug-in's entry point is a provider like ours; names that are ours stay ours, with a warning."""
    caplog.set_level(logging.WARNING)  # a command run before in this process may have set it higher
    names = provider_names()
    assert names[3:5] == ["broken", "house"]
    assert names.count("replay") == names.count("ccxt:kraken") == 1
    assert "replay" in caplog.text
    assert describe("house").provider == "house"
    assert describe("replay").provider == "replay"
    spec, budget = ConnectionSpec("x", "house"), Unlimited()
    assert open_provider(spec, budget) == (spec, budget)
    with pytest.raises(InputError, match="ProviderEntry"):
        describe("broken")


@pytest.mark.parametrize(("credentials", "text"), [
    ({}, "add user and password"), ({"user": "1"}, "add password"), ({"user": "x1", "password": "canary"}, "digits"),
    ({"user": "1", "password": "canary"}, "server"), ({"user": "1", "password": "canary", "host": "h"}, "port"),
    ({"user": "1", "password": "canary", "host": "h", "port": "70000"}, "port"),
])
def test_missing_credentials_are_named_never_shown(credentials, text):
    """What an mtapi login lacks is said without any value of what it has."""
    from core.secrets import Secret

    spec = ConnectionSpec("x", "mtapi:mt5", credentials={name: Secret(value) for name, value in credentials.items()})
    with pytest.raises(InputError, match=text) as caught:
        open_provider(spec, Unlimited())
    assert "canary" not in str(caught.value)

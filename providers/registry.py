"""Names of providers, and how each is opened. Plug-ins join through the entry-point group `candlelake.providers`.

Nothing heavy is imported until a provider of its kind is described or opened: ccxt alone takes a second.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from core.errors import InputError
from providers.base import Capabilities, ConnectionSpec, MarketDataProvider, RateBudget
from providers.exchange import exchange_capabilities, exchange_ids, open_exchange

GROUP: Final = "candlelake.providers"
EXCHANGE_PREFIX: Final = "ccxt:"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """One provider: what it can do, and how it is opened. A plug-in's entry point loads one; its name is the provider's."""

    describe: Callable[[], Capabilities]
    open: Callable[[ConnectionSpec, RateBudget], MarketDataProvider]


def provider_names() -> list[str]:
    """Return the names of all providers: the brokers first, then plug-ins, then every exchange, sorted within."""
    return [*_builtin(), *sorted(_plugins()), *(EXCHANGE_PREFIX + name for name in exchange_ids())]


def check_provider(name: str) -> str:
    """Return `name` if it is a provider's.

    Raises:
        InputError: it is not; names the nearest ones.
    """
    names = provider_names()
    if name in names:
        return name
    near = difflib.get_close_matches(name.strip().lower(), names, n=3, cutoff=0.5)
    near += [full for full in names if full.endswith(":" + name.strip().lower()) and full not in near]
    fix = f"did you mean {', '.join(near)}?" if near else "list them with: candlelake connections add --help"
    raise InputError("provider", name, "mtapi:mt5, mtapi:mt4, replay, ccxt:<exchange id>, or a plug-in's name", fix)


def describe(provider: str) -> Capabilities:
    """Return what a provider can do, without a connection.

    Raises:
        InputError: no provider has that name.
    """
    return _entry(check_provider(provider)).describe()


def open_provider(spec: ConnectionSpec, budget: RateBudget) -> MarketDataProvider:
    """Return the provider of a connection, not yet connected.

    Raises:
        InputError: no provider has that name, or the spec lacks what the provider needs.
        AddressRefusedError: the base URL is not one we may use.
    """
    return _entry(check_provider(spec.provider)).open(spec, budget)


def _entry(name: str) -> ProviderEntry:
    builtin = _builtin()
    if name in builtin:
        return builtin[name]()
    if name.startswith(EXCHANGE_PREFIX):
        return _exchange(name.removeprefix(EXCHANGE_PREFIX))
    return _plugin(name)


def _builtin() -> dict[str, Callable[[], ProviderEntry]]:
    return {"mtapi:mt5": _mt5, "mtapi:mt4": _mt4, "replay": _replay}


def _mt5() -> ProviderEntry:
    from providers.mtapi.provider import MT5_CAPABILITIES, open_mt5  # noqa: PLC0415  imported when used

    return ProviderEntry(lambda: MT5_CAPABILITIES, open_mt5)


def _mt4() -> ProviderEntry:
    from providers.mtapi.provider import MT4_CAPABILITIES, open_mt4  # noqa: PLC0415  imported when used

    return ProviderEntry(lambda: MT4_CAPABILITIES, open_mt4)


def _replay() -> ProviderEntry:
    from providers.replay import CAPABILITIES, open_replay  # noqa: PLC0415  imported when used

    return ProviderEntry(lambda: CAPABILITIES, open_replay)


def _exchange(exchange_id: str) -> ProviderEntry:
    return ProviderEntry(lambda: exchange_capabilities(exchange_id), open_exchange)


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Return the plug-ins by name, read once: it takes a look into every installed package."""
    points = {point.name: point for point in reversed(list(entry_points(group=GROUP)))}  # of two with one name the first
    taken = {name for name in points if name in _builtin() or name.startswith(EXCHANGE_PREFIX)}
    for name in sorted(taken):
        _LOG.warning("plug-in provider %r is left out: the name is Candlelake's own; rename its entry point", name)
    return {name: point for name, point in points.items() if name not in taken}


def _plugin(name: str) -> ProviderEntry:
    point = _plugins()[name]
    loaded = point.load()
    if not isinstance(loaded, ProviderEntry):
        raise InputError(
            f"plug-in provider {name}", type(loaded).__name__, "a providers.registry.ProviderEntry", f"see {point.value}")
    return loaded

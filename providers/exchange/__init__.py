"""Crypto exchanges through ccxt: any of its ids, one request per page, every error translated at the border.

Importing this package is cheap; ccxt itself (seconds) is imported when a capability is asked for or a connection opens.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from core.errors import PermanentError
from providers.base import Capabilities, ConnectionSpec, MarketDataProvider, RateBudget

__all__ = ["exchange_capabilities", "exchange_ids", "open_exchange"]


@lru_cache(maxsize=1)
def exchange_ids() -> tuple[str, ...]:
    """Return ccxt's exchange ids, sorted, without importing ccxt: it has one module for each exchange.

    Raises:
        PermanentError: ccxt is not installed.
    """
    found = find_spec("ccxt")
    folders = found.submodule_search_locations if found is not None else None
    if not folders:
        raise PermanentError("ccxt is not installed; install candlelake again, it depends on ccxt")
    names = (path.stem for folder in folders for path in Path(folder).glob("*.py"))
    return tuple(sorted(name for name in names if not name.startswith("_")))


def exchange_capabilities(exchange_id: str) -> Capabilities:
    """Return what an exchange can do, without a connection; imports ccxt.

    Raises:
        InputError: ccxt has no exchange of that id.
    """
    from providers.exchange.profiles import capabilities  # noqa: PLC0415  ccxt is slow to import

    return capabilities(exchange_id)


def open_exchange(spec: ConnectionSpec, budget: RateBudget) -> MarketDataProvider:
    """Return the provider of a connection to an exchange, not yet connected; see README.md for `spec.config`.

    Raises:
        InputError: an unknown exchange, credential field or configuration key.
        AddressRefusedError: the base URL is not one we may use.
    """
    from providers.exchange.order_dialects import DIALECTS  # noqa: PLC0415  imported when used
    from providers.exchange.provider import ExchangeProvider  # noqa: PLC0415  polars and aiohttp when used
    from providers.exchange.trading_provider import ExchangeTradingProvider  # noqa: PLC0415  as the provider

    if spec.provider.removeprefix("ccxt:") in DIALECTS:
        return ExchangeTradingProvider(spec, budget)
    return ExchangeProvider(spec, budget)

"""What a person may choose from when a connection is made: providers with what they take, and the symbols they trade."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from connections.inputs import ConnectionInput, check_input, may_be_private
from connections.service import ConnectionService
from core.clock import Clock
from core.errors import InputError
from core.settings import Settings
from providers import registry
from providers.base import Capabilities, ConnectionSpec, SymbolInfo, Unlimited

__all__ = ["Capabilities", "SymbolInfo", "connection_symbols", "describe_provider", "matching", "provider_choices", "public_symbols"]
SECONDS: Final = 20.0  # a person waits for the answer


def provider_choices() -> list[str]:
    """Return the names of all providers, brokers first."""
    return registry.provider_names()


def describe_provider(name: str) -> Capabilities:
    """Return what a provider can do and which credentials it takes; InputError when no provider has that name."""
    return registry.describe(name)


async def public_symbols(settings: Settings, clock: Clock, provider: str, base_url: str | None = None) -> list[SymbolInfo]:
    """Return what a provider trades, asked without credentials at its public endpoint; stores nothing.

    Raises:
        InputError: no such provider, or it answers nobody without a login.
        AddressRefusedError: the base URL is not one we may use. TransientError: no answer.
    """
    given = ConnectionInput(slug="choice", provider=provider, base_url=base_url)
    may_private = may_be_private(base_url, settings, is_admin_owned=True)
    capabilities = await asyncio.to_thread(check_input, given, registry.describe, allow_private=may_private)
    if capabilities.credentials:
        raise InputError("provider", provider, "one that shows its symbols without a login",
                         "save the connection with its credentials first, then choose symbols under Edit")
    opened = registry.open_provider(ConnectionSpec(
        "choice", provider, base_url=base_url, timeout=SECONDS, allow_private_hosts=may_private, clock=clock), Unlimited())
    try:
        await opened.connect()
        return await opened.symbols()
    finally:
        await opened.disconnect()


async def connection_symbols(service: ConnectionService, slug: str) -> list[SymbolInfo]:
    """Return what a stored, active connection may see at its provider, asked with its own credentials and budget."""
    async with service.open_provider(slug) as opened:
        return await opened.symbols()


def matching(found: Sequence[SymbolInfo], query: str, limit: int) -> list[SymbolInfo]:
    """Return the symbols that hold every word of `query`: exact ones first, then those that begin with it, active before gone."""
    words = query.upper().split()
    hits = [item for item in found if all(word in f"{item.symbol} {item.description}".upper() for word in words)]
    first = words[0] if words else ""
    return sorted(hits, key=lambda item: (
        not item.is_active, item.symbol.upper() != first, not item.symbol.upper().startswith(first), len(item.symbol), item.symbol))[:limit]

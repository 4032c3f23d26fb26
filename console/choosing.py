"""Providers to choose from and the symbols they trade, asked at the provider and kept for a while for all who look."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Final

from connections.choices import (
    Capabilities,
    SymbolInfo,
    connection_symbols,
    describe_provider,
    matching,
    provider_choices,
    public_symbols,
)
from console.identity import Identity
from console.readings import seen_connection
from core.errors import NotPermittedError, RateLimitedError
from feed.context import Feed

KEPT_SECONDS: Final = 600.0
KEPT_LISTS: Final = 16  # the largest hold some thousands of symbols
WAITING_MAX: Final = 8
SHOWN: Final = 40


class Symbols:
    """Lists of symbols by where they were asked; one question at a time for each, few at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], tuple[float, Sequence[SymbolInfo]]] = OrderedDict()
        self._asking: dict[tuple[str, ...], asyncio.Lock] = {}

    async def get(self, key: tuple[str, ...], ask: Callable[[], Awaitable[Sequence[SymbolInfo]]]) -> Sequence[SymbolInfo]:
        """Return what is kept, or what `ask` answers.

        Raises:
            RateLimitedError: too many lists are being asked for.
        """
        if (kept := self._fresh(key)) is not None:
            return kept
        if key not in self._asking and len(self._asking) >= WAITING_MAX:
            raise RateLimitedError("too many providers are being asked for their symbols; try again soon", retry_after=5)
        lock = self._asking.setdefault(key, asyncio.Lock())
        async with lock:
            try:
                if (kept := self._fresh(key)) is not None:
                    return kept
                found = await ask()
                self._kept[key] = (time.monotonic(), found)
                while len(self._kept) > KEPT_LISTS:
                    self._kept.popitem(last=False)
                return found
            finally:
                self._asking.pop(key, None)

    def _fresh(self, key: tuple[str, ...]) -> Sequence[SymbolInfo] | None:
        at, found = self._kept.get(key, (0.0, None))
        return found if found is not None and time.monotonic() - at < KEPT_SECONDS else None


_symbols = Symbols()


@lru_cache(maxsize=256)
def capabilities_of(provider: str) -> Capabilities:
    """Return what a provider can do; InputError when there is none of that name."""
    return describe_provider(provider)


def provider_rows() -> list[str]:
    """Return the providers' names, brokers first."""
    return provider_choices()


def provider_dict(provider: str) -> dict[str, Any]:
    """Return a provider as JSON-ready values."""
    found = capabilities_of(provider)
    return {
        "provider": provider, "market_type": found.market_type, "timeframes": list(found.timeframes),
        "credentials": list(found.credentials), "optional_credentials": list(found.optional_credentials),
        "history_candles": found.history_candles, "has_ticks": found.has_ticks, "has_streams": found.has_streams,
        "shows_symbols_without_login": not found.credentials,
    }


async def provider_symbols(feed: Feed, who: Identity, provider: str, base_url: str | None, query: str, limit: int = SHOWN) -> list[dict[str, Any]]:  # noqa: PLR0917  one for each part of the question
    """Return the symbols of a provider's public endpoint that match.

    Raises:
        NotPermittedError: another address, and the reader is no admin.
    """
    if base_url and not who.user.is_admin:
        raise NotPermittedError("only an admin may send requests to another address")
    if not query.strip():
        return []  # thousands help nobody
    found = await _symbols.get((str(feed.lake.root), provider, base_url or ""), lambda: public_symbols(feed.settings, feed.clock, provider, base_url))
    return _rows(found, query, limit)


async def symbols_of(feed: Feed, who: Identity, slug: str, query: str, limit: int = SHOWN) -> list[dict[str, Any]]:
    """Return the symbols that a stored connection may see and that match; its own credentials ask."""
    row = await asyncio.to_thread(seen_connection, feed, who, slug)
    if not query.strip():
        return []
    if not capabilities_of(row.provider).credentials:  # public: also while the connection is switched off
        key = (str(feed.lake.root), row.provider, row.base_url or "")
        return _rows(await _symbols.get(key, lambda: public_symbols(feed.settings, feed.clock, row.provider, row.base_url)), query, limit)
    found = await _symbols.get((str(feed.lake.root), "connection", slug, str(row.id)), lambda: connection_symbols(feed.connections, slug))
    return _rows(found, query, limit)


def _rows(found: Sequence[SymbolInfo], query: str, limit: int) -> list[dict[str, Any]]:
    return [{"symbol": item.symbol, "description": item.description, "is_active": item.is_active} for item in matching(found, query, limit)]

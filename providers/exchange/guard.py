"""ccxt's exchange classes with their silent failures closed.

A guarded class keeps ccxt's request building and parsing of errors, and changes this: every request spends from our budget,
goes through our session and our clock; a body that is not JSON is an error; rows of candles are kept raw.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final

from ccxt.async_support.base.exchange import Exchange
from ccxt.base.errors import BadResponse, BaseError, ExchangeClosedByUser

from core.clock import Clock
from core.errors import InputError
from providers.addresses import Target
from providers.base import RateBudget
from providers.exchange.profiles import exchange_class
from providers.exchange.transport import GuardedSession
from providers.exchange.wire import Exchanged, current_call
from providers.tls import client_context

_SILENT: Final = logging.Logger("providers.exchange.silent", level=logging.CRITICAL + 1)  # noqa: LOG001  no handler of the root ever sees it: ccxt logs signed URLs at DEBUG


_current: ContextVar[Exchanged | None] = ContextVar("_current", default=None)


class Guards(Exchange):
    """Mixed in before ccxt's class of an exchange."""

    budget: RateBudget
    session: Any
    allow_private: bool = False
    closed_by_user: bool = False
    timeout_on_exit = 0

    def open(self, lazy: bool = False) -> None:
        """Make our session, once; a request that comes after close is refused."""
        if lazy and self.closed_by_user:
            raise ExchangeClosedByUser(f"{self.id} is closed")
        if self.session is None:
            self.session = GuardedSession(client_context(), allow_private=self.allow_private)

    async def fetch2(self, path: Any, api: Any = "public", method: Any = "GET", params: Any = None, config: Any = None) -> Any:
        """Send one request when the budget allows its weight, in units of ccxt's `cost`."""
        params, config = params or {}, config or {}
        weight = self.calculate_rate_limiter_cost(api, method, path, params, config)
        async with self.budget.spend(max(float(weight or 0), 0.01)):
            return await super().fetch2(path, api, method, params, config)

    async def fetch(self, url: Any, method: Any = "GET", headers: Any = None, body: Any = None) -> Any:
        """Send one request and record its answer in the call it belongs to."""
        seen, call = Exchanged(), current_call.get()
        token = _current.set(seen)
        if call is not None:
            call.answers.append(seen)
        try:
            return await super().fetch(url, method, headers, body)  # type: ignore[no-untyped-call]  # ccxt is untyped here
        except BaseError:
            if call is not None and call.failed is None:
                call.failed = seen
            raise
        finally:
            _current.reset(token)

    def on_rest_response(self, code: Any, reason: Any, url: Any, method: Any, headers: Any, *bodies: Any) -> Any:
        """Record the answer, and refuse one with a good status whose body is not JSON."""
        body = super().on_rest_response(code, reason, url, method, headers, *bodies)  # type: ignore[no-untyped-call]  # and here
        seen = _current.get() or Exchanged()
        seen.status, seen.headers, seen.body = code, headers, body
        seen.parsed = super().parse_json(body)  # type: ignore[no-untyped-call]  # and here
        if 200 <= code < 300 and seen.parsed is None:
            # without this ccxt turns a maintenance page into an empty list of candles
            raise BadResponse(f"{len(body)} characters that are not JSON: {body[:80]!r}")
        return body

    def parse_json(self, http_response: Any) -> Any:
        """Return the body as parsed before, else parse it."""
        seen = _current.get()
        if seen is not None and seen.body is http_response:
            return seen.parsed
        return super().parse_json(http_response)  # type: ignore[no-untyped-call]  # ccxt is untyped here

    def parse_ohlcvs(self, ohlcvs: Any, *context: Any, **options: Any) -> Any:
        """Keep the raw rows for providers.exchange.rows: ccxt would parse slowly, and some classes would fill gaps."""
        call = current_call.get()
        if call is None:
            return super().parse_ohlcvs(ohlcvs, *context, **options)
        call.rows = ohlcvs if isinstance(ohlcvs, list) else [ohlcvs]
        return []

    def __del__(self) -> None:
        """Say nothing: disconnect is the provider's duty."""


@lru_cache
def guarded_class(exchange_id: str) -> Any:
    """Return ccxt's class of an exchange with the guards on.

    Raises:
        InputError: ccxt has no exchange of that id.
    """
    return type(f"Guarded_{exchange_id}", (Guards, exchange_class(exchange_id)), {})


def build(
    exchange_id: str, *, budget: RateBudget, clock: Clock, timeout: float, allow_private: bool, base: Target | None,
    market_types: tuple[str, ...], options: Mapping[str, object], is_sandbox: bool,
    guarded: Callable[[str], Any] = guarded_class,
) -> Any:
    """Return an exchange of a guarded class, without credentials and with no socket open.

    Raises:
        InputError: a sandbox was asked for where the exchange has none.
    """
    exchange = guarded(exchange_id)({"enableRateLimit": False, "timeout": round(timeout * 1000)})
    exchange.budget, exchange.allow_private = budget, allow_private
    exchange.milliseconds = lambda: clock.now_us() // 1_000
    exchange.microseconds = clock.now_us
    exchange.seconds = lambda: clock.now_us() // 1_000_000
    exchange.logger, exchange.verbose = _SILENT, False
    kinds = exchange.options.get("fetchMarkets")
    exchange.options = exchange.deep_extend(exchange.options, dict(options))
    if isinstance(kinds, dict) and isinstance(kinds.get("types"), list):
        chosen = [kind for kind in kinds["types"] if kind in market_types]
        exchange.options["fetchMarkets"] = {**exchange.options["fetchMarkets"], "types": chosen or kinds["types"]}
    exchange.options["maxRetriesOnFailure"] = 0  # retries are made above, where Retry-After is known
    if is_sandbox:
        if not exchange.urls.get("test"):
            raise InputError("sandbox", exchange_id, "an exchange that has a sandbox", "remove sandbox from the configuration")
        exchange.set_sandbox_mode(True)
    if base is not None:
        exchange.urls["api"] = redirect(exchange.urls["api"], base, exchange.hostname or "")
    return exchange


def redirect(urls: Any, base: Target, hostname: str) -> Any:
    """Return ccxt's tree of URLs with every `https://HOST/PATH` as `BASE/HOST/PATH`, web sockets as ws or wss like BASE."""
    if isinstance(urls, dict):
        return {key: redirect(value, base, hostname) for key, value in urls.items()}
    if not isinstance(urls, str) or "://" not in urls:
        return urls
    scheme, rest = urls.replace("{hostname}", hostname).split("://", 1)
    root = base.url
    if scheme in {"ws", "wss"}:
        root = root.replace("http", "ws", 1)
    return f"{root}/{rest}"

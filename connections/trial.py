"""Tries a connection step by step and says for each what happened, how long it took and what to do."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from core.clock import DAY_US, isoformat
from core.errors import (
    CandlelakeError,
    ClockSkewError,
    CredentialsRefusedError,
    NetworkError,
    PermanentError,
    ProviderTimeoutError,
    UnknownSymbolError,
    UnsupportedError,
)
from core.interval import Interval
from core.secrets import redact
from core.timeframe import Timeframe
from providers.addresses import check_url, resolve
from providers.base import AccountInfo, ConnectionSpec, MarketDataProvider
from providers.tls import client_context

STEPS: Final = ("address", "tls", "login", "permission", "candle")
_LOOK_BACK_US: Final = 4 * DAY_US  # past a weekend


@dataclass(frozen=True, slots=True)
class TestStep:
    """One step. `ms` is what it took; a step that was skipped is ok and says so, one not tried is not ok."""

    __test__ = False  # pytest: not a test class
    name: str
    ok: bool
    ms: int
    message: str


@dataclass(frozen=True, slots=True)
class ConnectionTest:
    """How a test went: `type` success or error, one line for people, the steps in order."""

    __test__ = False
    type: Literal["success", "error"]
    message: str
    steps: list[TestStep]


@dataclass(slots=True)
class Trial:
    """One run of the steps over a provider that is not yet connected."""

    spec: ConnectionSpec
    provider: MarketDataProvider
    series: Sequence[tuple[str, str]] = ()  # symbol, timeframe; the first is tried
    error: CandlelakeError | None = None  # the first thing that went wrong
    account: AccountInfo | None = None  # as far as the provider has one and told of it
    steps: list[TestStep] = field(default_factory=list)

    async def run(self) -> ConnectionTest:
        """Take the steps until one fails; always disconnects."""
        try:
            for name in STEPS:
                await self._take(name, getattr(self, f"_{name}"))
        finally:
            await self.provider.disconnect()
        if self.error is None:
            return ConnectionTest("success", f"{self.spec.slug} works: {self.steps[-1].message}", self.steps)
        failed = next(step for step in self.steps if not step.ok)
        return ConnectionTest("error", f"{self.spec.slug}: {failed.name}: {failed.message}", self.steps)

    async def _take(self, name: str, step: Callable[[], Awaitable[str]]) -> None:
        if self.error is not None:
            failed = next(item.name for item in self.steps if not item.ok)
            self.steps.append(TestStep(name, ok=False, ms=0, message=f"not tried: {failed} failed"))
            return
        began = time.monotonic()
        try:
            try:
                async with asyncio.timeout(2 * self.spec.timeout):
                    message = await step()
            except TimeoutError:
                raise ProviderTimeoutError(
                    f"no end after {2 * self.spec.timeout:g} s; check the address and the network, then try again") from None
        except CandlelakeError as error:
            self.error = error
            message = _with_advice(name, error)
        ms = round((time.monotonic() - began) * 1000)
        self.steps.append(TestStep(name, ok=self.error is None, ms=ms, message=redact(message)))

    async def _address(self) -> str:
        if self.spec.base_url is None:
            return "skipped: the provider's own addresses are used"
        target = check_url(self.spec.base_url)
        found = await asyncio.to_thread(resolve, target.host, target.port, self.spec.allow_private_hosts)
        return f"{target.host} resolves to {', '.join(found[:3])}"

    async def _tls(self) -> str:
        target = None if self.spec.base_url is None else check_url(self.spec.base_url)
        if target is None:
            return "skipped: part of the login at the provider's own addresses"
        if target.scheme not in {"https", "wss"}:
            return f"skipped: {target.scheme} has no TLS; anyone on the way can read the credentials"
        address = (await asyncio.to_thread(resolve, target.host, target.port, self.spec.allow_private_hosts))[0]
        try:
            _, writer = await asyncio.open_connection(
                address, target.port, ssl=client_context(), server_hostname=target.host)
        except ssl.SSLCertVerificationError as error:
            raise PermanentError(f"the certificate of {target.host} is not good: {error.verify_message}") from error
        except ssl.SSLError as error:
            raise NetworkError(f"{target.host}:{target.port} does not speak TLS ({error.reason})") from error
        except OSError as error:
            raise NetworkError(f"{target.host}:{target.port} takes no connection: {error.strerror or error}") from error
        version = writer.get_extra_info("ssl_object").version()
        writer.close()
        return f"{version}, the certificate is good"

    async def _login(self) -> str:
        await self.provider.connect()
        return "logged in" if self.spec.credentials else "connected; no credentials, public data only"

    async def _permission(self) -> str:
        try:
            account = self.account = await self.provider.account_info()
        except UnsupportedError:
            return "skipped: public data has no account"
        kind = "" if account.is_demo is None else (" (demo)" if account.is_demo else " (real)")
        advice = "; it may trade: a read-only login (investor password, key without trading) is enough" \
            if account.can_trade else ""
        return f"account {account.login} at {account.server}{kind} may read data{advice}"

    async def _candle(self) -> str:
        symbol, timeframe = await self._choose()
        now_us = await self.provider.server_time_us()
        length_us = timeframe.length_us
        count = max(3, min(self.provider.capabilities.page_limit(timeframe) - 1, max(10, _LOOK_BACK_US // length_us)))
        start = max(0, now_us - count * length_us)
        page = await self.provider.fetch_candles(symbol, timeframe, Interval(start, now_us))
        if not page.candles.height:
            return f"{symbol} {timeframe} is known, but nothing was traded since {isoformat(start - start % 1_000_000)}"
        last = page.candles["ts"].max()
        return f"{symbol} {timeframe}: {page.candles.height} candles, the last one of {last!s}"

    async def _choose(self) -> tuple[str, Timeframe]:
        known = [item.symbol for item in await self.provider.symbols()]
        if not self.series:
            if not known:
                raise UnknownSymbolError("the provider offers no symbols")
            return known[0], Timeframe.parse(self.provider.capabilities.timeframes[0])
        symbol, name = self.series[0]
        if known and symbol not in known:
            raise UnknownSymbolError(f"symbol {symbol!r} is not offered; {len(known)} are, e.g. {', '.join(known[:3])}")
        return symbol, Timeframe.parse(name)


def _with_advice(step: str, error: CandlelakeError) -> str:
    advice = {
        "address": "check the spelling of the base URL",
        "tls": "check the port and the certificate of the base URL",
        "login": "check the base URL and whether the provider is up, then try again",
        "permission": "give this login the right to read market data",
        "candle": "check the symbol's spelling and that the login may see it",
    }[step]
    if isinstance(error, CredentialsRefusedError):
        advice = "enter the credentials again; it is not tried again by itself, so that no account is locked"
    if isinstance(error, ClockSkewError):
        advice = "set this machine's clock right, then try again"
    return f"{error}; {advice}"

"""What every provider of market data must do, as numbered cases. A new provider joins with one line in CANDIDATES.

The cases run against the sandbox in replay mode, whose present is a clock that stands still; `replay` reads files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.clock import ManualClock, parse_instant
from core.secrets import Secret
from core.timeframe import Timeframe
from providers.base import ConnectionSpec, MarketDataProvider, Unlimited
from providers.registry import open_provider

NOW = parse_instant("2021-06-16T10:07:30Z")  # a Wednesday
CANARY = "canary-conformance"
_ACCOUNT = {"user": "50000001", "password": "practice-only", "server": "Sandbox-Demo"}


@dataclass(frozen=True)
class Candidate:
    """One provider under test: where the sandbox plays it, and a symbol that trades on 2021-06-14 and -15."""

    provider: str
    symbol: str
    path: str | None  # below the sandbox's address; None for a provider that needs no network
    credentials: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    faults: str = "*"  # the paths where candles are asked for
    base: str = "1h"

    @property
    def id(self) -> str:
        """Names the candidate in test ids."""
        return self.provider

    @property
    def timeframe(self) -> Timeframe:
        """The timeframe that the cases ask for."""
        return Timeframe.parse(self.base)

    def spec(self, url: str, clock: ManualClock, **changes: object) -> ConnectionSpec:
        """Return the connection to the sandbox at `url`."""
        spec = ConnectionSpec(
            slug="conformance", provider=self.provider, base_url=None if self.path is None else url + self.path,
            credentials={name: Secret(value) for name, value in self.credentials.items()}, config=self.config, timeout=20.0,
            allow_private_hosts=True, clock=clock)
        return replace(spec, **changes)  # type: ignore[arg-type]

    def open(self, url: str, clock: ManualClock, **changes: object) -> MarketDataProvider:
        """Return the provider, not yet connected."""
        return open_provider(self.spec(url, clock, **changes), Unlimited())


CANDIDATES = [
    Candidate("mtapi:mt5", "EURUSD", "/mt5", _ACCOUNT, faults="/mt5/PriceHistory"),
    Candidate("mtapi:mt4", "EURUSD", "/mt4", _ACCOUNT, faults="/mt4/QuoteHistory"),
    Candidate("replay", "EURUSD", None),
    Candidate("ccxt:binance", "BTC/USDT", "", faults="*klines*"),
    Candidate("ccxt:kraken", "BTC/USD", "", faults="*OHLC*"),
    Candidate("ccxt:coinbase", "ETH/USD", "", faults="*candles*"),
]

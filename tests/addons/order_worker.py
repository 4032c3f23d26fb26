"""Orders sent by processes that may be killed: reads `<number>` from stdin, and sends that order in a process of its own.

Forked before anything is opened, so that a new process costs milliseconds. Prints `<number> <pid>` as it starts one and
`<number> done <exit>` when it has ended; `home`, `url` of the sandbox and platform are its arguments.
"""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from addons.execution.plugin import Execution
from core.clock import HOUR_US, SystemClock, parse_instant
from core.secrets import Secret
from core.series import Series
from core.settings import Settings
from feed import Feed, open_feed
from feed.trading import LiveServices, ProviderBroker
from pipeline.stages import SignalRecord
from providers.base import ConnectionSpec, Unlimited
from providers.registry import describe, open_provider

START = parse_instant("2024-01-01")
SYMBOLS = {"mt5": "EURUSD", "binance": "BTC/USDT", "kraken": "BTC/USD", "coinbase": "BTC/USD"}
QUANTITIES = {"mt5": 0.01, "binance": 0.001, "kraken": 0.001, "coinbase": 0.001}
LOGIN = {"user": Secret("50000001"), "password": Secret("practice-only"), "server": Secret("Sandbox-Demo")}
KEYS = {"api_key": Secret("sandbox-key-1234"), "secret": Secret("c2FuZGJveHNlY3JldDEy")}
CLOCK = {"server_clock": {"offset_minutes": 120, "dst": "us"}}


@dataclass(frozen=True)
class Wired:
    """The house's services, with a provider of our own making: an unlimited budget."""

    own: LiveServices
    url: str
    platform: str

    @property
    def clock(self):
        """The present."""
        return self.own.clock

    @property
    def orders(self):
        """The home's orders."""
        return self.own.orders

    @property
    def grace_us(self):
        """As set."""
        return self.own.grace_us

    def candles_after(self, series, ts_us, count):
        """Stored candles."""
        return self.own.candles_after(series, ts_us, count)

    @asynccontextmanager
    async def broker(self, connection):
        """Connect to the sandbox."""
        if self.platform.startswith("mt"):
            spec = ConnectionSpec(
                connection, f"mtapi:{self.platform}", f"{self.url}/{self.platform}", LOGIN, CLOCK, 60.0, True, self.own.clock)
        else:
            spec = ConnectionSpec(connection, f"ccxt:{self.platform}", self.url, KEYS, {}, 60.0, True, self.own.clock)
        provider = open_provider(spec, Unlimited())
        try:
            await provider.connect()
            yield ProviderBroker(provider, self.own.feed)
        finally:
            await provider.disconnect()


def record(number, platform):
    """Return the signal on candle `number`; buys and sells by turns, so that a practice account's money lasts a thousand of them."""
    ts = START + number * HOUR_US
    side = "sell" if number % 2 else "buy"
    return SignalRecord("trend", 1, Series.parse("broker", SYMBOLS[platform], "1h"), ts, ts + HOUR_US, side, 1.1, 90.0, 70.0, "", {}, "", 0)


def home(path: str, clock=None) -> Feed:
    """Open the home."""
    return open_feed(Settings(home=Path(path), key_file=Path(path).with_name("keys"), live_trading=True), clock or SystemClock())


async def send(feed: Feed, url: str, platform: str, number: int):
    """Execute one signal."""
    services = Wired(LiveServices(feed), url, platform)
    executor = Execution(Execution.Parameters(quantity=QUANTITIES[platform], mode="live", max_age=1e6))  # the candles are of 2024
    return await executor.execute(record(number, platform), services)


def main() -> None:
    """Serve numbers."""
    path, url, platform = sys.argv[1:]
    if not platform.startswith("mt"):
        describe(f"ccxt:{platform}")  # imports ccxt once, here
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            asyncio.run(send(home(path), url, platform, int(line)))
            os._exit(0)
        print(line.strip(), pid, flush=True)  # noqa: T201  its voice
        _, status = os.waitpid(pid, 0)
        print(line.strip(), "done", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201  its voice


if __name__ == "__main__":
    main()

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
from providers.registry import open_provider

START = parse_instant("2024-01-01")
SERIES = Series.parse("broker", "EURUSD", "1h")
LOGIN = {"user": Secret("50000001"), "password": Secret("practice-only"), "server": Secret("Sandbox-Demo")}
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
        spec = ConnectionSpec(
            connection, f"mtapi:{self.platform}", f"{self.url}/{self.platform}", LOGIN, CLOCK, 60.0, True, self.own.clock)
        provider = open_provider(spec, Unlimited())
        try:
            await provider.connect()
            yield ProviderBroker(provider, self.own.feed)
        finally:
            await provider.disconnect()


def record(number):
    """Return the signal on candle `number`."""
    ts = START + number * HOUR_US
    return SignalRecord("trend", 1, SERIES, ts, ts + HOUR_US, "buy", 1.1, 90.0, 70.0, "", {}, "", 0)


def home(path: str, clock=None) -> Feed:
    """Open the home."""
    return open_feed(Settings(home=Path(path), key_file=Path(path).with_name("keys"), live_trading=True), clock or SystemClock())


async def send(feed: Feed, url: str, platform: str, number: int):
    """Execute one signal."""
    services = Wired(LiveServices(feed), url, platform)
    return await Execution(Execution.Parameters(quantity=0.01, mode="live")).execute(record(number), services)


def main() -> None:
    """Serve numbers."""
    path, url, platform = sys.argv[1:]
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

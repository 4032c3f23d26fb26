"""The demo connections of `candlelake up`: one broker and one exchange, both played by the sandbox."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cli.output import in_candles, note, progress_bar
from cli.witness import witness
from connections.service import ConnectionInput
from core.clock import DAY_US
from core.errors import CandlelakeError
from core.interval import Interval
from core.secrets import Secret
from core.series import Series
from core.timeframe import Timeframe
from feed import Feed
from feed.backfill import backfill
from storage.audit import unwitnessed

HISTORY_DAYS = {"1m": 3, "1h": 60}  # seconds of work, and enough for a first look


@dataclass(frozen=True, slots=True)
class Demo:
    """A demo connection; `path` is where the sandbox plays its provider, below its address."""

    slug: str
    name: str
    provider: str
    path: str
    symbol: str
    credentials: tuple[tuple[str, str], ...] = ()


DEMOS = (
    Demo("demo-mt5", "Practice broker (MetaTrader 5)", "mtapi:mt5", "/mt5", "EURUSD",
         (("user", "1001"), ("password", "practice"), ("server", "Candlelake-Demo"))),
    Demo("demo-exchange", "Practice exchange (Coinbase)", "ccxt:coinbase", "", "BTC/USD"),
)


def prepare_demos(feed: Feed, sandbox_url: str) -> None:
    """Add the demo connections that are not there yet, and point the others at this sandbox.

    A connection of yours that has the name of a demo and another provider is left alone.
    """
    known = {row.slug: row for row in feed.connections.list()}
    for demo in DEMOS:
        row = known.get(demo.slug)
        if row is None:
            feed.connections.create(ConnectionInput(
                slug=demo.slug, name=demo.name, provider=demo.provider, base_url=sandbox_url + demo.path,
                credentials=_credentials(demo), symbols=(demo.symbol,), timeframes=tuple(HISTORY_DAYS), is_admin_owned=True),
                witness=witness("connection.create", demo.slug, feed.clock.now_us(), provider=demo.provider))
        elif row.provider == demo.provider:
            if row.base_url != sandbox_url + demo.path:
                feed.connections.update(
                    demo.slug, witness("connection.update", demo.slug, feed.clock.now_us(), fields="base_url, credentials"),
                    base_url=sandbox_url + demo.path, credentials=_credentials(demo))
            wake = unwitnessed if row.is_active else witness("connection.activate", demo.slug, feed.clock.now_us())
            feed.connections.activate(demo.slug, wake)


def _credentials(demo: Demo) -> dict[str, Secret]:
    return {name: Secret(value) for name, value in demo.credentials}


def rest_demos(feed: Feed) -> None:
    """Switch the demo connections off: their sandbox does not run."""
    for row in feed.connections.list():
        if row.is_active and any((row.slug, row.provider) == (demo.slug, demo.provider) for demo in DEMOS):
            feed.connections.deactivate(row.slug, witness("connection.deactivate", row.slug, feed.clock.now_us()))


def fill_demos(feed: Feed) -> None:
    """Backfill the demo connections, with progress.

    Raises:
        CandlelakeError: a series could not be filled.
    """
    now = feed.clock.now_us()
    ours = {row.slug for row in feed.connections.list() if row.is_admin_owned}
    for demo in DEMOS:
        if demo.slug not in ours:
            continue
        for timeframe, days in HISTORY_DAYS.items():
            series = Series(demo.slug, demo.symbol, Timeframe.parse(timeframe))
            with progress_bar(f"backfill {series}") as progress:
                result = asyncio.run(backfill(feed, series, Interval(now - days * DAY_US, now), progress=in_candles(progress)))
            if result.status == "failed":
                raise CandlelakeError(result.message)
            note(result.message)

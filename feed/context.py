"""The composition root: everything a run needs, opened once and handed down."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from connections.leases import Leases
from connections.service import ConnectionService
from core.calendar import Calendar
from core.clock import Clock, SystemClock, isoformat
from core.settings import Settings, settings
from storage import Lake, open_lake
from storage.calendars import calendar_for
from storage.series import SeriesRow
from storage.vault import KeyRing, Vault


@dataclass(slots=True)
class Feed:
    """The lake, the connections and the leases of one home. Use it as a context manager or call `close`."""

    lake: Lake
    connections: ConnectionService
    leases: Leases
    settings: Settings
    clock: Clock

    def overlap_candles(self, slug: str) -> int:
        """Return how many stored candles each fetch of the connection reads again: its own setting, or the home's."""
        own = self.connections.get(slug).settings.get("overlap_candles")
        return self.settings.overlap_candles if own is None else int(own)

    def settle_seconds(self, slug: str) -> float:
        """Return how long after its close a candle counts as closed: the connection's own setting, or the home's."""
        own = self.connections.get(slug).settings.get("settle_seconds")
        return self.settings.settle_seconds if own is None else float(own)

    def calendar(self, row: SeriesRow, market_type: str) -> Calendar:
        """Return when the market of a series is open: as set or learned for it, or what holds for its type."""
        with self.lake.metadata.read() as tx:
            return calendar_for(tx, row.connection_id, row.series.symbol, market_type)

    def new_run_id(self, what: str) -> str:
        """Return a name for a run, sortable by time."""
        return f"{what}-{isoformat(self.clock.now_us())[:19].replace(':', '')}-{secrets.token_hex(4)}"

    def close(self) -> None:
        """Close the stores."""
        self.lake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_feed(config: Settings | None = None, clock: Clock | None = None) -> Feed:
    """Open the home that the settings name; makes it when it is not there yet."""
    config = config or settings()
    clock = clock or SystemClock()
    lake = open_lake(clock=clock, config=config)
    vault = Vault(lake.metadata, KeyRing.load(config), clock)
    return Feed(lake, ConnectionService(lake, vault, config, clock), Leases(lake.metadata, clock), config, clock)

"""A longer timeframe as witness: where its volume is whole without a silent slot, nothing traded there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from core.candles import check
from core.clock import to_datetime
from core.errors import TransientError
from core.interval import Interval
from core.slots import Slots, grid_slots
from core.timeframe import Grid, Timeframe
from feed.asking import Asker
from feed.planning import page_from, slot_runs
from providers.base import CandlePage, Capabilities
from storage import Lake
from storage.series import SeriesRow

WITNESSES = ("1h", "4h", "1d")  # shortest first: the nearer the ends, the more it proves
ADDS_UP = 1e-6  # relative: sums of floats
MOST_PAGES = 50  # of the longer timeframe in one run; what is left waits for its next try


def longer_timeframe(capabilities: Capabilities, timeframe: Timeframe, names: Sequence[str] = WITNESSES) -> Timeframe | None:
    """Return the first of `names` that the provider has, longer than `timeframe`; None where it keeps not all history."""
    if capabilities.history_candles is not None:
        return None
    lengths = (Timeframe.parse(name) for name in names if name in capabilities.timeframes)
    return next((length for length in lengths if length.length_us > timeframe.length_us), None)


@dataclass(frozen=True, slots=True)
class Witness:
    """Asks the longer timeframe around silent slots of one series."""

    asker: Asker
    lake: Lake
    row: SeriesRow
    grid: Grid
    longer: Grid
    symbol: str

    async def silent(self, slots: Slots) -> list[tuple[Slots, CandlePage]]:
        """Return those of `slots` (ascending) in which, by the longer timeframe, nothing traded, by answer.

        A longer candle whose volume the stored candles inside it make up proves the silence of the rest; so does a longer
        slot without a candle between two with one. No answer proves nothing.
        """
        out = []
        for page in self._pages(slots):
            try:
                answer = await self.asker.page(self.symbol, self.longer.timeframe, page)
            except TransientError:
                break  # what is not proved stays provider_empty and has its next try
            seen = check(answer.candles, self.longer, page, answer.server_us).candles
            quiet = self._quiet(seen, page)
            inside = slots[(slots >= page.start) & (slots < page.end)]
            proved = inside[np.isin([self.longer.floor(int(slot)) for slot in inside], quiet)]
            if len(proved):
                out.append((proved, answer))
        return out

    def _pages(self, slots: Slots) -> list[Interval]:
        """Return the pages that hold the slots with a longer candle on either side of each run."""
        limit = max(3, self.asker.provider.capabilities.page_limit(self.longer.timeframe))
        stop = self.longer.next(self.longer.next(int(slots[-1])))
        pages: list[Interval] = []
        for run in slot_runs(slots, self.grid):
            start, end = self.longer.floor(self.longer.floor(run.start) - 1), self.longer.next(self.longer.ceil(run.end))
            begin: int | None = start
            if pages and start < pages[-1].end:
                begin = None if end <= pages[-1].end else self.longer.floor(pages[-1].end - 1)
            while begin is not None and len(pages) < MOST_PAGES:
                pages.append(page_from(begin, self.longer, limit, max(stop, end)))
                begin = self.longer.floor(pages[-1].end - 1) if pages[-1].end < end else None
        return pages

    def _quiet(self, seen: pl.DataFrame, page: Interval) -> list[int]:
        """Return the longer slots in which the stored candles are all that traded."""
        if seen.height < 2:
            return []
        times = seen["ts"].dt.epoch("us").to_list()
        volumes = dict(zip(times, seen["volume"].to_list(), strict=True))
        key = self.row.series
        stored = self.lake.candles(key.connection, key.symbol, key.timeframe, to_datetime(page.start), to_datetime(page.end))
        sums: dict[int, float] = {}
        for us, volume in zip(stored["ts"].dt.epoch("us").to_list(), stored["volume"].to_list(), strict=True):
            slot = self.longer.floor(us)
            sums[slot] = sums.get(slot, 0.0) + volume
        between = grid_slots(self.longer, Interval(times[0], times[-1] + 1)).tolist()
        empty = [slot for slot in between if slot not in volumes and slot not in sums]
        whole = [slot for slot, volume in volumes.items()
                 if volume > 0 and abs(sums.get(slot, 0.0) - volume) <= ADDS_UP * volume]
        return sorted(empty + whole)

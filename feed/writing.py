"""Collects batches and writes them in one transaction: page by page in a backfill, many series at once in a fetch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime

from core.clock import to_us
from core.errors import StoreCorruptError
from core.interval import Interval
from feed.result import SeriesResult
from storage import Lake
from storage.head import Batch


@dataclass(slots=True)
class Writer:
    """Writes batches to the lake.

    Attributes:
        hold_rows: how many rows may wait; 0 writes each batch as it comes.
        flush_rows: after so many rows the head is flushed to the lake's partitions; 0 leaves that to others.
    """

    lake: Lake
    run_id: str
    hold_rows: int = 0
    flush_rows: int = 0
    _unflushed: int = field(default=0, init=False)
    _booked: set[int] = field(default_factory=set, init=False)  # ids of the series that gaps were booked of
    _results: dict[int, SeriesResult] = field(default_factory=dict, init=False)  # by series id
    _waiting: list[Batch] = field(default_factory=list, init=False)

    def result(self, series_id: int, name: str) -> SeriesResult:
        """Return the result that this writer counts a series' rows into."""
        return self._results.setdefault(series_id, SeriesResult(name))

    def has_booked(self, series_id: int) -> bool:
        """Whether gaps of a series were booked."""
        return series_id in self._booked

    async def add(self, batch: Batch) -> None:
        """Take a batch; it is durable when `flush` has returned, or at once when nothing is held back."""
        self._waiting.append(batch)
        if sum(len(item.candles) for item in self._waiting) >= self.hold_rows:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits in one transaction and count it. A cancelled caller still lets the transaction end.

        A series whose file is damaged is left out, and its result has the error; alone it is raised.
        """
        batches, self._waiting = self._waiting, []
        if not batches:
            return
        try:
            await self._write(batches)
        except StoreCorruptError:
            series = {batch.series_id: None for batch in batches}
            if len(series) == 1:
                raise
            for series_id in series:
                await self._write_apart(series_id, [batch for batch in batches if batch.series_id == series_id])

    async def _write_apart(self, series_id: int, batches: list[Batch]) -> None:
        try:
            await self._write(batches)
        except StoreCorruptError as error:
            self.result(series_id, f"series {series_id}").error = error

    async def _write(self, batches: list[Batch]) -> None:
        written = await asyncio.shield(asyncio.to_thread(self.lake.write, batches, run_id=self.run_id))
        self._booked.update(batch.series_id for batch in batches if batch.gaps)
        for batch, counts in zip(batches, written, strict=True):
            result = self._results.get(batch.series_id)
            if result is not None:
                result.stored += counts.stored
                result.revised += counts.revised
                result.quarantined += counts.quarantined
                if counts.stored or counts.revised:
                    result.changed = _spanned(result.changed, batch)
        self._unflushed += sum(counts.stored for counts in written)
        if 0 < self.flush_rows <= self._unflushed:
            self._unflushed = 0
            await asyncio.to_thread(self.lake.flush, sorted({batch.series_id for batch in batches}))


def _spanned(before: Interval | None, batch: Batch) -> Interval | None:
    """Return the interval grown to the batch's candles; its end is the last open time plus a microsecond."""
    first, last = batch.candles["ts"].min(), batch.candles["ts"].max()
    if not isinstance(first, datetime) or not isinstance(last, datetime):
        return before
    start, end = to_us(first), to_us(last) + 1
    return Interval(start, end) if before is None else Interval(min(before.start, start), max(before.end, end))

"""Deep audit: old ranges are asked for again, a sample of pages at a time; each candle that differs is one revision.

Which pages: the golden ratio's multiples, counted on from day to day, so that every page of a history comes up in the
end, the next one always far from the last, and no state has to be kept. A candle that the provider no longer shows stays
stored; it is counted as vanished and named in the log.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from connections.clocks import history, withheld
from core.candles import CANDLE_SCHEMA, VALUES, Checked, check
from core.clock import DAY_US, SECOND_US, isoformat, to_datetime
from core.errors import CandlelakeError
from core.interval import Interval
from core.slots import Slots
from core.timeframe import Grid
from feed.asking import Asker
from feed.context import Feed
from feed.fetch import ready_connections
from feed.planning import grown, without
from feed.result import Progress, RunResult, SeriesResult, no_progress
from feed.runs import cut_short, end
from feed.series_run import settle_seconds
from feed.writing import Writer
from providers.base import CandlePage, MarketDataProvider, Priority
from storage.head import Batch
from storage.provenance import Request
from storage.series import SeriesRow, list_series

log = logging.getLogger(__name__)

GOLDEN = (math.sqrt(5) - 1) / 2
PAGES = 3  # of each series and run
Difference = dict[str, object]


@dataclass(frozen=True, slots=True)
class AuditScope:
    """What to ask for again.

    Attributes:
        connection: only this one; None is all that are active and not backing off.
        symbol: only this one.
        timeframe: only this one.
        interval: this range in full, in place of a sample of all that is stored.
        pages: how many pages of each series a sample has.
    """

    connection: str | None = None
    symbol: str | None = None
    timeframe: str | None = None
    interval: Interval | None = None
    pages: int = PAGES


@dataclass(frozen=True, slots=True)
class PageCheck:
    """One page of a series asked for again: the answer, checked, and what was stored of it then."""

    row: SeriesRow
    answer: CandlePage
    checked: Checked
    vanished: list[int]  # stored, between two rows of the answer, but not in it
    compared: int

    def batch(self) -> Batch:
        """Return the answer for `Lake.write`."""
        request = Request(self.answer.request_id, self.answer.asked, self.answer.server_us)
        return Batch(self.row.id, self.checked.candles, "rest", request=request)


async def audit(
    feed: Feed, scope: AuditScope, *, run_id: str | None = None, progress: Progress = no_progress,
) -> RunResult:
    """Ask again for stored candles; store what is new, record what has changed as revisions.

    Raises:
        NotFoundError: no such connection.
    """
    run_id = run_id or feed.new_run_id("audit")
    writer = Writer(feed.lake, run_id)
    results: list[SeriesResult] = []
    slugs = _slugs(feed, scope)
    for number, slug in enumerate(slugs, 1):
        results += await _audit_connection(feed, slug, scope, writer)
        progress(number, len(slugs), slug)
    return end(feed, run_id, "audit", results)


async def differences(feed: Feed, scope: AuditScope, *, progress: Progress = no_progress) -> tuple[int, list[Difference]]:
    """Ask again for stored candles and compare; nothing is written.

    Returns:
        How many candles were compared; and a row for each that differs, with `series, ts, what, stored, provider` where
        what is one of changed, vanished, not stored.

    Raises:
        NotFoundError: no such connection. CandlelakeError: why a provider could not be asked.
    """
    compared, out = 0, []
    slugs = _slugs(feed, scope)
    for number, slug in enumerate(slugs, 1):
        async with feed.connections.open_provider(slug, priority=Priority.REPAIR) as provider:
            for row in _series(feed, slug, scope):
                async for page in _pages(feed, provider, row, scope, Asker(provider, feed.settings.retry_wait)):
                    compared += page.compared
                    out += await asyncio.to_thread(_differences, feed, page)
        progress(number, len(slugs), slug)
    return compared, out


def sample(row: SeriesRow, page: int, count: int, day: int) -> list[Interval]:
    """Return the pages of `page` candles, `count` at most, that are due on a day (days since 1970); none reaches beyond the last candle."""
    if row.first_us is None or row.last_us is None:
        return []
    length = page * row.series.timeframe.length_us
    total = (row.last_us - row.first_us) // length + 1
    if total <= count:
        chosen: Sequence[int] = range(total)
    else:
        turns = (row.id * 7919 + day * count + number for number in range(count))
        chosen = sorted({int(turn * GOLDEN % 1 * total) for turn in turns})
    end = row.last_us + row.series.timeframe.length_us
    return [Interval(row.first_us + number * length, min(end, row.first_us + (number + 1) * length)) for number in chosen]


async def _audit_connection(feed: Feed, slug: str, scope: AuditScope, writer: Writer) -> list[SeriesResult]:
    rows = _series(feed, slug, scope)
    results = {row.id: writer.result(row.id, str(row.series)) for row in rows}
    if not rows:
        return []
    try:
        async with (
            feed.leases.hold(f"audit:{slug}", seconds=60),
            feed.connections.open_provider(slug, priority=Priority.REPAIR) as provider,
        ):
            for row in rows:
                await _audit_series(feed, provider, row, scope, writer)
    except CandlelakeError as error:
        return cut_short("audit", slug, results.values(), error)
    return list(results.values())


async def _audit_series(feed: Feed, provider: MarketDataProvider, row: SeriesRow, scope: AuditScope, writer: Writer) -> None:
    result = writer.result(row.id, str(row.series))
    asker = Asker(provider, feed.settings.retry_wait)
    try:
        async for page in _pages(feed, provider, row, scope, asker):
            result.compared += page.compared
            result.vanished += len(page.vanished)
            for ts in page.vanished:
                log.warning("%s %s: stored, but the provider shows it no longer (request %s); it stays stored",
                            row.series, isoformat(ts), page.answer.request_id)
            if len(page.checked.candles):
                await writer.add(page.batch())
    except CandlelakeError as error:
        log.warning("%s: %s", row.series, error)
        result.error = error
    result.requests += asker.requests


async def _pages(
    feed: Feed, provider: MarketDataProvider, row: SeriesRow, scope: AuditScope, asker: Asker,
) -> AsyncIterator[PageCheck]:
    grid = Grid(row.series.timeframe, provider.server_clock)
    with feed.lake.metadata.read() as tx:
        asker.withheld = grown(withheld(history(tx, row.series.connection), grid.server, row.series.symbol), grid)
    limit = max(2, provider.capabilities.page_limit(row.series.timeframe))
    for span in _spans(feed, row, scope, limit):
        for page in _cut(span, limit * row.series.timeframe.length_us):
            stored = without(await asyncio.to_thread(feed.lake.stored_slots, row.id, page), asker.withheld)
            if len(stored) == 0:
                continue
            answer = await asker.page(row.series.symbol, row.series.timeframe, page)
            closed_before = answer.server_us - round(settle_seconds(feed, row) * SECOND_US)
            checked = check(answer.candles, grid, page, closed_before)
            yield _checked(row, answer, checked, stored)


def _checked(row: SeriesRow, answer: CandlePage, checked: Checked, stored: Slots) -> PageCheck:
    shown = checked.candles["ts"].dt.epoch("us").to_numpy()
    if len(shown) == 0:  # an empty or cut answer proves nothing
        return PageCheck(row, answer, checked, [], 0)
    inside = stored[(stored >= shown[0]) & (stored <= shown[-1])]
    refused = checked.rejected["ts"].drop_nulls().dt.epoch("us").to_numpy()
    gone = inside[~np.isin(inside, np.concatenate([shown, refused]))]
    return PageCheck(row, answer, checked, [int(ts) for ts in gone], len(inside) - len(gone))


def _differences(feed: Feed, page: PageCheck) -> list[Difference]:
    series = page.row.series
    span = page.answer.asked
    stored = feed.lake.candles(series.connection, series.symbol, series.timeframe, span.start, span.end)
    by_time = {row["ts"]: row for row in stored.select(list(CANDLE_SCHEMA)).iter_rows(named=True)}
    out: list[Difference] = [
        {"series": str(series), "ts": to_datetime(ts), "what": "vanished", "stored": _values(by_time[to_datetime(ts)]), "provider": None}
        for ts in page.vanished]
    for row in page.checked.candles.iter_rows(named=True):
        known = by_time.get(row["ts"])
        if known is None or _values(known) != _values(row):
            out.append({"series": str(series), "ts": row["ts"], "what": "not stored" if known is None else "changed",
                        "stored": None if known is None else _values(known), "provider": _values(row)})
    return out


def _values(row: dict[str, object]) -> dict[str, object]:
    return {name: row[name] for name in VALUES}


def _spans(feed: Feed, row: SeriesRow, scope: AuditScope, limit: int) -> list[Interval]:
    if scope.interval is None:
        return sample(row, limit, scope.pages, feed.clock.now_us() // DAY_US)
    last_close = (row.last_us or 0) + row.series.timeframe.length_us
    whole = Interval(row.first_us or 0, last_close).intersect(scope.interval)
    return [] if whole is None else [whole]


def _cut(span: Interval, length: int) -> Iterator[Interval]:
    start = span.start
    while start < span.end:
        yield Interval(start, min(span.end, start + length))
        start += length


def _slugs(feed: Feed, scope: AuditScope) -> list[str]:
    return [feed.connections.get(scope.connection).slug] if scope.connection is not None else ready_connections(feed)


def _series(feed: Feed, slug: str, scope: AuditScope) -> list[SeriesRow]:
    with feed.lake.metadata.read() as tx:
        return [row for row in list_series(tx, slug, scope.symbol, scope.timeframe, only_active=True) if row.first_us is not None]

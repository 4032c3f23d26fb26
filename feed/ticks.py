"""Ticks of the past: fetched page by page where the provider has history, stored, and lost ranges healed by them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from core.clock import DAY_US, to_datetime
from core.errors import InputError, TransientError, UnsupportedError
from core.interval import Interval
from core.series import check_symbol
from core.ticks import STORED_TICK_SCHEMA
from feed.context import Feed
from feed.result import Progress, no_progress
from providers.base import MarketDataProvider, Priority, TickPage
from storage.ticks import losses
from storage.ticks.files import parse_path
from storage.ticks.store import TickFlush, TickRetention

ATTEMPTS = 5
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class TickBackfill:
    """What a backfill of ticks did: new ticks, those of the answers that were stored already, requests, healed ranges."""

    run_id: str
    stored: int
    known: int
    requests: int
    healed: int

    @property
    def message(self) -> str:
        """One line."""
        return f"{self.stored} ticks stored, {self.known} known already, {self.requests} requests, {self.healed} lost ranges healed"


async def backfill_ticks(
    feed: Feed, slug: str, symbol: str, interval: Interval, *, run_id: str | None = None, progress: Progress = no_progress,
) -> TickBackfill:
    """Store every tick of `symbol` in `interval` that the provider still has; each page is durable before the next.

    Raises:
        NotFoundError: no such connection. UnsupportedError: the provider has no history of ticks.
        UnknownSymbolError, TransientError: as the provider's; what was stored stays, and its range is healed.
    """
    run_id = run_id or feed.new_run_id("backfill-ticks")
    check_symbol(symbol)
    stored = known = requests = healed = 0
    async with (
        feed.leases.hold(f"backfill-ticks:{slug} {symbol}", seconds=60),
        feed.connections.open_provider(slug, priority=Priority.BACKFILL) as provider,
    ):
        if not provider.capabilities.has_tick_history:
            raise UnsupportedError(f"{provider.capabilities.provider} has no history of ticks; stream them: candlelake stream {slug}")
        cursor = interval.start
        while cursor < interval.end:
            page = await _page(feed, provider, symbol, Interval(cursor, interval.end))
            requests += 1
            if page.asked.end <= cursor:
                raise UnsupportedError(f"{slug} {symbol}: the answer does not lead past {to_datetime(cursor)}; too many ticks at one instant")
            new = await asyncio.to_thread(_store, feed, slug, symbol, page.ticks, run_id)
            stored, known = stored + new, known + page.ticks.height - new
            healed += await asyncio.to_thread(_heal, feed, slug, symbol, page.asked)
            cursor = page.asked.end
            progress(min(cursor, interval.end) - interval.start, interval.end - interval.start, f"{slug} {symbol}")
    return TickBackfill(run_id, stored, known, requests, healed)


async def _page(feed: Feed, provider: MarketDataProvider, symbol: str, interval: Interval) -> TickPage:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await provider.fetch_ticks(symbol, interval)
        except TransientError as error:
            backoff = feed.settings.retry_wait * 2.0 ** (attempt - 1) * random.uniform(0.5, 1.5)  # noqa: S311  jitter
            wait = max(backoff, error.retry_after or 0.0)
            if attempt == ATTEMPTS or wait > LONGEST_WAIT:
                raise
        await asyncio.sleep(wait)
    raise AssertionError("unreachable")


def _store(feed: Feed, slug: str, symbol: str, ticks: pl.DataFrame, run_id: str) -> int:
    if ticks.is_empty():
        return 0
    frame = ticks.with_columns(
        received_at=pl.lit(to_datetime(feed.clock.now_us())), source=pl.lit("backfill"), run_id=pl.lit(run_id)).cast(STORED_TICK_SCHEMA)
    return feed.lake.tick_store.write(slug, symbol, frame)


def _heal(feed: Feed, slug: str, symbol: str, interval: Interval) -> int:
    now = feed.clock.now_us()
    with feed.lake.metadata.write() as tx:
        return losses.heal(tx, losses.ensure_tick_series(tx, slug, symbol, now), interval, now)


def flush_ticks(feed: Feed) -> TickFlush:
    """Move what ended journals hold into day files, and join the files of days that are over."""
    store = feed.lake.tick_store
    result = store.flush()
    store.compact(feed.clock.now_us() // DAY_US * DAY_US)
    return result


def tick_retentions(feed: Feed) -> dict[str, int]:
    """Return the days for which ticks are kept, by connection: its own setting, or the home's; without one they stay for ever."""
    out = {}
    for row in feed.connections.list():
        days = row.settings.get("tick_retention_days") or feed.settings.tick_retention_days
        if days is not None and int(days) < 1:
            raise InputError("tick_retention_days", days, "1 or more", "0 would remove everything")
        if days is not None:
            out[row.slug] = int(days)
    return out


def plan_tick_cleanup(feed: Feed) -> list[TickRetention]:
    """Return what lies beyond each connection's retention of ticks; changes nothing."""
    now = feed.clock.now_us()
    plans = [feed.lake.tick_store.plan_retention(max(0, now - days * DAY_US), slug) for slug, days in tick_retentions(feed).items()]
    return [plan for plan in plans if plan.files]


def apply_tick_cleanup(feed: Feed, plans: Sequence[TickRetention]) -> int:
    """Remove what the plans name and return how many ticks went; the files lie in .old/ for its grace."""
    return sum(feed.lake.tick_store.apply_retention(plan) for plan in plans)


def tick_counts(plans: Sequence[TickRetention]) -> dict[str, int]:
    """Return how many ticks the plans name, by connection and symbol."""
    out: dict[str, int] = {}
    for item in (item for plan in plans for item in plan.files):
        slug, symbol, _ = parse_path(item.path)
        out[f"{slug} {symbol}"] = out.get(f"{slug} {symbol}", 0) + item.rows
    return out

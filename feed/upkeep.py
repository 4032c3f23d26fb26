"""Upkeep of the lake: flush, cleanup by retention (plan, then apply), verify, health."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connections.health import HealthRow
from connections.health import check_health as _check_health
from core.clock import DAY_US
from core.errors import InputError
from feed.context import Feed
from feed.result import Progress, no_progress
from feed.ticks import flush_ticks
from storage.lake.damage import Damage
from storage.lake.flush import FlushResult
from storage.lake.retention import Refusal, RetentionItem, RetentionPlan, RetentionResult
from storage.lake.verify import VerifyReport

LONGEST_DAYS = 36_500


def flush(feed: Feed, progress: Progress = no_progress) -> FlushResult:
    """Move the head's candles into the lake's partitions and ended journals' ticks into day files, sweep leftovers, write the catalog anew.

    Raises:
        StoreCorruptError: what lies in altered files was left as it is; all else was done.
    """
    result, damage = FlushResult(0, 0), Damage()
    with damage.apart():
        result = feed.lake.flush(progress=progress)
    with damage.apart():
        flush_ticks(feed)
    feed.lake.sweep()
    with damage.apart():
        feed.lake.write_catalog()
    damage.tell()
    return result


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """What cleanup would remove: one part for each retention in force, in days, by connection slug."""

    retention_days: Mapping[str, int]
    parts: tuple[RetentionPlan, ...]

    @property
    def items(self) -> list[RetentionItem]:
        """What each series loses."""
        return [item for part in self.parts for item in part.items]

    @property
    def refused(self) -> list[Refusal]:
        """What stays because other series are made of it, each with the reason."""
        return [item for part in self.parts for item in part.refused]

    @property
    def rows(self) -> int:
        """How many candles would go."""
        return sum(part.rows for part in self.parts)


def retentions(feed: Feed, retention_days: int | None = None, connection: str | None = None) -> dict[str, int]:
    """Return the retention in days of each connection that has one: as asked, its own, or the home's.

    Raises:
        InputError: less than a day. NotFoundError: no such connection.
    """
    if retention_days is not None and not 1 <= retention_days <= LONGEST_DAYS:
        raise InputError("--retention-days", retention_days, f"1 to {LONGEST_DAYS}", "0 would remove everything")
    rows = feed.connections.list() if connection is None else [feed.connections.get(connection)]
    chosen = {row.slug: retention_days or row.settings.get("retention_days") or feed.settings.retention_days for row in rows}
    return {slug: days for slug, days in chosen.items() if days is not None}


def plan_cleanup(feed: Feed, retention_days: int | None = None, connection: str | None = None, *,
                 timeframe: str | None = None, is_forced: bool = False) -> CleanupPlan:
    """Return what is older than the retention; changes nothing. Connections without a retention keep everything.

    A series that is the only source of another one is refused, unless forced.

    Raises:
        InputError: less than a day. NotFoundError: no such connection.
    """
    days = retentions(feed, retention_days, connection)
    now = feed.clock.now_us()
    parts = [feed.lake.plan_retention(max(0, now - count * DAY_US), slug, timeframe=timeframe, is_forced=is_forced)
             for slug, count in days.items()]
    return CleanupPlan(days, tuple(part for part in parts if part.items or part.refused))


def apply_cleanup(feed: Feed, plan: CleanupPlan) -> RetentionResult:
    """Remove what `plan` lists; what is gone already counts as done."""
    done, damage = [], Damage()
    for part in plan.parts:
        with damage.apart():
            done.append(feed.lake.apply_retention(part))
    if plan.parts:
        with damage.apart():
            feed.lake.write_catalog()
    damage.tell()
    return RetentionResult(sum(part.rows for part in done), sum(part.files for part in done))


def verify(feed: Feed, progress: Progress = no_progress) -> VerifyReport:
    """Check every file of the lake against the manifest."""
    return feed.lake.verify(progress=progress)


def check_health(feed: Feed) -> list[HealthRow]:
    """Judge every connection, mark stale and failing ones, notify."""
    return _check_health(feed.lake, feed.clock.now_us())

"""Upkeep of the lake: flush, cleanup by retention (plan, then apply), verify, health."""

from __future__ import annotations

from dataclasses import dataclass

from connections.health import HealthRow
from connections.health import check_health as _check_health
from core.clock import DAY_US
from core.errors import InputError
from feed.context import Feed
from feed.result import Progress, no_progress
from storage.lake.flush import FlushResult
from storage.lake.retention import RetentionPlan, RetentionResult
from storage.lake.verify import VerifyReport


def flush(feed: Feed, progress: Progress = no_progress) -> FlushResult:
    """Move the head's candles into the lake's partitions, sweep leftovers, write the catalog anew."""
    result = feed.lake.flush(progress=progress)
    feed.lake.sweep()
    feed.lake.write_catalog()
    return result


@dataclass(frozen=True, slots=True)
class CleanupPlan:
    """What cleanup would remove. `retention_days` is what it was asked with."""

    retention_days: int
    plan: RetentionPlan


def plan_cleanup(feed: Feed, retention_days: int | None = None, connection: str | None = None) -> CleanupPlan:
    """Return what is older than the retention; changes nothing.

    Raises:
        InputError: no retention given and none set, or less than a day.
    """
    days = retention_days if retention_days is not None else feed.settings.retention_days
    if days is None or days < 1:
        raise InputError("retention days", days, "1 or more", "give --retention-days or set CANDLELAKE_RETENTION_DAYS")
    before = feed.clock.now_us() - days * DAY_US
    return CleanupPlan(days, feed.lake.plan_retention(max(0, before), connection))


def apply_cleanup(feed: Feed, plan: CleanupPlan) -> RetentionResult:
    """Remove what `plan` lists; what is gone already counts as done."""
    result = feed.lake.apply_retention(plan.plan)
    feed.lake.write_catalog()
    return result


def verify(feed: Feed, progress: Progress = no_progress) -> VerifyReport:
    """Check every file of the lake against the manifest."""
    return feed.lake.verify(progress=progress)


def check_health(feed: Feed) -> list[HealthRow]:
    """Judge every connection, mark stale and failing ones, notify."""
    return _check_health(feed.lake, feed.clock.now_us())

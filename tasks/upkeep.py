"""Tasks around the lake's upkeep: flush, cleanup by retention (plan, then apply), verify, health."""

from __future__ import annotations

import asyncio

from prefect import task

from connections.health import HealthRow
from feed import open_feed, upkeep
from feed.notices import Sent, send_notices
from feed.upkeep import CleanupPlan
from storage.lake.flush import FlushResult
from storage.lake.retention import RetentionResult
from storage.lake.verify import VerifyReport
from tasks.artifacts import cleanup_rows, health_rows, problem_rows, publish_table
from tasks.policies import POLICY
from tasks.progress import run_logger, shown_progress

FAILING = frozenset({"failing", "error"})


@task(name="flush head", **POLICY)
async def flush_head() -> FlushResult:
    """Move the head's candles into the lake's partitions; killed midway, the next one finishes."""
    with open_feed() as feed:
        async with shown_progress("flush-progress", "Flush of the head into the lake", "partitions") as meter:
            result = await asyncio.to_thread(upkeep.flush, feed, meter)
    run_logger().info("%d rows flushed into %d partitions", result.rows, result.partitions)
    return result


@task(name="plan cleanup", **POLICY)
async def plan_cleanup(retention_days: int | None = None, connection: str | None = None) -> CleanupPlan | None:
    """Return what is older than the retention, None when none is set; changes nothing, publishes the plan."""
    with open_feed() as feed:
        plan = await asyncio.to_thread(upkeep.plan_cleanup, feed, retention_days, connection)
    if retention_days is None and not plan.retention_days:
        run_logger().info("no retention is set (CANDLELAKE_RETENTION_DAYS): every candle is kept")
        return None
    text = f"Older than the retention: {plan.rows} candles of {len(plan.items)} series"
    run_logger().info(text)
    for item in plan.refused:
        run_logger().warning("refused: %s", item.reason)
    await publish_table(cleanup_rows(plan), "cleanup-plan", text)
    return plan


@task(name="apply cleanup", **POLICY)
async def apply_cleanup(plan: CleanupPlan) -> RetentionResult:
    """Remove what the plan lists; what is gone already counts as done."""
    with open_feed() as feed:
        result = await asyncio.to_thread(upkeep.apply_cleanup, feed, plan)
    run_logger().info("%d candles removed, %d files moved to .old/", result.rows, result.files)
    return result


@task(name="verify files", **POLICY)
async def verify_files() -> VerifyReport:
    """Check every file of the lake against the manifest; publishes what is wrong."""
    with open_feed() as feed:
        async with shown_progress("verify-progress", "Check of the lake's files", "files") as meter:
            report = await asyncio.to_thread(upkeep.verify, feed, meter)
    for problem in report.problems:
        run_logger().error("%s: %s; %s", problem.path, problem.what, problem.fix)
    if report.problems:
        await publish_table(problem_rows(report), "verify-problems", verify_line(report))
    return report


@task(name="check health", **POLICY)
async def check_health() -> list[HealthRow]:
    """Judge every connection, mark stale and failing ones, notify their owners; publishes the table."""
    with open_feed() as feed:
        rows = await asyncio.to_thread(upkeep.check_health, feed)
    log = run_logger()
    for row in rows:
        if row.status != "ok":
            log.warning("%s is %s: %s", row.slug, row.status, row.reason)
    await publish_table(health_rows(rows), "health", health_line(rows))
    return rows


@task(name="send notifications", **POLICY)
async def send_notifications() -> Sent:
    """Send what is to be told by e-mail and webhook; a channel that fails is a finding and tried again later."""
    with open_feed() as feed:
        sent = await send_notices(feed)
    for error in sent.errors:
        run_logger().warning("not sent: %s", error)
    return sent


def verify_line(report: VerifyReport) -> str:
    """Return one line: how much was checked, or the first thing that is wrong and how many more there are."""
    if not report.problems:
        return f"{report.files} files with {report.rows} rows are as they were written"
    first = report.problems[0]
    more = f"; {len(report.problems) - 1} more in the artifact verify-problems" if len(report.problems) > 1 else ""
    return f"{first.path}: {first.what}; {first.fix}{more}"


def health_line(rows: list[HealthRow]) -> str:
    """Return one line that counts the connections by status, the worrying ones named."""
    ill = [f"{row.slug} {row.status}" for row in rows if row.status not in {"ok", "inactive"}]
    fine = sum(row.status == "ok" for row in rows)
    return f"{fine} of {len(rows)} connections ok" + (f"; {', '.join(ill)}" if ill else "")

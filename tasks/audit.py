"""Task around the deep audit: a sample of old pages is asked for again."""

from __future__ import annotations

from prefect import task

from feed import RunResult, open_feed
from feed.audit import PAGES, AuditScope, audit
from tasks.artifacts import publish_summary
from tasks.policies import POLICY
from tasks.progress import shown_progress
from tasks.revisions import emit_revisions


@task(name="audit pages", **POLICY)
async def audit_pages(connection: str | None, run_id: str, pages: int = PAGES) -> RunResult:
    """Ask again for a sample of old pages of each series; what differs becomes revisions, each an event."""
    with open_feed() as feed:
        async with shown_progress("audit-progress", "Audit of stored candles", "connections") as meter:
            result = await audit(feed, AuditScope(connection, pages=pages), run_id=run_id, progress=meter)
        emit_revisions(feed, result)
        await publish_summary(result, "audit")
    return result

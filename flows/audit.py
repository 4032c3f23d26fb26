"""Audit: ask providers again for a sample of old candles; what they have changed becomes revisions.

A flow of its own because the minutely fetch re-reads only the newest candles, and providers correct older ones too. Which
pages come up changes from day to day, until all have been seen. A connection that another audit holds is skipped.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.audit import audit_pages
from tasks.outcome import state_of


class AuditConfig(BaseModel):
    """What to audit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str | None = Field(None, title="Connection", max_length=63, description="Slug of one connection; all active ones when empty.")
    pages: int = Field(3, ge=1, le=10000, title="Pages", description="How many old pages of each series are asked for again.")


SAMPLE = AuditConfig()


@flow(name="audit", validate_parameters=True)
async def audit(config: AuditConfig = SAMPLE) -> State[dict[str, Any]]:
    """Ask again for a sample of old candles, and record what providers have changed.

    Args:
        config: what to audit.
    """
    return state_of(await audit_pages(config.connection, f"audit-{runtime.flow_run.id}", config.pages))


if __name__ == "__main__":
    asyncio.run(audit())

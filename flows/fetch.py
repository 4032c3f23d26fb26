"""Fetch the newest candles of every series that is due.

One flow for all connections of this shard, because starting a flow run costs seconds and the server records some
20 task runs a second: one run a minute, one task for a batch of up to 100 series, plain asyncio inside. Runs that
overlap do no harm: a lease per connection lets one of them work, the other ends as Skipped. A connection that fails
backs off and fails this run with one line; all others are stored.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

import asyncio
from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from pydantic import BaseModel, ConfigDict, Field

from tasks.candles import conclude_fetch, fetch_batch, plan_fetch
from tasks.outcome import state_of


class FetchConfig(BaseModel):
    """What to fetch; all that is due when nothing is named."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str | None = Field(None, title="Connection", max_length=63, description="Slug of one connection; all active ones when empty.")
    symbol: str | None = Field(None, title="Symbol", max_length=100, description="One symbol in the provider's spelling; all when empty.")
    timeframe: str | None = Field(None, title="Timeframe", max_length=8, description="One timeframe, e.g. 1m; all when empty.")
    due_only: bool = Field(True, title="Only what is due", description="Leave out series whose next candle has not closed yet.")


ALL_DUE = FetchConfig()


@flow(name="fetch", validate_parameters=True)
async def fetch(config: FetchConfig = ALL_DUE) -> State[dict[str, Any]]:
    """Fetch the newest candles of every series that is due.

    Args:
        config: what to fetch.
    """
    run_id = f"fetch-{runtime.flow_run.id}"
    batches = await plan_fetch(config.connection, config.symbol, config.timeframe, due_only=config.due_only)
    parts = await asyncio.gather(*(
        fetch_batch(batch, run_id, config.symbol, config.timeframe, due_only=config.due_only) for batch in batches))
    return state_of(await conclude_fetch(run_id, parts))


if __name__ == "__main__":
    asyncio.run(fetch())

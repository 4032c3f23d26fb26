"""Flush: move the head's candles into the lake's Parquet partitions.

One flow for all series because the lake rewrites each touched partition once per flush, whoever filled it. Killed
midway, the next run finishes: readers see each candle once all the time.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE); no parameters, no blocks.
"""

from __future__ import annotations

import asyncio

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.upkeep import flush_head


@flow(name="flush", validate_parameters=True)
async def flush() -> State[dict[str, int]]:
    """Move the head's candles into the lake's partitions."""
    done = await flush_head()
    return Completed(
        message=f"{done.rows} candles flushed into {done.partitions} partitions",
        data={"rows": done.rows, "partitions": done.partitions})


if __name__ == "__main__":
    asyncio.run(flush())

"""Stream: ticks and candles as they happen, from websockets, until the run is told to end.

One long run for all connections whose setting `stream` is on, or for one that is named: sockets cost little, processes
much. The schedule starts it again after it has died; a lease per connection keeps a second run from doing the same, and
the minutely fetch goes on beside it, so that a stream only ever makes data early.

Requires: CANDLELAKE_HOME (or CANDLELAKE_METADATA_URL and CANDLELAKE_LAKE), the credential keys; no blocks.
"""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import BaseModel, ConfigDict, Field

from tasks.ticks import stream_connections


class StreamConfig(BaseModel):
    """What to stream."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    connection: str | None = Field(
        None, title="Connection", max_length=63, description="Slug of one connection; all whose setting `stream` is on when empty.")
    keep_ticks: bool = Field(
        True, title="Keep ticks", description="Store ticks and build candles from them; else take the venue's own candles.")


MARKED = StreamConfig()


@flow(name="stream", validate_parameters=True)
async def stream(config: StreamConfig = MARKED) -> State[dict[str, Any]]:
    """Stream until this run is told to end.

    Args:
        config: what to stream.
    """
    done, failed = await stream_connections(config.connection, f"stream-{runtime.flow_run.id}", keep_ticks=config.keep_ticks)
    if failed:
        return Failed(message=f"{len(failed)} streams failed: {failed[0]}")
    if not done:
        return Completed(name="Skipped", message="nothing to stream, or another run does it; set a connection's setting stream", data={})
    text = f"{len(done)} streams ended: {sum(end.ticks for end in done)} ticks, {sum(end.candles for end in done)} candles"
    return Completed(message=text, data={"ticks": sum(end.ticks for end in done), "losses": sum(end.losses for end in done)})

"""How each stream fares: one row for each connection, written by its run every few seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from core.clock import SECOND_US, isoformat
from storage.metadata.tables import connections
from storage.metadata.tables_ticks import stream_states

COUNTED = ("ticks", "candles", "contradicted", "reconnects", "losses")
MEASURED = ("ticks_per_second_last_minute", "clock_skew_seconds", "receipt_to_subscriber_p99_ms", "receipt_to_disk_p99_ms")
ALIVE = ("connecting", "live", "closed", "waiting")  # states of a run that has not ended by itself
MOST_NAMED = 3  # silent symbols in one line
SILENT_US = 60 * SECOND_US  # a run that is alive says so every few seconds


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of one connection's stream.

    Attributes:
        state: connecting | live | closed (the market is) | waiting (backing off) | stopped | failed.
        heartbeat_us: when its run last said so; one that is alive by its state and old here was killed.
        lag_seconds: from the newest tick's event to its receipt; a venue's clock that is off by more than a second is allowed for.
        ticks_per_second: since the run began.
        counts: ticks, repeats, late, candles, agreed, contradicted, reconnects, losses, and milliseconds p50 and p99
            from receipt to disk from receipt to subscribers, and from event to disk; `ticks_per_second_last_minute`;
            `clock_skew_seconds`, by how much the venue's clock is ahead; `histograms` of the run, cumulative, by metric; `silent`: since when,
            by symbol, one says nothing while others tick and its market trades.
    """

    connection: str
    run_id: str
    state: str
    message: str | None
    started_at_us: int
    heartbeat_us: int
    last_tick_us: int | None = None
    lag_seconds: float | None = None
    ticks_per_second: float | None = None
    counts: Mapping[str, Any] = field(default_factory=dict)

    def at(self, now_us: int) -> str:
        """Return the state as it must be taken at `now_us`: `killed` where a run that never ended is silent."""
        return "killed" if self.state in ALIVE and now_us - self.heartbeat_us > SILENT_US else self.state

    def as_dict(self, now_us: int) -> dict[str, Any]:
        """Return what an operator wants to know as JSON-ready values; instants as ISO 8601 with Z."""
        return {
            "state": self.at(now_us), "heartbeat": isoformat(self.heartbeat_us),
            "last_tick": None if self.last_tick_us is None else isoformat(self.last_tick_us),
            "lag_seconds": self.lag_seconds, "ticks_per_second": self.ticks_per_second,
            **{name: int(self.counts.get(name, 0)) for name in COUNTED},
            "silent": len(self.counts.get("silent", ())), **{name: self.counts.get(name) for name in MEASURED},
        }

    def line(self, now_us: int) -> str:
        """Return it as one line: `live: 12.5 ticks/s in the last minute, 9.1 since it began, 0.21 s from event to receipt`."""
        state = self.at(now_us)
        if state not in ALIVE or self.ticks_per_second is None:
            return state
        lag = "" if self.lag_seconds is None else f", {self.lag_seconds:.2f} s from event to receipt"
        silent = sorted(self.counts.get("silent", ()))
        dead = f"; {len(silent)} silent: {', '.join(silent[:MOST_NAMED])}" if silent else ""
        recent = self.counts.get("ticks_per_second_last_minute")
        pace = f"{self.ticks_per_second:.1f} ticks/s" if recent is None else \
            f"{recent:.1f} ticks/s in the last minute, {self.ticks_per_second:.1f} since it began"
        return f"{state}: {pace}{lag}{dead}"


def write_state(tx: Connection, connection_id: int, state: StreamState) -> None:
    """Put a stream's state in place of its last one."""
    values = {"run_id": state.run_id, "state": state.state, "message": state.message, "started_at_us": state.started_at_us,
              "heartbeat_us": state.heartbeat_us, "last_tick_us": state.last_tick_us, "lag_seconds": state.lag_seconds,
              "ticks_per_second": state.ticks_per_second, "counts": dict(state.counts)}
    changed = tx.execute(stream_states.update().where(stream_states.c.connection_id == connection_id).values(values))
    if changed.rowcount == 0:
        tx.execute(stream_states.insert().values(connection_id=connection_id, **values))


def read_states(tx: Connection, slug: str | None = None) -> list[StreamState]:
    """Return the states of all streams that ever ran, of one connection when `slug` is given."""
    query = select(connections.c.slug, stream_states).join_from(stream_states, connections).order_by(connections.c.slug)
    if slug is not None:
        query = query.where(connections.c.slug == slug)
    return [StreamState(row["slug"], row["run_id"], row["state"], row["message"], row["started_at_us"], row["heartbeat_us"],
                        row["last_tick_us"], row["lag_seconds"], row["ticks_per_second"], row["counts"])
            for row in tx.execute(query).mappings()]

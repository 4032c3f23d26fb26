"""How a stream's run fares, as the row that health, pages and metrics read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from core.clock import SECOND_US, isoformat
from feed.stream_metrics import histograms, quantiles
from storage.ticks.states import StreamState

if TYPE_CHECKING:
    from feed.stream_run import StreamRun

_COUNTS: Final = ("ticks", "repeats", "late", "candles", "agreed", "contradicted", "reconnects", "losses")


def state_of(run: StreamRun) -> StreamState:
    """Return the state of a run now: what it did since it began, its pace, its delays, who is silent."""
    now, last, result = run.feed.clock.now_us(), run.last_tick, run.result()
    counts: dict[str, object] = {name: getattr(result, name) for name in _COUNTS}
    counts |= run.keeper.quantiles() | quantiles("receipt_to_subscriber", run.delays.samples) | {"histograms": histograms(run.slug)}
    pace = run.pace.mark(now, run.seen)
    counts |= {"ticks_per_second_last_minute": None if pace is None else round(pace, 3),
               "clock_skew_seconds": round(run.candles.skew_us / SECOND_US, 3),
               "silent": {str(channel): isoformat(since) for channel, since in run.watch.dead(now).items()} if run.state == "live" else {}}
    ran = max(1, now - run.started_us) / SECOND_US
    lag = None if last is None else (last.received_us + run.keeper.ahead_us - last.ts_us) / SECOND_US
    return StreamState(run.slug, run.run_id, run.state, run.message or None, run.started_us, now,
                       None if last is None else last.ts_us, lag, round(run.seen / ran, 3), counts)

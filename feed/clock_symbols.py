"""Proves a broker's clock for symbols of its own kind: metals and indices may have been recorded by another clock than the pairs."""

from __future__ import annotations

import asyncio

from connections.clocks import history, note_clock, unproved
from connections.rows import read_connection
from core.clock import DAY_US, MINUTE_US, isoformat
from core.clock_days import Judgement, judge_days
from core.clock_fit import LEAST_READINGS, contradictions, fit, lag_readings
from core.errors import PermanentError
from core.interval import Interval, merge
from core.series import Series
from core.server_clock import ServerClock
from feed.clock_watch import AROUND_US, HOUR, MAJORS, hours_of, on_utc, on_wall, plain_name, reference_of
from feed.context import Feed
from providers.base import MarketDataProvider


async def prove_symbol(feed: Feed, provider: MarketDataProvider, series: Series, interval: Interval) -> None:
    """Hold a symbol's own hours against a stored reference on UTC; what moves beside it is withheld for this symbol.

    Major pairs are what the server's clock itself is read off. Without a reference a symbol's clock is the server's.

    Raises:
        TransientError: the hours could not be read.
    """
    clock, capabilities = provider.server_clock, provider.capabilities
    if clock is None or capabilities.market_type != "fx" or plain_name(series.symbol) in MAJORS or HOUR.name not in capabilities.timeframes:
        return
    with feed.lake.metadata.read() as tx:
        left = unproved(history(tx, series.connection), clock, interval, series.symbol)
    if not left:
        return
    wide = Interval(max(0, left[0].start - AROUND_US), min(feed.clock.now_us(), left[-1].end + AROUND_US))
    reference, candles = reference_of(feed, series.connection, series.symbol, wide) if not wide.is_empty else (None, None)
    if reference is None or candles is None:
        return
    try:
        frame = await hours_of(feed, provider, series.symbol, wide)
    except PermanentError:  # no hours of this symbol: no evidence either way, and its own timeframe says what is wrong
        return
    hours = await asyncio.to_thread(on_wall, clock, frame)
    against = candles["ts"].dt.epoch("us").to_numpy(), candles["close"].to_numpy()
    readings = lag_readings(hours.times, hours.close, *against)
    # Its ticks are no witness here: an index opens by its own country's summer time, which its weeks beside it do not share.
    judgement = judge_days(clock, [on_utc(clock, hours)._replace(volume=None)], against) if len(hours.times) else Judgement()
    found = [doubt.as_evidence() for doubt in judgement.doubts]
    best = fit(readings)
    if best is not None and len(contradictions(clock, readings)) >= LEAST_READINGS:
        found += _differing(clock, best.clock, wide)
    with feed.lake.metadata.write() as tx:
        note_clock(tx, read_connection(tx, series.connection), "confirmed", clock, None, feed.clock.now_us(), {
            "of": series.symbol, "from_us": left[0].start, "to_us": left[-1].end, "weeks": len(readings), "reference": reference,
            **({"withheld": found} if found else {})})


def _differing(clock: ServerClock, other: ServerClock, interval: Interval) -> list[dict[str, object]]:
    """Return the days on which two clocks differ, a day wider on either side."""
    days = range(interval.start, interval.end, DAY_US)
    parts = merge(Interval(us - DAY_US, us + 2 * DAY_US) for us in days if clock.offset_us(us) != other.offset_us(us))
    return [{"from_us": part.start, "to_us": part.end, "from": isoformat(part.start), "to": isoformat(part.end),
             "shown_minutes": other.offset_us((part.start + part.end) // 2) // MINUTE_US,
             "ruled_minutes": clock.offset_us((part.start + part.end) // 2) // MINUTE_US} for part in parts]

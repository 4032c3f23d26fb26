"""Hours of stream at high speed, with a fault every second: `CANDLELAKE_TEST_STREAM_HOURS=24` replays a day of each venue.

`CANDLELAKE_TEST_STREAM_SPEED` is how many times faster than life; at 240 a day takes six minutes and meets some 300 faults.
"""

import asyncio
import logging
import os
import random

import pytest

from core.clock import DAY_US, HOUR_US, MINUTE_US, to_us
from core.interval import Interval
from feed.fetch import fetch
from feed.stream import StreamOptions, Subscribers, stream
from tests.feed.streaming import VENUES, home, outside, stored_keys, until, values

SPEED = float(os.environ.get("CANDLELAKE_TEST_STREAM_SPEED", "720"))
HOURS = int(os.environ.get("CANDLELAKE_TEST_STREAM_HOURS", "3"))
SEED = int(os.environ.get("CANDLELAKE_TEST_STREAM_SEED", "11"))
SOCKET_FAULTS = ["ws_drop", "ws_close", "ws_stall", "ws_lose", "ws_repeat", "ws_reorder", "ws_garbage", "ws_huge", "ws_refuse", "ws_late"]
REST_FAULTS = ["status", "drop", "clock_skew"]
CANDLES = {"binance": "/api.binance.com/*klines*", "kraken": "/api.kraken.com/*OHLC", "coinbase": "/api.coinbase.com/*candles",
           "mt5": "/mt5/PriceHistory*"}
TIME = {"binance": "/api.binance.com/*time*", "kraken": "/api.kraken.com/*Time", "coinbase": "/api.coinbase.com/*time", "mt5": "/mt5/GetQuote*"}
SPEEDS = {"mt5": SPEED / 3}  # an hour must hold a fault or two
PACE = {"kraken": 4.0, "mt5": 10.0}  # what one request a second, and a login of ten, take: REST and the stream must be heard now and then
SKEWS = [-40.0, -5.0, 5.0, 40.0]  # seconds by which the venue's clock, as REST tells it, is wrong for a while
# By this clock a second of ours is 24 minutes: what takes milliseconds in life takes half a minute here.
OPTIONS = StreamOptions(lateness_seconds=60, grace_seconds=900, allowance_seconds=240, commit_seconds=0.1, confirm_seconds=0.2,
                        backoff_seconds=0.05, beat_seconds=0.5)


async def vandal(box, venue, dice, until_us):
    """Break something every second or so until an instant; return how often something broke."""
    faults = []
    while box.clock.now_us() < until_us:
        await asyncio.sleep(dice.uniform(0.3, 1.7) * PACE.get(venue, 1.0))
        kind = dice.choice([*SOCKET_FAULTS, *REST_FAULTS])
        if kind == "clock_skew":
            faults.append(box.faults.add(kind, TIME[venue], seconds=dice.choice(SKEWS), count=1))
        elif kind in REST_FAULTS:
            faults.append(box.faults.add(kind, CANDLES[venue], count=1))
        else:
            count = dice.choice([1, 2, 20]) if kind == "ws_lose" else 1
            faults.append(box.faults.add(kind, VENUES[venue][-1], count=count, seconds=dice.uniform(1, 90)))
    box.faults.clear()
    return sum(fault.hits > 0 for fault in faults)


@pytest.mark.slow
@pytest.mark.timeout(300 + HOURS * 3600 / SPEED * 9)
@pytest.mark.parametrize("venue", ["binance", "kraken", "coinbase", "mt5"])
async def test_a_replay_with_a_fault_every_second_ends_with_the_sources_candles(tmp_path, venue, record_property):
    """Stored candles equal the source's exactly, and each tick that is not stored lies in a range booked as lost."""
    with home(tmp_path, venue, speed=SPEEDS.get(venue, SPEED)) as place:
        stop, heard, born = asyncio.Event(), [], place.box.clock.now_us()
        run = asyncio.create_task(stream(place.feed, "s", stop=stop, options=OPTIONS, subscribers=Subscribers(heard.extend)))
        await until(lambda: run.done() or (heard and len(place.feed.lake.stored_slots(1, _span(born))) > 0), 120)
        begun = place.box.clock.now_us()  # on a busy machine hours have gone by
        first = begun // HOUR_US * HOUR_US + HOUR_US
        faults = await vandal(place.box, venue, random.Random(f"{venue} {SEED}"), begun + HOURS * HOUR_US)
        end = begun + HOURS * HOUR_US + HOUR_US // 2
        await until(lambda: run.done() or place.box.clock.now_us() > end, 120)
        stop.set()
        result = await run
        last = to_us(place.ticks()["ts"][-1])
        for _ in range(5):
            done = await fetch(place.feed, ["s"], due_only=False)
            if done.status == "complete":
                break
        until_us = last // MINUTE_US * MINUTE_US
        have, true = values(place.candles(), first, until_us), place.truth(first, until_us)
        assert have.equals(true), done
        stored = stored_keys(place.ticks())
        missing = [tick for tick in place.true_ticks(min(stored)[0], last) if tick not in stored]
        gaps = place.gaps()
        saw = (f"{venue}: {HOURS} hours, {faults} faults, {result.reconnects} reconnects; {have.height} candles compared, {result.candles} of the "
               f"stream, {result.agreed} agreed, {result.contradicted} contradicted; {len(stored)} ticks stored, {len(missing)} not, "
               f"in {len(gaps)} booked ranges")
        record_property("saw", saw)
        logging.getLogger(__name__).info(saw)
        assert outside(missing, gaps) == []
        assert place.feed.lake.verify().problems == []
        assert have.height > HOURS * 30
        assert faults > 0
        assert result.reconnects >= HOURS // 8
        assert result.candles > 0


def _span(begun):
    return Interval(begun - DAY_US, begun + 2 * DAY_US)

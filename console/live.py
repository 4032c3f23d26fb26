"""The newest candles of a series as server-sent events; viewers of one series share one look at the lake.

Each event's id is the open time of its newest candle. A viewer that reads slowly, or comes back with `Last-Event-ID`, gets
every candle since; where that would be more than one event holds, an event `skipped` tells the range that is left out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import Request

from console import readings
from console.identity import identify
from console.policy import identity_of
from console.state import feed_of
from core.clock import isoformat, parse_instant
from core.errors import InputError, NotFoundError, RateLimitedError
from core.series import Series
from feed.context import Feed

VIEWERS_MAX: Final = 400
PERSON_MAX: Final = 200  # of one person: nobody takes all the room
LOOK_SECONDS: Final = 1.0
SHOWN: Final = 2  # the candle that closed last may still be revised when the next one comes
CATCH_UP: Final = 1000  # candles of one event at most
KEEP_ALIVE: Final = 15  # looks without news before a comment tells proxies that we are there


class Hub:
    """Who watches, and what was last seen of each series."""

    def __init__(self) -> None:
        self._seen: dict[Series, tuple[float, list[dict[str, Any]]]] = {}
        self._locks: dict[Series, asyncio.Lock] = {}
        self._watchers: dict[Series, int] = {}
        self._people: Counter[str] = Counter()

    @property
    def viewers(self) -> int:
        """How many streams are open."""
        return sum(self._watchers.values())

    def check_room(self, person: str = "") -> None:
        """Raise RateLimitedError when there are too many viewers, or too many of one person."""
        if self._people[person] >= PERSON_MAX:
            raise RateLimitedError(f"you have {PERSON_MAX} live views open already; close some", retry_after=30)
        if self.viewers >= VIEWERS_MAX:
            raise RateLimitedError(f"{VIEWERS_MAX} viewers watch already; try again soon", retry_after=30)

    def enter(self, series: Series, person: str = "") -> None:
        """Count a viewer in."""
        self._people[person] += 1
        self._watchers[series] = self._watchers.get(series, 0) + 1
        self._locks.setdefault(series, asyncio.Lock())

    def leave(self, series: Series, person: str = "") -> None:
        """Count a viewer out; the last one takes what was kept along."""
        self._people[person] -= 1
        self._people += Counter()  # forgets who has left
        self._watchers[series] -= 1
        if not self._watchers[series]:
            for kept in (self._watchers, self._locks, self._seen):
                kept.pop(series, None)

    async def look(self, feed: Feed, series: Series) -> list[dict[str, Any]]:
        """Return the newest candles, at most `LOOK_SECONDS` old."""
        async with self._locks[series]:
            at, rows = self._seen.get(series, (-LOOK_SECONDS, []))
            if time.monotonic() - at >= LOOK_SECONDS or not rows:
                frame = await asyncio.to_thread(readings.candles, feed, series, None, None, SHOWN)
                rows = readings.candle_rows(frame)
                self._seen[series] = (time.monotonic(), rows)
            return rows


async def events(hub: Hub, request: Request, series: Series, seconds: int) -> AsyncIterator[str]:
    """Yield changes until the viewer leaves, may not see them any more, or `seconds` are over; the browser then comes again."""
    feed, end, sent, quiet = feed_of(request), time.monotonic() + seconds, "", 0
    last = _event_id(request)
    person = identity_of(request).user.name
    hub.enter(series, person)
    try:
        yield "retry: 2000\n\n"
        while time.monotonic() < end and not await request.is_disconnected():
            if not await asyncio.to_thread(_may_still_see, request, series):
                return
            rows = await hub.look(feed, series)
            text = json.dumps(rows)
            quiet += 1
            if text != sent:
                sent, quiet = text, 0
                if last and rows and rows[0]["ts"] > last:  # more came than one look shows
                    rows = readings.candle_rows(await asyncio.to_thread(readings.candles, feed, series, last, None, CATCH_UP))
                    if rows[0]["ts"] > last and len(rows) == CATCH_UP:
                        yield f"event: skipped\ndata: {json.dumps({'after': last, 'before': rows[0]['ts']})}\n\n"
                last = rows[-1]["ts"] if rows else last
                yield f"id: {last}\nevent: candles\ndata: {json.dumps(rows)}\n\n"
            elif quiet >= KEEP_ALIVE:
                yield ": still here\n\n"
                quiet = 0
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        hub.leave(series, person)


def _event_id(request: Request) -> str:
    """Return the id that a viewer who comes back had seen last; nothing without one, or when it is none of ours."""
    try:
        return isoformat(parse_instant(request.headers.get("last-event-id", ""), "Last-Event-ID"))
    except InputError:
        return ""


def _may_still_see(request: Request, series: Series) -> bool:
    """Whether the session or token lives and the connection is still the viewer's."""
    feed = feed_of(request)
    who = identify(request, feed.lake.metadata, feed.clock)
    if who is None:
        return False
    try:
        return who.may_see(feed.connections.get(series.connection))
    except NotFoundError:
        return False

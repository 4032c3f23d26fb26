"""The newest candle of a series as server-sent events; viewers of one series share one look at the lake."""

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
from core.errors import RateLimitedError
from core.series import Series
from feed.context import Feed

VIEWERS_MAX: Final = 400
PERSON_MAX: Final = 200  # of one person: nobody takes all the room
LOOK_SECONDS: Final = 1.0
SHOWN: Final = 2  # the candle that closed last may still be revised when the next one comes
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
    person = identity_of(request).user.name
    hub.enter(series, person)
    try:
        yield "retry: 2000\n\n"
        while time.monotonic() < end and not await request.is_disconnected():
            if not await asyncio.to_thread(_may_still_see, request, series):
                return
            text = json.dumps(await hub.look(feed, series))
            quiet += 1
            if text != sent:
                yield f"event: candles\ndata: {text}\n\n"
                sent, quiet = text, 0
            elif quiet >= KEEP_ALIVE:
                yield ": still here\n\n"
                quiet = 0
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        hub.leave(series, person)


def _may_still_see(request: Request, series: Series) -> bool:
    """Whether the session or token lives and the connection is still the viewer's."""
    feed = feed_of(request)
    who = identify(request, feed.lake.metadata, feed.clock)
    return who is not None and any(row.slug == series.connection and who.may_see(row) for row in feed.connections.list())

"""The proof of a connection's data for page and API: what `storage.proof_report` counts, over a period that a page can wait for."""

from __future__ import annotations

from typing import Any, Final

from console.identity import Identity
from console.readings import seen_connection
from core.clock import DAY_US, parse_instant
from core.interval import Interval
from feed.context import Feed
from storage.proof_report import make_report

DAYS: Final = 30  # without a period: digests read every row of it


def proof_of(feed: Feed, who: Identity, slug: str, start: str | None, end: str | None) -> dict[str, Any]:
    """Return the proof of the candles that open in a period; without one of the last `DAYS` days.

    Raises:
        NotFoundError: no such connection of the reader. InputError: no period.
    """
    seen_connection(feed, who, slug)
    until = parse_instant(end, "end") if end else feed.clock.now_us()
    since = parse_instant(start, "start") if start else (until - DAYS * DAY_US) // DAY_US * DAY_US
    return make_report(feed.lake.place, slug, Interval(since, until)).as_dict()

"""The proof of a connection's data for page and API: what `storage.proof_report` counts, over a period that a page can wait for."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

from console.identity import Identity
from console.readings import seen_connection
from core.clock import DAY_US, parse_instant
from core.interval import Interval
from feed.context import Feed
from storage.proof_report import make_report

DAYS: Final = 30  # without a period: digests read every row of it
CAUSES: Final = {
    "no_trade": "nothing was traded (proved twice)", "market_closed": "the market was closed",
    "provider_empty": "the provider has no candle; asked again", "fetch_failed": "no answer yet; asked again",
    "out_of_reach": "older than the provider keeps", "before_listing": "before the listing", "after_delisting": "after the delisting",
    "unknown": "not explained",
}


def proof_of(feed: Feed, who: Identity, slug: str, start: str | None, end: str | None) -> dict[str, Any]:
    """Return the proof of the candles that open in a period; without one of the last `DAYS` days.

    Raises:
        NotFoundError: no such connection of the reader. InputError: no period.
    """
    seen_connection(feed, who, slug)
    until = parse_instant(end, "end") if end else feed.clock.now_us()
    since = parse_instant(start, "start") if start else (until - DAYS * DAY_US) // DAY_US * DAY_US
    return make_report(feed.lake.place, slug, Interval(since, until)).as_dict()


def runs_of(strip: list[str]) -> list[tuple[str, int, int]]:
    """Return the runs of equal parts of a strip: what, where from, how long."""
    out, at = [], 0
    for name, group in groupby(strip):
        width = len(list(group))
        out.append((name, at, width))
        at += width
    return out

"""A series' strip in the published proof: what each part of a period holds, in shares of its slots, and the boxes that draw it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.interval import Interval
from storage.ledger import Gap

PARTS: Final = 120  # of the period
STORED, EXPLAINED, CLOSED, WAITING, OPEN = "stored", "explained", "closed", "waiting", "open"
LEGEND: Final = {STORED: "stored", EXPLAINED: "explained for good", CLOSED: "market closed", WAITING: "asked for again", OPEN: "unexplained"}
NO_MARKET: Final = frozenset({"market_closed", "before_listing", "after_delisting"})
_SHOWN: Final = {"provider_empty": WAITING, "fetch_failed": WAITING, "unknown": OPEN} | dict.fromkeys(NO_MARKET, CLOSED)
HEIGHT: Final = 10.0  # of the picture
_LEAST: Final = {OPEN: 2.0, WAITING: 1.0}  # of the picture: what is short and not settled is seen all the same


def strip_of(
    slots: NDArray[np.int64], length_us: int, booked: Sequence[tuple[Gap, Interval]], whole: Interval | None, period: Interval,
) -> list[dict[str, float]]:
    """Return for each of up to `PARTS` equal parts of the period the shares of its slots that are stored, closed, explained and so on.

    Args:
        slots: open times stored in the period, ascending.
        length_us: of a candle.
        booked: what the ledger holds of the period.
        whole: from the series' first stored or booked slot to its last, within the period; outside of it nothing is expected.
        period: what the strip shows.
    """
    if whole is None or whole.is_empty:
        return [{}]
    start = whole.start - -((period.start - whole.start) // length_us) * length_us  # parts begin where candles do
    count = max(1, -((start - period.end) // length_us))
    edges = start + np.round(np.linspace(0, count, min(PARTS, count) + 1)).astype(np.int64) * length_us
    time = {name: np.zeros(len(edges) - 1) for name in LEGEND}
    for gap, part in booked:
        time[_SHOWN.get(gap.cause, EXPLAINED)] += _within(edges, part)
    time[STORED] = np.histogram(slots, bins=edges)[0] * float(length_us)
    unbooked = _within(edges, whole) - sum(time.values())
    time[OPEN] += np.where(unbooked > length_us / 2, unbooked, 0)
    return [{name: round(float(spent[at] / (edges[at + 1] - edges[at])), 6) for name, spent in time.items() if spent[at] > 0}
            for at in range(len(edges) - 1)]


def boxes(strip: Sequence[Mapping[str, float]]) -> list[tuple[str, int, float, int, float]]:
    """Return what draws a strip, one wide for each part and `HEIGHT` high: name, left, top, width, height; equal neighbours are one."""
    out: list[tuple[str, int, float, int, float]] = []
    start, before = 0, _stacked(strip[0]) if strip else []
    for at in range(1, len(strip) + 1):
        now = _stacked(strip[at]) if at < len(strip) else None
        if now != before:
            out += [(name, start, top, at - start, height) for name, top, height in before]
            start, before = at, now or []
    return out


def _stacked(shares: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Return one part's boxes from the bottom up: name, top, height, to half a step."""
    least = {name: max(share * HEIGHT, _LEAST.get(name, 0.0)) for name, share in shares.items()}
    spare = HEIGHT / max(HEIGHT, sum(least.values()))
    out, top = [], HEIGHT
    for name in LEGEND:
        height = round(least.get(name, 0.0) * spare * 2) / 2
        if height:
            top -= height
            out.append((name, max(top, 0.0), height))
    return out


def _within(edges: NDArray[np.int64], part: Interval) -> NDArray[np.float64]:
    inside: NDArray[np.float64] = np.maximum(0.0, np.minimum(edges[1:], part.end) - np.maximum(edges[:-1], part.start))
    return inside

"""Half-open UTC intervals [start, end) in microseconds, and the set algebra over sorted lists of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from core.clock import isoformat, parse_instant, to_datetime, to_us
from core.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """[start, end) in microseconds since 1970 UTC; start <= end always holds."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start > self.end:
            raise InputError(
                "range", f"{isoformat(self.start)} to {isoformat(self.end)}", "a start before its end", "swap the two")

    @staticmethod
    def of(start: datetime, end: datetime) -> Interval:
        """Return the interval between two aware datetimes."""
        return Interval(to_us(start), to_us(end))

    @staticmethod
    def parse(start: str, end: str) -> Interval:
        """Return the interval between two ISO 8601 texts from a person; an empty one is an InputError."""
        interval = Interval(parse_instant(start, "start"), parse_instant(end, "end"))
        if interval.is_empty:
            raise InputError("range", f"{start} to {end}", "a start before its end", "the end is exclusive")
        return interval

    @property
    def is_empty(self) -> bool:
        """Whether nothing lies in it."""
        return self.start == self.end

    @property
    def start_at(self) -> datetime:
        """The start as an aware UTC datetime."""
        return to_datetime(self.start)

    @property
    def end_at(self) -> datetime:
        """The end as an aware UTC datetime."""
        return to_datetime(self.end)

    def __contains__(self, us: int) -> bool:
        return self.start <= us < self.end

    def intersect(self, other: Interval) -> Interval | None:
        """Return what both hold, or None."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Interval(start, end) if start < end else None

    def __str__(self) -> str:
        return f"[{isoformat(self.start)}, {isoformat(self.end)})"


def merge(intervals: Iterable[Interval]) -> list[Interval]:
    """Return the union as sorted, disjoint, non-touching intervals."""
    out: list[Interval] = []
    for item in sorted(i for i in intervals if not i.is_empty):
        if out and item.start <= out[-1].end:
            out[-1] = Interval(out[-1].start, max(out[-1].end, item.end))
        else:
            out.append(item)
    return out


def subtract(whole: Iterable[Interval], holes: Iterable[Interval]) -> list[Interval]:
    """Return what `whole` holds and `holes` do not, sorted and disjoint."""
    cut = merge(holes)
    out: list[Interval] = []
    first = 0
    for item in merge(whole):
        while first < len(cut) and cut[first].end <= item.start:
            first += 1
        start = item.start
        for hole in cut[first:]:
            if hole.start >= item.end:
                break
            if hole.start > start:
                out.append(Interval(start, hole.start))
            start = max(start, hole.end)
        if start < item.end:
            out.append(Interval(start, item.end))
    return out


def intersect(left: Iterable[Interval], right: Iterable[Interval]) -> list[Interval]:
    """Return what both hold, sorted and disjoint."""
    a, b = merge(left), merge(right)
    out: list[Interval] = []
    i = j = 0
    while i < len(a) and j < len(b):
        both = a[i].intersect(b[j])
        if both is not None:
            out.append(both)
        if a[i].end <= b[j].end:
            i += 1
        else:
            j += 1
    return out


def meeting(parts: Sequence[Interval], interval: Interval) -> Sequence[Interval]:
    """Return those of `parts` (ascending, disjoint) that overlap `interval`."""
    first = bisect_right(parts, interval.start, key=lambda part: part.end)
    return parts[first:bisect_left(parts, interval.end, key=lambda part: part.start)]


def runs(slots: Sequence[int], step: int) -> Iterator[Interval]:
    """Group ascending open times that lie `step` apart into intervals; each ends at its last slot's close."""
    start = previous = None
    for slot in slots:
        if previous is not None and start is not None and slot != previous + step:
            yield Interval(start, previous + step)
            start = slot
        elif start is None:
            start = slot
        previous = slot
    if start is not None and previous is not None:
        yield Interval(start, previous + step)

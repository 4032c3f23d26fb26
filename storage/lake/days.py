"""How many candles of series are stored on each day (UTC). A file never changes, so its days are counted once and kept."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.clock import DAY_US
from core.interval import Interval
from storage.lake.blocks import blocks_of, times_of
from storage.lake.place import Place
from storage.lake.reader import stored_slots, with_files
from storage.statements import fetch, marks

_KEPT_FILES: Final = 8_192  # those of a year take 3 kB each
_FILES = ("SELECT series_id, path, first_us, last_us FROM lake_files WHERE superseded_at_us IS NULL AND dataset = 'candles'"
          " AND first_us < ? AND last_us >= ? AND series_id IN ")


@dataclass(frozen=True, slots=True)
class _Days:
    """Counts of the days from number `first` on (days since 1970)."""

    first: int
    counts: NDArray[np.int64]


class _Kept:
    """The days of the files that were counted last, for all threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _Days] = OrderedDict()
        self._lock = Lock()

    def known(self, paths: Sequence[str]) -> dict[str, _Days]:
        """Return what is kept of these files."""
        with self._lock:
            found = {path: self._held[path] for path in paths if path in self._held}
            for path in found:
                self._held.move_to_end(path)
        return found

    def keep(self, found: Mapping[str, _Days]) -> None:
        """Keep these, and forget those that were asked for longest ago."""
        with self._lock:
            self._held.update(found)
            while len(self._held) > _KEPT_FILES:
                self._held.popitem(last=False)


_kept = _Kept()


def stored_by_day(place: Place, series_ids: Sequence[int], whole: Interval) -> dict[int, NDArray[np.int64]]:
    """Return, for each of some series, how many candles are stored on each day of `whole`, head and lake.

    Args:
        place: the lake.
        series_ids: of the series, some hundreds at most.
        whole: from one midnight, not before 1970, to another.

    Raises:
        StoreCorruptError: a file cannot be read.
    """
    first = whole.start // DAY_US
    out = {key: np.zeros((whole.end - whole.start) // DAY_US, dtype=np.int64) for key in series_ids}
    if not series_ids:
        return out
    among = f"({marks(series_ids)})"
    with place.metadata.read() as tx:
        files = fetch(tx, _FILES + among, (whole.end, whole.start, *series_ids))
        head = {key: times_of(blocks, whole) for key, blocks in blocks_of(tx, series_ids, whole).items()}
    counted = _count(place, [path for _, path, _, _ in files])
    spans: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for series_id, path, first_us, last_us in files:
        spans[series_id].append((first_us, last_us))
        _add(out[series_id], counted[path], first)
    doubled: dict[int, list[int]] = defaultdict(list)
    for series_id, times in head.items():
        met, starts, counts = np.unique(times // DAY_US, return_index=True, return_counts=True)
        for day, start, count in zip(met.tolist(), starts.tolist(), counts.tolist(), strict=True):
            if any(begin <= times[start + count - 1] and end >= times[start] for begin, end in spans[series_id]):
                doubled[series_id].append(day)  # a candle may lie in both
            else:
                out[series_id][day - first] += count
    for series_id, days in doubled.items():
        span = Interval(min(days) * DAY_US, (max(days) + 1) * DAY_US)
        exact = _days_of(stored_slots(place, series_id, span).to_numpy() // DAY_US)
        out[series_id][min(days) - first:max(days) + 1 - first] = 0
        _add(out[series_id], exact, first)
    return out


def _count(place: Place, paths: Sequence[str]) -> dict[str, _Days]:
    """Return the days of files; those that are not kept are read in one go, their open times alone."""
    found = _kept.known(paths)
    missing = [path for path in paths if path not in found]
    if not missing:
        return found

    def read(there: list[Path]) -> dict[str, _Days]:
        names = dict(zip(map(str, there), missing, strict=True))
        scan = pl.scan_parquet(there, hive_partitioning=False, glob=False, include_file_paths="file")
        days = scan.select("file", pl.col("ts").dt.epoch("us").floordiv(DAY_US).alias("day"))
        table = days.group_by("file", "day").len().collect().partition_by("file", as_dict=True)
        return {names[str(file)]: _days_of(part["day"].to_numpy(), part["len"].to_numpy()) for (file,), part in table.items()}

    counted = with_files(place, missing, read)
    _kept.keep(counted)
    return found | counted


def _days_of(days: NDArray[np.int64], counts: NDArray[np.uint32] | None = None) -> _Days:
    if not len(days):
        return _Days(0, np.zeros(0, dtype=np.int64))
    first = int(days.min())
    return _Days(first, np.bincount(days - first, weights=counts).astype(np.int64))


def _add(out: NDArray[np.int64], found: _Days, first: int) -> None:
    """Add counts to those of the days from `first` on; days outside are left out."""
    begin, end = max(0, found.first - first), min(len(out), found.first + len(found.counts) - first)
    if begin < end:
        out[begin:end] += found.counts[begin + first - found.first:end + first - found.first]

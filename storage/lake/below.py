"""What the lake holds of times that are being written, read once for each file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import polars as pl

from core.interval import Interval
from storage.lake.blocks import CANDLE_BYTES, Block, pack
from storage.lake.place import Place
from storage.lake.reader import read_files


class Stored(NamedTuple):
    """A stored candle, packed, and what is known of it; `block` holds it when it lies in the head."""

    candle: bytes
    known_at_us: int
    source: str
    run_id: str
    block: Block | None = None


class LakeRows:
    """The lake's rows of the times being written; files are immutable, each is read once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen: dict[str, tuple[int, Interval]] = {}
        self._rows: dict[str, dict[tuple[int, int], Stored]] = {}

    def lacks(self, path: str, wanted: tuple[int, Interval]) -> bool:
        """Whether a file has still to be read for that range."""
        return self._seen.get(path) != wanted

    def load(self, files: Mapping[str, tuple[int, Interval]]) -> None:
        """Read the files that are not here yet."""
        for path, wanted in files.items():
            if self.lacks(path, wanted):
                series_id, interval = wanted
                self._rows[path] = _stored(series_id, read_files(self._place, [path], interval))
                self._seen[path] = wanted

    def rows(self, paths: Iterable[str]) -> dict[tuple[int, int], Stored]:
        """Return the rows of these files, by series and time."""
        return {key: row for path in paths for key, row in self._rows[path].items()}


def _stored(series_id: int, frame: pl.DataFrame) -> dict[tuple[int, int], Stored]:
    numbers = pack(frame)
    candles = numbers.tobytes()
    told = zip(frame["known_at"].to_physical().to_list(), frame["source"].to_list(), frame["run_id"].to_list(), strict=True)
    return {(series_id, time): Stored(candles[place * CANDLE_BYTES:(place + 1) * CANDLE_BYTES], *rest)
            for place, (time, rest) in enumerate(zip(numbers[:, 0].tolist(), told, strict=True))}

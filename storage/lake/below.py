"""What the lake holds of times that are being written, read once for each file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import polars as pl

from core.candles import VALUES
from core.interval import Interval
from storage.lake.place import Place
from storage.lake.reader import read_files
from storage.statements import Row


class LakeRows:
    """The lake's rows of the times being written; files are immutable, each is read once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._seen: dict[str, tuple[int, Interval]] = {}
        self._rows: dict[str, dict[tuple[int, int], Row]] = {}

    def lacks(self, path: str, wanted: tuple[int, Interval]) -> bool:
        """Whether a file has still to be read for that range."""
        return self._seen.get(path) != wanted

    def load(self, files: Mapping[str, tuple[int, Interval]]) -> None:
        """Read the files that are not here yet."""
        for path, wanted in files.items():
            if self.lacks(path, wanted):
                series_id, interval = wanted
                frame = read_files(self._place, [path], interval)
                plain = frame.select(
                    pl.col("ts").dt.epoch("us"), *VALUES, pl.col("known_at").dt.epoch("us"), "source", "run_id")
                self._rows[path] = {(series_id, row[0]): row for row in plain.iter_rows()}
                self._seen[path] = wanted

    def rows(self, paths: Iterable[str]) -> dict[tuple[int, int], Row]:
        """Return the rows of these files, by series and time."""
        return {key: row for path in paths for key, row in self._rows[path].items()}

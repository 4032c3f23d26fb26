"""Keeps damage from spreading: a file that is written anew is read with its digest, and damage stops its own series alone.

No reader notices a flipped bit by itself. Merged into a new file, it would get a digest of its own, and `verify` would
call it right for ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from core.candles import STORED_SCHEMA
from core.errors import StoreCorruptError
from core.interval import Interval
from storage.lake.blocks import ALL
from storage.lake.place import Place
from storage.lake.reader import between, with_files
from storage.statements import fetch, marks

_PART = 500  # paths of one statement


class Damage:
    """Work on many things of which some may lie in damaged files: those are left out, and told when the rest is done."""

    def __init__(self) -> None:
        self._found: list[StoreCorruptError] = []

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Do one thing; when a damaged file stops it, go on with the next."""
        try:
            yield
        except StoreCorruptError as error:
            self._found.append(error)

    def tell(self) -> None:
        """Raise StoreCorruptError when anything was left out."""
        if not self._found:
            return
        more = f"; {len(self._found) - 1} more of this kind" if len(self._found) > 1 else ""
        raise StoreCorruptError(f"{self._found[0]}{more}; all else was done") from self._found[0]


def read_unaltered(place: Place, path: str, digest: str, interval: Interval = ALL) -> pl.DataFrame:
    """Return what a live file of candles holds in `interval` (STORED_SCHEMA, ascending), to be written anew.

    Raises:
        StoreCorruptError: its bytes are not those of `digest`.
    """
    def read(paths: list[Path]) -> pl.DataFrame:
        return pl.read_parquet(unaltered(paths[0].read_bytes(), path, digest), hive_partitioning=False)

    return between(with_files(place, [path], read).select(list(STORED_SCHEMA)), interval)


def unaltered(content: bytes, path: str, digest: str) -> bytes:
    """Return `content`, the bytes of the file at `path`; StoreCorruptError when `digest` is not theirs."""
    if hashlib.sha256(content).hexdigest() != digest:
        raise StoreCorruptError(f"{path}: its bytes are not those that were written; `candlelake verify` says what to do")
    return content


def check_unaltered(place: Place, files: Sequence[str]) -> None:
    """Raise StoreCorruptError when one of these files of candles is not as it was written."""
    digests: dict[str, str] = {}
    with place.metadata.read() as tx:
        for start in range(0, len(files), _PART):
            part = files[start:start + _PART]
            digests.update((row[0], row[1]) for row in fetch(tx, f"SELECT path, digest FROM lake_files WHERE path IN ({marks(part)})", part))  # noqa: S608  marks
    for path, digest in digests.items():
        unaltered(with_files(place, [path], lambda paths: paths[0].read_bytes()), path, digest)

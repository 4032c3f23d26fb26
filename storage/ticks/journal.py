"""The tick journal: what a stream has heard, on disk within a fraction of a second, until it is moved into the lake.

A segment is a file of frames, each written and synced as one: magic, the instant up to which all that was received is
in, rows, length, CRC, and an Arrow stream. A frame that a kill cut short fails its CRC and does not count; one that the
disk spoiled later does neither, and those behind it are found again by their magic. The writer holds a lock on its segment: whoever gets that lock knows that the segment is done, by its end or by a kill.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import struct
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from core.interval import Interval
from core.ticks import STORED_TICK_SCHEMA
from storage.lake.place import make_durable_folder, sync_folder, translated

JOURNAL: Final = ".journal"  # below the lake's root
SUFFIX: Final = ".log"
SEGMENT_ROWS: Final = 400_000
SEGMENT_SECONDS: Final = 300.0
JOURNAL_SCHEMA: Final = pl.Schema({"symbol": pl.String(), **STORED_TICK_SCHEMA})
_HEAD: Final = struct.Struct("<4sQIII")
_MAGIC: Final = b"CLT1"


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment's contents: the symbols that its stream covered, up to when it had all of them, and its ticks.

    `holes` are ranges whose frames are damaged, with sound ones behind them; `is_torn`: the end is damaged, by a kill or later.
    """

    path: Path
    symbols: tuple[str, ...]
    until_us: int
    ticks: pl.DataFrame
    holes: tuple[Interval, ...] = ()
    is_torn: bool = False


class Journal:
    """Writes one segment after the other for one connection; used by one thread at a time.

    Args:
        root: of the lake.
        slug: of the connection.
        symbols: that the stream covers.
    """

    def __init__(self, root: Path, slug: str, symbols: Sequence[str]) -> None:
        self._folder, self._root = folder(root, slug), root
        self._symbols = list(symbols)
        self._file: io.FileIO | None = None
        self._rows = 0
        self._begun_us = 0

    def append(self, ticks: pl.DataFrame | None, until_us: int) -> None:
        """Write one frame; when this returns it is on disk.

        Args:
            ticks: of JOURNAL_SCHEMA, in the order of arrival; None only moves the mark.
            until_us: all that was received up to this instant is in.

        Raises:
            StoreFullError, StoreUnwritableError: nothing of the frame counts; the next one begins another segment.
        """
        rows = 0 if ticks is None else ticks.height
        with translated(self._folder):
            if self._file is None or self._rows + rows > SEGMENT_ROWS or until_us - self._begun_us > SEGMENT_SECONDS * 1e6:
                self.close()
                self._open(until_us)
            try:
                self._write(until_us, rows, b"" if ticks is None else _encode(ticks))
            except OSError:
                self.close()  # a part of the frame may be there: nothing may come behind it
                raise
            self._rows += rows

    def close(self) -> None:
        """End the segment; the next `append` begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, until_us: int) -> None:
        make_durable_folder(self._root, self._folder)
        aside = self._folder / f"{until_us:020d}-{uuid.uuid4().hex}.new"
        self._file = io.FileIO(aside, "x")
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._rows, self._begun_us = 0, until_us
        self._write(0, 0, json.dumps(self._symbols).encode())
        aside.rename(aside.with_suffix(SUFFIX))  # with its lock held: nobody takes it for done
        sync_folder(self._folder)

    def _write(self, until_us: int, rows: int, payload: bytes) -> None:
        if self._file is None:
            raise AssertionError("no segment is open")
        view = memoryview(_HEAD.pack(_MAGIC, until_us, rows, len(payload), zlib.crc32(payload)) + payload)
        while view:
            view = view[self._file.write(view):]
        os.fsync(self._file.fileno())


def folder(root: Path, slug: str) -> Path:
    """Return the folder of a connection's segments."""
    return root / JOURNAL / slug


def segments(root: Path, slug: str) -> list[Path]:
    """Return a connection's segments, oldest first."""
    place = folder(root, slug)
    return sorted(path for path in place.iterdir() if path.suffix == SUFFIX) if place.is_dir() else []


def begun_us(path: Path) -> int:
    """Return the mark with which a segment began."""
    return int(path.name.split("-")[0])


def is_done(path: Path) -> bool:
    """Whether no writer holds the segment; False when it is gone."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except (FileNotFoundError, BlockingIOError):
        return False


def read_segment(path: Path) -> Segment | None:
    """Return what a segment holds in its whole frames; None when it is gone."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    symbols, until, frames, holes = (), 0, [], []
    place, is_torn = 0, False
    while place < len(content):
        found = _frame_at(content, place)
        if found is None:
            is_torn = True
            place = content.find(_MAGIC, place + 1)
            if place < 0:
                break
            continue
        until_us, rows, payload = found
        place += _HEAD.size + len(payload)
        if not until_us and not rows:  # the head
            symbols = tuple(json.loads(payload))
            continue
        if is_torn:
            since, is_torn = until or begun_us(path), False
            holes.append(Interval(since, max(since, until_us)))
        until = max(until, until_us)
        if rows:
            frames.append(pl.read_ipc_stream(io.BytesIO(payload)))
    ticks = pl.concat(frames).rechunk() if frames else pl.DataFrame(schema=JOURNAL_SCHEMA)
    return Segment(path, symbols, until, ticks, tuple(holes), is_torn)


def _frame_at(content: bytes, place: int) -> tuple[int, int, bytes] | None:
    """Return mark, rows and payload of the frame that begins at `place`; None when none does, or not a whole one."""
    if place + _HEAD.size > len(content):
        return None
    magic, until_us, rows, length, crc = _HEAD.unpack_from(content, place)
    payload = content[place + _HEAD.size: place + _HEAD.size + length]
    if magic != _MAGIC or len(payload) != length or zlib.crc32(payload) != crc:
        return None
    return until_us, rows, payload


def _encode(ticks: pl.DataFrame) -> bytes:
    buffer: Any = io.BytesIO()
    ticks.select(list(JOURNAL_SCHEMA)).write_ipc_stream(buffer, compression="lz4")
    return bytes(buffer.getbuffer())

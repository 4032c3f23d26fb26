"""The ticks dataset as one: read, flush from the journals, write history, compact, remove what is too old."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import polars as pl

from core.clock import DAY_US, LATEST_US, to_datetime
from core.errors import NotFoundError, StoreCorruptError
from core.interval import Interval
from core.ticks import STORED_TICK_SCHEMA, without_known, without_repeats
from core.unreadable import UNREADABLE, first_line
from storage.lake import layout
from storage.lake.damage import Damage, unaltered
from storage.lake.local import remove
from storage.lake.place import Place, locked, translated
from storage.statements import fetch
from storage.ticks import files, journal, losses
from storage.ticks.files import TickFile

COMPACT_ROWS: Final = 4_000_000  # files are joined up to this size
MOVES: Final = 20


@dataclass(frozen=True, slots=True)
class TickFlush:
    """What a flush moved: segments, ticks, and repeats that were dropped."""

    segments: int
    rows: int
    repeats: int


@dataclass(frozen=True, slots=True)
class TickRetention:
    """Files, and the ticks in them, of days that lie wholly before the cut."""

    files: tuple[TickFile, ...]

    @property
    def rows(self) -> int:
        """How many ticks would go."""
        return sum(item.rows for item in self.files)


class TickStore:
    """The ticks of one lake. Safe to use from several threads and processes at once."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def open_journal(self, slug: str, symbols: Sequence[str]) -> journal.Journal:
        """Return a journal for a stream of a connection; what earlier ones left is flushed first.

        One whose writer stands still, and has lost its lease, cannot be: its ticks stay where they are, and up to its mark none is missing.
        """
        self.flush(slug)
        for path in journal.segments(self.place.root, slug):
            segment = journal.read_segment(path)
            if segment is not None:
                self._store(slug, [], segment.symbols, segment.until_us)
        return journal.Journal(self.place.root, slug, symbols)

    def read(self, slug: str, symbol: str, interval: Interval, limit: int | None = None) -> pl.DataFrame:
        """Return a symbol's ticks in `interval`, journal included: STORED_TICK_SCHEMA, by time, repeats dropped.

        Args:
            slug: the connection.
            symbol: in the provider's spelling.
            interval: of event times.
            limit: at most so many, the newest of the range.

        Raises:
            NotFoundError: no ticks of that symbol were ever stored or streamed.
            StoreCorruptError: a file is missing or damaged.
        """
        for _ in range(MOVES):
            fresh = self._journalled(slug, symbol, interval)  # before the manifest: what is flushed meanwhile comes twice, not never
            with self.place.metadata.read() as tx:
                series_id = losses.find_tick_series(tx, slug, symbol)
                live = [] if series_id is None else files.live_files(tx, series_id, interval.start, interval.end - 1)
            if series_id is None and fresh.is_empty():
                raise NotFoundError(f"no ticks of {slug} {symbol}; stream them with: candlelake stream {slug}")
            try:
                return self._joined(live, fresh, interval, limit)
            except FileNotFoundError:
                continue  # it moved to .old/ in between
        raise StoreCorruptError(f"a file of {slug} {symbol} ticks is missing; run `candlelake verify`")

    def flush(self, slug: str | None = None) -> TickFlush:
        """Move what done journals hold into day files; a segment goes when its ticks are in the manifest.

        Raises:
            StoreCorruptError: a journal is of a connection that is not there; it stays, all others are done.
        """
        root = self.place.root
        top = root / journal.JOURNAL
        slugs = [slug] if slug is not None else sorted(item.name for item in top.iterdir()) if top.is_dir() else []
        done, rows, repeats = 0, 0, 0
        damage = Damage()
        for name in slugs:
            if not journal.folder(root, name).is_dir():
                continue
            with damage.apart(), locked(root, f"journal-{name}"):
                self._check_owned(name)
                paths = journal.segments(root, name)
                for path, later in zip(paths, [*paths[1:], None], strict=False):
                    segment = journal.read_segment(path) if journal.is_done(path) else None
                    if segment is None:
                        continue
                    written = self._take_in(name, segment, later)
                    path.unlink()
                    done, rows, repeats = done + 1, rows + written, repeats + segment.ticks.height - written
        damage.tell()
        return TickFlush(done, rows, repeats)

    def count_journalled(self, slug: str) -> int:
        """Return how many ticks wait in a connection's journals, repeats among them."""
        found = [journal.read_segment(path) for path in journal.segments(self.place.root, slug)]
        return sum(segment.ticks.height for segment in found if segment is not None)

    def drop_journals(self, slug: str) -> None:
        """Delete a connection's journals, also one that a process which stands still has open; its lease keeps that one from another."""
        root = self.place.root
        with translated(root), locked(root, f"journal-{slug}"), suppress(FileNotFoundError):
            shutil.rmtree(journal.folder(root, slug))

    def _check_owned(self, slug: str) -> None:
        """Raise StoreCorruptError for ticks that wait for a connection which is gone: nobody but a person may drop them."""
        with self.place.metadata.read() as tx:
            is_there = bool(fetch(tx, "SELECT 1 FROM connections WHERE slug = ?", (slug,)))
        if not is_there and journal.segments(self.place.root, slug):
            raise StoreCorruptError(f"ticks in {journal.JOURNAL}/{slug} wait for a connection that is not there; run `candlelake audit --rebuild` "
                                    "after lost metadata, or remove that folder")

    def write(self, slug: str, symbol: str, ticks: pl.DataFrame) -> int:
        """Store ticks of history (STORED_TICK_SCHEMA, any order) and return how many were new."""
        return self._store(slug, [(symbol, ticks)], [], 0)

    def compact(self, before_us: int) -> int:
        """Join the files of each day that ended before `before_us`; return how many files went.

        Raises:
            StoreCorruptError: days whose files were altered are left as they are; all others are done.
        """
        with self.place.metadata.read() as tx:
            names = {key: (slug, symbol) for key, slug, symbol in losses.list_tick_series(tx)}
            days: dict[tuple[int, str], list[TickFile]] = {}
            for item in files.all_live(tx):
                days.setdefault((item.series_id, item.date), []).append(item)
        last_day = to_datetime(max(0, before_us - DAY_US)).date().isoformat()
        gone, damage = 0, Damage()
        for (series_id, day), parts in days.items():
            if len(parts) > 1 and day <= last_day:
                with damage.apart():
                    gone += self._compact_day(*names[series_id], series_id, day)
        damage.tell()
        return gone

    def plan_retention(self, before_us: int, slug: str | None = None) -> TickRetention:
        """Return the files whose day ended before `before_us`; changes nothing."""
        last_day = to_datetime(max(0, before_us - DAY_US)).date().isoformat()
        with self.place.metadata.read() as tx:
            wanted = {key for key, _, _ in losses.list_tick_series(tx, slug)}
            return TickRetention(tuple(item for item in files.all_live(tx) if item.series_id in wanted and item.date <= last_day))

    def apply_retention(self, plan: TickRetention) -> int:
        """Remove what a plan names and return how many ticks went; the files lie in .old/ for its grace."""
        with self.place.metadata.write() as tx:
            files.enter(tx, [], plan.files, self.place.clock.now_us())
        for item in plan.files:
            remove(self.place, item.path)
        return plan.rows

    def _journalled(self, slug: str, symbol: str, interval: Interval) -> pl.DataFrame:
        found = [journal.read_segment(path) for path in journal.segments(self.place.root, slug)]
        parts = [part.ticks.filter((pl.col("symbol") == symbol) & _inside(interval)).drop("symbol") for part in found if part]
        return pl.concat(parts) if parts else pl.DataFrame(schema=STORED_TICK_SCHEMA)

    def _joined(self, live: list[TickFile], fresh: pl.DataFrame, interval: Interval, limit: int | None) -> pl.DataFrame:
        parts: list[pl.DataFrame] = []
        have = fresh.height
        for item in reversed(live):  # newest first: a limit needs the last files alone
            if limit is not None and have >= 2 * limit and parts and item.last_us < _least_us(parts, fresh):
                break
            parts.append(_read(self.place, item).filter(_inside(interval)))
            have += parts[-1].height
        whole = pl.concat([*reversed(parts), fresh]).sort("ts", maintain_order=True)
        whole = without_repeats(whole)
        return whole if limit is None else whole.tail(limit)

    def _take_in(self, slug: str, segment: journal.Segment, later: Path | None) -> int:
        """Store what a segment holds, and book what of it is damaged. Of a damaged end the loss is known when a later segment follows."""
        groups = [(str(key[0]), part.drop("symbol")) for key, part in segment.ticks.group_by("symbol", maintain_order=True)]
        holes = list(segment.holes)
        if segment.is_torn and later is not None:
            since = segment.until_us or journal.begun_us(segment.path)
            holes.append(Interval(since, max(since, journal.begun_us(later))))
        return self._store(slug, groups, segment.symbols, segment.until_us, holes)

    def _store(
        self, slug: str, groups: Sequence[tuple[str, pl.DataFrame]], covered: Sequence[str], until_us: int, damaged: Sequence[Interval] = (),
    ) -> int:
        """Write day files of several symbols in one transaction, with the mark of what was covered and what was damaged of it."""
        now_us, rows = self.place.clock.now_us(), 0
        with self.place.metadata.write() as tx:
            ids = {name: losses.ensure_tick_series(tx, slug, name, now_us) for name in {*covered, *(name for name, _ in groups)}}
        staged: list[tuple[str, TickFile]] = []
        with ExitStack() as locks:
            for symbol, ticks in sorted(groups, key=lambda group: group[0]):  # one order for all: no two writers wait for each other
                key = locks.enter_context(files.writing(self.place, slug, symbol))
                for day in _by_day(ticks):
                    news = self._news(ids[symbol], day)
                    if news.height:
                        staged.append((key, files.stage(self.place, key, files.series_folder(slug, symbol), ids[symbol], news)))
                        rows += news.height
            with self.place.metadata.write() as tx:
                files.enter(tx, [item for _, item in staged], [], now_us)
                if until_us:
                    losses.cover(tx, [ids[name] for name in covered], until_us)
                for name in covered:
                    losses.book_once(tx, ids[name], damaged, "damaged", now_us)
            for key, item in staged:
                files.publish(self.place, key, item.path)
        return rows

    def _news(self, series_id: int, ticks: pl.DataFrame) -> pl.DataFrame:
        """Return ticks of one day, by time, without repeats among them or of what is stored."""
        ticks = without_repeats(ticks)
        first, last = int(ticks["ts"].dt.epoch("us").min()), int(ticks["ts"].dt.epoch("us").max())  # type: ignore[arg-type]
        with self.place.metadata.read() as tx:
            live = files.live_files(tx, series_id, first, last)
        span = Interval(first, last + 1)
        return without_known(ticks, [_read(self.place, item).filter(_inside(span)) for item in live])

    def _compact_day(self, slug: str, symbol: str, series_id: int, day: str) -> int:
        gone = 0
        with files.writing(self.place, slug, symbol) as key:
            start = layout.period_start_us(day)
            with self.place.metadata.read() as tx:
                live = [item for item in files.live_files(tx, series_id, start, start + DAY_US - 1) if item.date == day]
            for group in _groups(live):
                joined = without_repeats(pl.concat([_unaltered(self.place, item) for item in group]).sort("ts", maintain_order=True))
                new = files.stage(self.place, key, files.series_folder(slug, symbol), series_id, joined)
                with self.place.metadata.write() as tx:
                    files.enter(tx, [new], group, self.place.clock.now_us())
                files.publish(self.place, key, new.path, [item.path for item in group])
                gone += len(group) - 1
        return gone


def _by_day(ticks: pl.DataFrame) -> list[pl.DataFrame]:
    ordered = ticks.sort("ts", maintain_order=True).with_columns(_day=pl.col("ts").dt.date())
    return ordered.partition_by("_day", maintain_order=True, include_key=False)


def _groups(live: Sequence[TickFile]) -> list[list[TickFile]]:
    """Return runs of files that fit into one, each of two at least."""
    out: list[list[TickFile]] = [[]]
    for item in live:
        if sum(part.rows for part in out[-1]) + item.rows > COMPACT_ROWS:
            out.append([])
        out[-1].append(item)
    return [group for group in out if len(group) > 1]


def _read(place: Place, item: TickFile) -> pl.DataFrame:
    try:
        return pl.read_parquet(files.where(place, item.path), hive_partitioning=False)
    except UNREADABLE as error:
        raise StoreCorruptError(f"cannot read {item.path}: {first_line(error)}; run `candlelake verify`") from error


def _unaltered(place: Place, item: TickFile) -> pl.DataFrame:
    """Return the ticks of a file that is to be written anew."""
    return pl.read_parquet(unaltered(files.where(place, item.path).read_bytes(), item.path, item.digest), hive_partitioning=False)


def _least_us(parts: Sequence[pl.DataFrame], fresh: pl.DataFrame) -> int:
    times = [int(part["ts"].dt.epoch("us").min()) for part in (*parts, fresh) if part.height]  # type: ignore[arg-type]
    return min(times, default=LATEST_US)


def _inside(interval: Interval) -> pl.Expr:
    return pl.col("ts").is_between(to_datetime(interval.start), to_datetime(min(interval.end, LATEST_US)), closed="left")


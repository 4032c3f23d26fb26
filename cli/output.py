"""What people and programs read: tables and JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import orjson

from core.secrets import redact

JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE
Rows = Sequence[Mapping[str, object]]
Progress = Callable[[int, int, str], None]
_WIDE = 10_000  # columns of a table that nobody looks at through a terminal: never cut a cell


def print_json(value: object) -> None:
    """Write `value` to stdout as one JSON document; instants as ISO 8601 with Z, NaN as null."""
    text = orjson.dumps(value, default=_plain, option=JSON_OPTIONS).decode()
    sys.stdout.write(text)
    sys.stdout.flush()


def print_rows(rows: Rows, columns: Sequence[str], *, as_json: bool, empty: str = "nothing to show") -> None:
    """Write rows to stdout: a JSON array of objects with `columns`, or a table of them."""
    if as_json:
        print_json([{name: row.get(name) for name in columns} for row in rows])
    elif not rows:
        note(empty)
    else:
        print_table(rows, columns)


def print_table(rows: Rows, columns: Sequence[str]) -> None:
    """Write rows to stdout as a table with a head line; a terminal's width is respected, a pipe's is not cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numeric = all(isinstance(row.get(name), (int, float, type(None))) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in columns))  # Text: a symbol like [x] is no markup
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else _WIDE, highlight=False).print(table)


def print_object(value: Mapping[str, object], *, as_json: bool) -> None:
    """Write one object to stdout: JSON, or a line for each field."""
    if as_json:
        print_json(value)
        return
    width = max((len(name) for name in value), default=0)
    for name, item in value.items():
        print(f"{name:<{width}}  {cell(item)}")


def cell(value: object) -> str:
    """Return a value as a table shows it."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return orjson.dumps(value, default=_plain, option=JSON_OPTIONS & ~orjson.OPT_APPEND_NEWLINE).decode().strip('"')


def check_target(file: Path) -> None:
    """Raise InputError unless `file` lies in a folder that exists."""
    from core.errors import InputError

    if not file.absolute().parent.is_dir():
        raise InputError("file", str(file), "a file in a folder that exists", "make the folder first")


def note(text: str) -> None:
    """Say something to the person at the terminal: stderr, one line."""
    print(redact(text), file=sys.stderr, flush=True)


def print_error(text: str) -> None:
    """Write an error to stderr as one line, secrets masked."""
    note("error: " + " ".join(text.split()))


@contextmanager
def progress_bar(what: str, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress on stderr: a bar on a terminal, a line every tenth of the way elsewhere.

    Args:
        what: names the work.
        quiet: show nothing.
    """
    if quiet:
        yield _silent
    elif sys.stderr.isatty():
        with _bar(what) as update:
            yield update
    else:
        yield _Lines(what, sys.stderr).update


def in_candles(progress: Progress) -> Progress:
    """Return `progress` that counts candles: the bar's own name says of what."""
    return lambda done, total, _what: progress(done, total, "candles")


@contextmanager
def _bar(what: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=None),
        TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"), TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(file=sys.stderr)) as bar:
        task = bar.add_task(what, total=1, unit="", visible=False)

        def update(done: int, total: int, unit: str) -> None:
            bar.update(task, completed=done, total=max(total, 1), unit=unit, visible=True)

        yield update


class _Lines:
    """Progress for a log: a line whenever another tenth is done."""

    def __init__(self, what: str, stream: IO[str]) -> None:
        self._what, self._stream, self._shown = what, stream, -1

    def update(self, done: int, total: int, unit: str) -> None:
        tenth = 10 * done // total if total else 10
        if tenth < self._shown:  # another part of the work began
            self._shown = -1
        if tenth > self._shown:
            self._shown = tenth
            print(f"{self._what}: {done}/{total} {unit}".rstrip(), file=self._stream, flush=True)


def _silent(done: int, total: int, unit: str) -> None:
    """Show nothing."""


def _plain(value: Any) -> object:
    if isinstance(value, (bytes, bytearray)):
        return value.hex()
    return str(value)

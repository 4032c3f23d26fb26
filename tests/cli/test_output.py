"""What is printed: JSON that parses, tables that cut nothing, progress on stderr."""

import json
import math
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from cli.output import cell, note, print_error, print_json, print_object, print_rows, progress_bar


def test_json_holds_what_json_can(capsys):
    """Instants become ISO 8601 with Z, NaN null, bytes hex, decimals text; non-text keys are taken."""
    print_json({"at": datetime(2026, 1, 2, 3, 4, 5, 600, tzinfo=UTC), "nan": math.nan, "raw": b"\x01", "d": Decimal("1.50"), 1: None})
    assert json.loads(capsys.readouterr().out) == {
        "at": "2026-01-02T03:04:05.000600Z", "nan": None, "raw": "01", "d": "1.50", "1": None}


def test_an_empty_answer_is_an_empty_array(capsys):
    """No rows: `[]` for programs, a hint on stderr for people."""
    print_rows([], ("a",), as_json=True)
    assert capsys.readouterr().out == "[]\n"
    print_rows([], ("a",), as_json=False, empty="nothing here")
    answer = capsys.readouterr()
    assert (answer.out, answer.err) == ("", "nothing here\n")


def test_a_table_in_a_pipe_is_not_cut(capsys):
    """A table that no terminal shows keeps every character, markup-like text included."""
    long = "[bold]" + "x" * 500
    print_rows([{"name": long, "n": 1.5, "when": None}], ("name", "n", "when"), as_json=False)
    out = capsys.readouterr().out
    assert long in out
    assert "1.5" in out


def test_only_named_columns_leave(capsys):
    """Fields that are not asked for are not printed; those that lack are null."""
    print_rows([{"a": 1, "secret": 2}], ("a", "b"), as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": 1, "b": None}]


@pytest.mark.parametrize(("value", "shown"), [
    (None, ""), (True, "yes"), (False, "no"), (1.10, "1.1"), (64321.12345678, "64321.1234568"), (7, "7"), ("x", "x"),
    (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"), ({"a": 1}, '{"a":1}'), (["a", "b"], "a, b"), ([], ""), ([1], "[1]"),
])
def test_cells_read_well(value, shown):
    """Each kind of value is shown as a person expects it."""
    assert cell(value) == shown


def test_an_object_is_lines_or_json(capsys):
    """One object is a line for each field, or JSON."""
    print_object({"a": 1, "long": "x"}, as_json=False)
    assert capsys.readouterr().out.splitlines() == ["a     1", "long  x"]
    print_object({"a": 1}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_errors_and_notes_hide_secrets(capsys):
    """Secret-looking values never reach stderr, and an error is one line whatever its text."""
    print_error("it failed:\n  postgresql://me:hunter2@host/db?password=hunter2")
    note("api_key=hunter2")
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert text.count("\n") == 2


def test_progress_in_a_log_is_a_line_a_tenth(capsys):
    """Without a terminal progress is at most eleven lines, from the first to `5000/5000 candles`, all on stderr."""
    with progress_bar("backfill") as update:
        for done in range(0, 5001, 100):
            update(done, 5000, "candles")
    answer = capsys.readouterr()
    lines = answer.err.splitlines()
    assert answer.out == ""
    assert lines[0] == "backfill: 0/5000 candles"
    assert lines[-1] == "backfill: 5000/5000 candles"
    assert len(lines) == 11


def test_progress_starts_anew_with_the_next_part(capsys):
    """A second part of the work counts from its own beginning; a part of nothing is done at once."""
    with progress_bar("flush") as update:
        update(1, 1, "a")
        update(0, 2, "b")
        update(0, 0, "")
    assert capsys.readouterr().err.splitlines() == ["flush: 1/1 a", "flush: 0/2 b", "flush: 0/0"]


def test_quiet_progress_says_nothing(capsys):
    """For --json there is no progress at all."""
    with progress_bar("x", quiet=True) as update:
        update(1, 2, "y")
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    """On a terminal progress is a bar with done and total."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_bar("backfill x") as update:
        update(50, 100, "candles")
        update(100, 100, "candles")
    assert "100/100 candles" in capsys.readouterr().err

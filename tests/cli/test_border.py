"""The border of the command line: what comes out when something goes wrong, and what is never loaded."""

import os
import signal
import subprocess
import sys

import pytest
import typer

from cli import main
from core.errors import InputError, NetworkError, NotFoundError


def one_line(text):
    """Whether `text` is one line with something on it."""
    return text.endswith("\n") and text.count("\n") == 1 and len(text) > 1


def test_help_is_quick_because_it_loads_little():
    """`candlelake --help` loads neither Prefect nor ccxt nor Polars nor DuckDB."""
    code = ("import sys; from cli.main import run; run(['--help']); "
            "print([n for n in ('prefect', 'ccxt', 'polars', 'duckdb', 'sqlalchemy', 'pyarrow') if n in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip().endswith("[]")


@pytest.mark.parametrize(("error", "code"), [
    (InputError("timeframe", "7x", "1m, 1h", "use one of those"), 2),
    (NotFoundError("no connection 'x'"), 1),
    (NetworkError("refused\nby the host"), 1),
    (FileNotFoundError(2, "No such file or directory", "/nowhere"), 1),
    (ZeroDivisionError("division by zero"), 1),
    (RuntimeError("password=hunter2 leaked"), 1),
])
def test_every_error_is_one_line_and_a_code(error, code, monkeypatch, capsys):
    """Whatever a command raises becomes one line on stderr and the exit code of its kind; no traceback, no secret."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fails() -> None:
        raise error

    monkeypatch.setattr(main, "app", app)
    assert main.run([]) == code
    answer = capsys.readouterr()
    assert answer.out == ""
    assert one_line(answer.err)
    assert answer.err.startswith("error: ")
    assert "hunter2" not in answer.err
    assert "Traceback" not in answer.err


def test_debug_shows_the_traceback_without_secrets(monkeypatch, capsys):
    """--debug, wherever it stands, adds the traceback; secret-looking values stay masked in it."""
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def fails(word: str) -> None:
        raise RuntimeError(f"token=abc123 {word}")

    monkeypatch.setattr(main, "app", app)
    assert main.run(["x", "--debug"]) == 1
    text = capsys.readouterr().err
    assert "Traceback" in text
    assert "abc123" not in text


@pytest.mark.parametrize("words", [
    ["nonsense"], ["candles"], ["candles", "a"], ["fetch", "a", "--nonsense"], ["candles", "a", "b", "1m", "--limit", "x"],
    ["candles", "a", "b", "1m", "--limit", "0"], ["connections"], ["connections", "nonsense"], ["sandbox", "serve", "--port", "0"],
    ["users", "nonsense"], ["users", "add"],
])
def test_bad_usage_is_one_line_and_code_2(words, candlelake):
    """Usage errors are one line that points to the right --help."""
    answer = candlelake(*words)
    assert answer.code == 2
    if words != ["connections"]:  # a group without a command shows its help
        assert one_line(answer.err), answer.err
        assert "--help" in answer.err
        assert answer.out == ""


def test_version(candlelake):
    """--version prints the name and the version."""
    answer = candlelake("--version")
    assert answer.code == 0
    assert answer.out.startswith("candlelake 0.")


def test_a_closed_pipe_is_quiet(program, home):
    """When the reader of stdout goes away, nothing is printed about it."""
    command = f"{sys.executable} -m cli.main config --json | true"
    answer = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False, env=dict(os.environ))
    assert answer.stderr == ""


def test_ctrl_c_is_one_line_and_130(home, free_port):
    """SIGINT during a command that works ends it with one line and 130, without a traceback."""
    code = ("import sys, typer, time\nfrom cli import main\napp = typer.Typer()\n"
            "@app.command()\ndef waits():\n    print('ready', flush=True)\n    time.sleep(60)\n"
            "main.app = app\nsys.exit(main.run([]))")
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert one_line(err)


def test_a_setting_of_the_wrong_type_is_named(candlelake, monkeypatch):
    """A bad environment variable is named with what it may be; exit code 2."""
    monkeypatch.setenv("CANDLELAKE_PREFECT_PORT", "many")
    answer = candlelake("config")
    assert answer.code == 2
    assert one_line(answer.err)
    assert "CANDLELAKE_PREFECT_PORT" in answer.err

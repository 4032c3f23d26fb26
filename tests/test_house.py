"""The house keeps its own rules: names, floors, sizes, locks, settings and documents."""

import ast
import importlib
import importlib.metadata
import io
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from cli.main import app, run
from core.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FLOORS = PROJECT["tool"]["importlinter"]["root_packages"]
OTHER_FOLDERS = {"tests", "docs", "benchmarks", "notebooks"}
LOCKS = ("requirements.lock", "requirements-dev.lock")
MODULE_LINES = 400


@pytest.fixture
def free_port():
    """A port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def modules():
    """All Python files of the floors."""
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def tracked_folders():
    """The top folders that are part of the project (a virtual environment or a cache is not)."""
    answer = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if answer.returncode:
        return sorted({*FLOORS, *OTHER_FOLDERS} & {path.name for path in ROOT.iterdir()})
    return sorted({line.split("/")[0] for line in answer.stdout.splitlines() if "/" in line and line[0] != "."})


@pytest.mark.parametrize("name", FLOORS)
def test_each_package_is_ours(name):
    """Every top-level package resolves inside the repository: no installed package of that name wins over it."""
    found = importlib.import_module(name).__file__
    assert found is not None
    assert Path(found).resolve().is_relative_to(ROOT)


def test_no_floor_stands_outside_the_contracts():
    """Every top folder with Python packages is a root package of the import contracts, in mypy's list and installed.

    `benchmarks` alone is a package beside them: it is run from the repository, never installed, and no floor imports it.
    """
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert packages == set(FLOORS)
    assert {item.removesuffix("*") for item in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]} == packages
    assert packages - set(PROJECT["tool"]["mypy"]["files"]) <= {"addons"}


def test_floors_are_kept():
    """import-linter finds every contract of pyproject.toml kept."""
    answer = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout[-3000:]


def test_no_name_shadows_a_dependency():
    """No package or top module of a floor carries the name of an installed distribution's module."""
    installed = {
        name for name, owners in importlib.metadata.packages_distributions().items() if set(owners) != {"candlelake"}
    } | set(sys.stdlib_module_names)
    assert not installed & set(FLOORS)
    direct = {re.split(r"[^\w-]", item)[0].lower().replace("-", "_") for item in PROJECT["project"]["dependencies"]}
    own = {path.stem for path in modules()} | {path.parent.name for path in modules()}
    assert not direct & own


def test_modules_stay_small():
    """No module has more than 400 lines."""
    long = {str(path.relative_to(ROOT)): lines for path in modules() if (lines := len(path.read_text().splitlines())) > MODULE_LINES}
    assert not long


def test_the_present_comes_from_one_clock():
    """Nobody but core/clock.py asks the machine for the time of day."""
    asks = re.compile(r"\bdatetime\.(?:now|utcnow|today)\(|\bdate\.today\(|\btime\.time(?:_ns)?\(")
    found = [
        f"{path.relative_to(ROOT)}:{number}" for path in modules() if path != ROOT / "core/clock.py"
        for number, line in enumerate(path.read_text().splitlines(), 1) if asks.search(line)
    ]
    assert not found


def test_no_blind_except_without_its_reason():
    """A broad except is rare and says why it is there."""
    found = []
    for path in modules():
        lines = path.read_text().splitlines()
        for node in ast.walk(ast.parse("\n".join(lines))):
            broad = isinstance(node, ast.ExceptHandler) and (
                node.type is None or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}))
            raises_again = broad and any(isinstance(item, ast.Raise) and item.exc is None for item in ast.walk(node))
            if broad and not raises_again and "noqa" not in lines[node.lineno - 1]:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_each_folder_says_what_it_is():
    """Every top folder has a README.md or AGENTS.md (tests explain themselves by their docstrings)."""
    silent = [
        name for name in tracked_folders()
        if name not in {"tests", "docs"} and not any((ROOT / name / page).exists() for page in ("README.md", "AGENTS.md"))
    ]
    assert not silent


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_exact_hashed_and_name_no_host(name):
    """Each requirement of a lock file has one exact version and hashes, and no line names a registry or a path."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) > 50
    for line in lines:
        assert re.match(r"^[a-z0-9._-]+(\[[a-z0-9,._-]+\])?==[^\s;]+", line), line
        assert "--hash=sha256:" in line, line
        assert not re.search(r"https?://|file:|--index|--find-links| @ ", line), line


def test_locks_hold_what_the_project_asks_for():
    """Every direct dependency is in the lock file, and the development lock agrees with the run-time lock."""
    versions = [dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)) for name in LOCKS]
    for item in [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["build"]]:
        assert re.split(r"[^\w-]", item)[0].lower() in versions[0], item
    assert versions[0].items() <= versions[1].items()
    assert versions[0]["prefect"] == "3.8.8"
    assert versions[0]["fastapi"] == "0.150.0"
    assert versions[0]["sqlalchemy"].startswith("2.0.")


def test_every_setting_is_in_the_example_with_its_default():
    """.env.example names every setting once, with its description and its default, and nothing else."""
    text = (ROOT / ".env.example").read_text()
    named = dict(re.findall(r"^(?:# )?CANDLELAKE_([A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert {name.lower() for name in named} == set(Settings.model_fields)
    prose = " ".join(line.removeprefix("# ") for line in text.splitlines())
    for name, field in Settings.model_fields.items():
        assert field.description
        assert field.description in prose, name
        default = "" if field.default is None else "0" if field.default is False else str(field.default)
        assert named[name.upper()] == default, name


GROUPS = {group.name for group in app.registered_groups}


def documented_commands():
    """Every candlelake command line in the documents' code blocks and inline code."""
    out = set()
    for page in ("README.md", "CONTRIBUTING.md", "docs/cli.md", "docs/streams.md"):
        text = (ROOT / page).read_text()
        for found in re.findall(r"(?:^|`|\| |&& )(?:\.venv/bin/)?(candlelake [^`\n|]+)", text, re.MULTILINE):
            out.add((page, found.strip()))
    return sorted(out)


@cache
def help_of(*path):
    """What a command's --help prints; None where it is no command."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(io.StringIO()):
        code = run([*path, "--help"])
    return out.getvalue() if code == 0 else None


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_documented_commands_exist(page, line):
    """Each command in the documents exists, and so does each of its options."""
    words = [word for word in shlex.split(line.split("#")[0]) if word not in {"...", "."}][1:]
    path = []
    for word in words:
        if not re.fullmatch(r"[a-z][a-z-]*", word) or help_of(*path, word) is None:
            break
        path.append(word)
        if path[0] not in GROUPS or len(path) == 2:
            break
    assert path or words[0].startswith("-"), f"{page}: {line}"
    for option in (word for word in words if re.fullmatch(r"--[a-z-]+", word)):
        assert option in help_of(*path), f"{page}: {line}"


def test_make_targets_in_documents_exist():
    """Each make target that a document names is in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in ("README.md", "CONTRIBUTING.md"):
        assert set(re.findall(r"`?make ([a-z-]+)\b(?= *[#`; ]| UP)", (ROOT / page).read_text())) <= targets


def test_links_in_documents_lead_somewhere():
    """Every relative link of the documents names a file that exists."""
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_test_says_what_it_guarantees():
    """Each test function has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.name}" for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_no_package_under_tests():
    """There is no __init__.py under tests: a folder there that is a package would shadow a floor."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_clean_environment_from_the_lock_starts_the_prefect_server(tmp_path, free_port):
    """A new virtual environment built from requirements.lock alone starts Prefect's server to healthy."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = venv / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile",
                    "--require-hashes", "-r", str(ROOT / "requirements.lock")], check=True)
    subprocess.run([python, "-m", "pip", "check"], check=True, capture_output=True)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PYTHON"))},
        "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1",
    }
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [python, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(free_port)],
            env=environment, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT)
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(600):
            assert server.poll() is None, (tmp_path / "server.log").read_text()[-2000:]
            try:
                with opener.open(f"http://127.0.0.1:{free_port}/api/health", timeout=5) as answer:
                    assert json.load(answer) is True
                break
            except OSError:
                time.sleep(0.2)
        else:
            pytest.fail((tmp_path / "server.log").read_text()[-2000:])
    finally:
        server.terminate()
        server.wait(30)

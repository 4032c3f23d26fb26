"""docs/proof.md names only what exists, and something for each promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "proof.md").read_text()
IDS = sorted(set(re.findall(r"`(tests/[\w/]+\.py(?:::\w+)?)`", PAGE)))


@pytest.mark.parametrize("name", IDS)
def test_each_test_named_as_proof_exists(name: str) -> None:
    """The file is there, and defines a test of that name."""
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert any(item.startswith("test_") for item in defined)
    assert not function or function in defined


def test_each_promise_names_its_proof() -> None:
    """All twelve promises have a chapter, and each row of each table names a test."""
    chapters = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
    assert [int(title.split()[0]) for title in chapters if title[0].isdigit()] == list(range(1, 13))
    rows = [line for text in chapters.values() for line in text.splitlines() if line.startswith("| ") and not re.match(r"\| (promise|set) \|", line)]
    assert len(rows) > 50
    assert not [row for row in rows if "`tests/" not in row]

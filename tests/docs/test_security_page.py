"""docs/security.md names a test that exists for each of the twenty-five abuses."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if re.match(r"\| A\d+ \|", line)]
ASVS = [line for line in (ROOT / "docs" / "security.md").read_text().splitlines() if re.match(r"\| \d+\.\d+\.\d+", line)]


def test_each_abuse_names_tests_that_exist() -> None:
    """A1 to A25 each have a row, and each row, those of the ASVS too, names at least one test, each of which is defined."""
    assert [row.split("|")[1].strip() for row in ROWS] == [f"A{number}" for number in range(1, 26)]
    assert len(ASVS) > 15
    for row in [*ROWS, *ASVS]:
        names = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert names, row
        for path, function in names:
            tree = ast.parse((ROOT / path).read_text())
            assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}, (path, function)
